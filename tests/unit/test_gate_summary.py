"""What the gate says of a verdict in one sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse.quality.expectation import Expectation
from lakehouse.quality.gate import GateResult, RuleResult


def summary(*severities: str | None) -> str:
    """Of a gate whose rules fail with these severities; one that is None holds."""
    rules: list[Any] = [
        RuleResult(
            Expectation(f"expect_{number}", {}, severity or "critical"), success=severity is None, observed_value=0
        )
        for number, severity in enumerate(severities)
    ]
    made_up: Any = SimpleNamespace()
    return GateResult("gold_next.made_up", 1, made_up, tuple(rules), made_up, 2.0).summary()


@pytest.mark.parametrize(
    ("severities", "said"),
    [
        ([None] * 25, "passed 25 rules in 2.0 s."),
        ([None] * 24 + ["warning"], "passed with 1 warning of 25 rules in 2.0 s: [warning] expect_24(): found 0."),
        (["warning", "warning", None], "passed with 2 warnings of 3 rules in 2.0 s: [warning] expect_0(): found 0; "),
        (["info", "warning"], "passed with 1 warning and 1 info of 2 rules in 2.0 s: [warning] expect_1(): found 0; "),
        (["warning", "critical", None], "failed (2 of 3 rules in 2.0 s failed): [critical] expect_1(): found 0; "),
        ([None], "passed 1 rule in 2.0 s."),
    ],
)
def test_a_verdict_and_its_warnings_agree(severities: list[str | None], said: str) -> None:
    assert summary(*severities).startswith(said)
