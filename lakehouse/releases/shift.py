"""Shift: scores that are spread as those of the days before them, as a rule of the gate of predictions.

The scores of a day are compared with the released ones of the weeks before it, in tenths of the latter: what is judged
is the share of the day's scores that would have to lie elsewhere (the total variation distance). A stability index has
no upper end, and the one that a day can reach depends on its rows. Great Expectations is asked for the days on which it
is too great, with one query. Rows that a fallback has scored are left out: it was declared, and is marked and alerted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from lakehouse import tables
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.ml.scoring import SCORE
from lakehouse.quality.expectation import Expectation
from lakehouse.registry.registry import CHALLENGER, CHAMPION
from lakehouse.release_log import history, released

LABEL = "distribution"
BINS = 10
DAYS = 28
"""So many days before a day are what it is compared with."""
FEWEST_DAYS, FEWEST_ROWS = 7, 50
"""With fewer days before it, or fewer rows of its own, a day is not judged."""


def rules(table: str, interval: Interval | None) -> tuple[Expectation, ...]:
    """What the gate has to ask of the scores of some days; of a table that holds no predictions nothing.

    Args:
        table: The table, as readers name it.
        interval: The days whose predictions are new; without them nothing is asked.
    """
    spec = model_folders.of_predictions(table)
    if spec is None or interval is None or len(_days_before(table, interval)) < FEWEST_DAYS:
        return ()
    state = released().get(table)
    if state is None:
        return ()
    return tuple(_rules(spec, interval, tables.next_table(table), state.version))


def _days_before(table: str, interval: Interval) -> set[dt.date]:
    """The days that a day of the interval could be compared with, so that the engine is not asked in vain."""
    earliest = interval.start - dt.timedelta(days=DAYS)
    return {
        day
        for row in history()
        if row["table_name"] == table and row["interval_start"] is not None
        for day in Interval(row["interval_start"], row["interval_end"]).days()
        if earliest <= day < interval.end
    }


def query(table: str, made: int, seen: int, day: str, interval: Interval, limit: float) -> str:
    """The days whose scores are spread too differently from those before, as SQL.

    Args:
        table: The stored table.
        made: Its version that is to be released.
        seen: The version that is.
        day: Its column of days.
        interval: The days to judge.
        limit: Share from which on a day is told.
    """
    tenths = ", ".join(f"{n / BINS}" for n in range(1, BINS))
    due = f"role in ('{CHAMPION}', '{CHALLENGER}')"
    # GX wants its {batch} to be in a query; see lakehouse.releases.completeness.
    return (
        "/* {batch} */ "
        f"with made as (select `{day}` as day, {SCORE} as score from {table} version as of {made} "
        f"where {interval.sql(f'`{day}`')} and {due}), "
        f"before as (select made.day, past.`{day}` as of_day, past.{SCORE} as score "
        f"from (select distinct day from made) made join {table} version as of {seen} past "
        f"on past.`{day}` < made.day and past.`{day}` >= date_sub(made.day, {DAYS}) and past.{due}), "
        f"edges as (select day, percentile(score, array({tenths})) as edges from before group by day "
        f"having count(distinct of_day) >= {FEWEST_DAYS}), "
        "spread as (select day, score, 1 as new from made union all select day, score, 0 from before), "
        "binned as (select day, size(filter(edges, edge -> edge < score)) as bin, sum(new) as now, "
        "count(*) - sum(new) as past from spread join edges using (day) group by day, bin), "
        "shares as (select day, sum(now) over (partition by day) as rows, "
        "now / sum(now) over (partition by day) as new, past / sum(past) over (partition by day) as old from binned) "
        "select day, sum(abs(new - old)) / 2 as moved from shares "
        f"where rows >= {FEWEST_ROWS} group by day having moved >= {limit}"
    )


def _rules(spec: ModelSpec, interval: Interval, stored: str, seen: int) -> Iterator[Expectation]:
    made = tables.head(stored)
    assert made is not None
    for severity, limit in (("warning", spec.gate.shift_warning), ("critical", spec.gate.shift)):
        if limit is not None:
            asked = query(stored, made, seen, spec.features.interval_column, interval, limit)
            label = (
                f"{LABEL}: on no day of {interval} do {limit:.0%} of the scores lie elsewhere than {DAYS} days before"
            )
            yield Expectation("unexpected_rows_expectation", {"unexpected_rows_query": asked}, severity,
                              {"label": label})  # fmt: skip
