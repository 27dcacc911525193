"""How much of a run is work: seconds that some steps cover together, and the longest way through a graph of tasks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

Span = tuple[dt.datetime, dt.datetime]


def covered(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of some spans of time goes on: a step within a step counts once.

    Args:
        spans: Beginnings and ends.
    """
    seconds, upto = 0.0, None
    for start, end in sorted(spans):
        begin = start if upto is None else max(start, upto)
        if end > begin:
            seconds += (end - begin).total_seconds()
            upto = end
    return seconds


def longest(after: Mapping[str, Iterable[str]], seconds: Mapping[str, float]) -> tuple[list[str], float]:
    """The way through a graph of tasks on which there is most to do: nothing makes the whole shorter than that.

    Args:
        after: Task to the tasks that have to be done before it.
        seconds: What there is to do in each; nothing in one that is left out.

    Returns:
        The tasks of the way that have something to do, and its seconds.
    """
    best: dict[str, tuple[float, list[str]]] = {}
    for task in TopologicalSorter(after).static_order():
        before = max((best[each] for each in after.get(task, ())), default=(0.0, []), key=lambda found: found[0])
        own = seconds.get(task, 0.0)
        best[task] = before[0] + own, [*before[1], task] if own else before[1]
    total, way = max(best.values(), default=(0.0, []), key=lambda found: found[0])
    return way, total
