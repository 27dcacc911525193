"""The prompt of ``lake sql``, and where statements end."""

from __future__ import annotations

import re
import sys

from lakehouse.cli.errors import expected, first_lines
from lakehouse.cli.printing import print_rows

LEAVE = ("quit", "exit", "\\q")
# Texts, quoted names and comments, the last of which may still be open.
_NO_CODE = re.compile(
    r"""'(?:[^'\\]|\\.)*(?:'|\Z)|"(?:[^"\\]|\\.)*(?:"|\Z)|`[^`]*(?:`|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL
)


def prompt(limit: int, release: int | None) -> None:
    """Run the statements that a person types, each up to its semicolon, and print their rows."""
    import readline  # noqa: F401  (gives input() its line editing and history)

    typed, prompt = "", "lake> " if release is None else f"lake@{release}> "
    while True:
        try:
            typed += input(prompt if not typed else f"{'->':>{len(prompt) - 1}} ") + "\n"
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            typed = ""
            continue
        if typed.strip().rstrip(";") in LEAVE:
            return
        statements, typed = split(typed)
        for statement in statements:
            try:
                print_rows(statement, False, False, limit, release)
            except expected() as error:
                print(first_lines(error), file=sys.stderr)


def script(text: str) -> list[str]:
    """The statements of a whole text, the last of which need not have a semicolon.

    Args:
        text: What a file holds, or another program has written.
    """
    statements, last = split(text)
    return [*statements, last] if _NO_CODE.sub("", last).strip() else statements


def split(text: str) -> tuple[list[str], str]:
    """Cut what was typed into statements.

    Args:
        text: One or more lines.

    Returns:
        The statements that have ended, without their semicolons, and what has been begun behind them.
    """
    code = _NO_CODE.sub(lambda found: " " * len(found[0]), text)
    ends = [found.start() for found in re.finditer(";", code)]
    starts = [0, *(end + 1 for end in ends)]
    statements = [text[start:end] for start, end in zip(starts, ends, strict=False) if code[start:end].strip()]
    begun = text[starts[-1] :]
    return statements, begun if re.sub("--.*", "", begun).strip() else ""
