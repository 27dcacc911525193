"""Schedules of landings, late data, reruns, overlaps, replays and rollbacks show what they must, at each step."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, seed, settings

from tests.faults.schedules import DAYS, Machine, Operation, operations
from tests.spark.sources import new_source as new_source

# `./lake faults --schedules N` sets more.
EXAMPLES = int(os.environ.get("LAKEHOUSE_TEST_SCHEDULES", "3"))
SEED = int(os.environ.get("LAKEHOUSE_TEST_SEED", "0"))
ONE, TWO, _ = DAYS
_numbers = itertools.count()


@pytest.mark.usefixtures("engine")
@seed(SEED)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@example(
    sequence=[
        ("load", f"{ONE}/{TWO}"),
        ("deliver", ONE, [5, 5, 500]),
        ("load", ONE),
        ("land and leave", TWO),
        ("change the limit",),
        ("replay", ONE),
        ("roll back", 2),
        ("land two, release the first", ONE, TWO),
        ("load", ONE),
    ]
)
@example(  # nothing to replay, of a day whose second landing was taken back
    sequence=[
        ("load", ONE),
        ("land two, release the first", ONE, TWO),
        ("replay", ONE),
    ]
)
@given(sequence=operations)
def test_readers_see_what_they_must_after_every_operation(sequence: list[Operation], new_source: Any) -> None:
    machine = Machine(new_source(f"schedule_{next(_numbers)}"))
    for operation in sequence:
        note(str(operation))
        machine.do(operation)
