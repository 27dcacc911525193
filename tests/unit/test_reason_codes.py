"""Every code that the readers and landing give is documented."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = Path("docs/reference/reason-codes.md")


def _given(path: Path) -> set[str]:
    """The codes that a module writes out as the last argument of an error, or the first of a row's fault."""
    codes: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            last = {"SourceError": -1, "RejectedBatchError": -1, "because": 0, "_fault": 0}.get(node.func.id)
            if last is not None and isinstance(node.args[last], ast.Constant):
                codes.add(node.args[last].value)
    return codes


def test_every_code_is_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)`", PAGE.read_text(), re.MULTILINE))
    modules = [
        Path("lakehouse/landing/batches.py"),
        *Path("lakehouse/readers").glob("*.py"),
        *Path("spark_jobs").glob("*.py"),
    ]
    given = set().union(*map(_given, modules))
    assert len(given) > 20
    assert given <= documented
