"""The prompt of `lake sql`: where a statement ends, and what happens to one that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lakehouse.cli import prompt as module
from lakehouse.cli.prompt import prompt, script, split
from lakehouse.errors import LakeError

Typed = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("select 1;\n", ["select 1"], ""),
        ("select\n", [], "select"),
        ("select 1; select 2;\n", ["select 1", " select 2"], ""),
        ("select 1; select\n", ["select 1"], " select"),
        ("select ';\n", [], "select ';"),
        ("select ';\n', 2;\n", ["select ';\n', 2"], ""),
        ("select 'it\\';' as a;\n", ["select 'it\\';' as a"], ""),
        ("select 'it'';' as a;\n", ["select 'it'';' as a"], ""),
        ('select ";" as a, `b;` from c;\n', ['select ";" as a, `b;` from c'], ""),
        ("select 1 -- one;\n, 2;\n", ["select 1 -- one;\n, 2"], ""),
        ("select 1 -- it's one\n;\n", ["select 1 -- it's one\n"], ""),
        ("select 1; -- one\n", ["select 1"], ""),
        ("select 1 /* ; it's\n", [], "select 1 /* ; it's"),
        ("select 1 /* ;\n */, '/*';\n", ["select 1 /* ;\n */, '/*'"], ""),
        (";;\n", [], ""),
    ],
)
def test_a_statement_ends_at_a_semicolon_that_is_in_no_text_and_no_comment(
    text: str, statements: list[str], rest: str
) -> None:
    found = split(text)
    assert (found[0], found[1].rstrip("\n")) == (statements, rest)


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("-- all\nselect 1;\nselect\n2\n", ["-- all\nselect 1", "\nselect\n2\n"]),
        ("select 1", ["select 1"]),
        ("select 1;\n-- done\n", ["select 1"]),
        ("select 1;\n/* done */\n", ["select 1"]),
        ("\n", []),
    ],
)
def test_the_last_statement_of_a_file_needs_no_semicolon(text: str, statements: list[str]) -> None:
    assert script(text) == statements


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Types lines at the prompt, and returns the statements that it has run."""

    def run(*lines: str | type[BaseException], release: int | None = None) -> list[str]:
        asked: list[str] = []
        given = iter(lines)

        def line(_prompt: str) -> str:
            each = next(given, EOFError)
            if isinstance(each, str):
                return each
            raise each

        def answer(query: str, *options: Any) -> None:
            assert options[-1] == release
            asked.append(query)
            if "wrong" in query:
                raise LakeError("that is wrong\nin many words")

        monkeypatch.setattr("builtins.input", line)
        monkeypatch.setattr(module, "print_rows", answer)
        prompt(100, release)
        return asked

    return run


def test_statements_may_take_several_lines(typed: Typed) -> None:
    assert typed("select", "  1;", "", "select 2;", release=7) == ["select\n  1", "select 2"]


def test_an_error_is_shown_and_the_prompt_goes_on(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("select wrong;", "select 2;") == ["select wrong", "select 2"]
    assert "that is wrong" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["quit", "exit", "\\q", "quit;"])
def test_a_word_leaves(typed: Typed, word: str) -> None:
    assert typed("select 1;", word, "select 2;") == ["select 1"]


def test_an_interrupt_drops_what_was_typed(typed: Typed) -> None:
    assert typed("select 'open;", KeyboardInterrupt, "select 2;") == ["select 2"]
