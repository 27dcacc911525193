"""What pages and trees have in common."""

from __future__ import annotations

from lakehouse.pages import short


def test_a_commit_with_changed_files_is_told_from_the_commit() -> None:
    commit = "24b366ff1401e0c5d2a8a4d3b1c5f6a7b8c9d0e1"
    assert short(commit) == "24b366ff1401"
    assert short(f"{commit}+changed") == "24b366ff1401+changed"
    assert short(f"{commit}+changed.0123456789ab") == "24b366ff1401+changed.0123456789ab"
    assert short("0.1.0") == "0.1.0"
