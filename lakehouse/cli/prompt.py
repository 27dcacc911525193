"""The prompt of ``lake sql``."""

from __future__ import annotations

import sys

from lakehouse.cli.errors import expected, first_lines
from lakehouse.cli.printing import print_rows


def prompt(limit: int, release: int | None) -> None:
    """Run the statements that a person types, each up to its semicolon, and print their rows."""
    import readline  # noqa: F401  (gives input() its line editing and history)

    statement, prompt = "", "lake> " if release is None else f"lake@{release}> "
    while True:
        try:
            statement += input(prompt if not statement else f"{'->':>{len(prompt) - 1}} ") + "\n"
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            statement = ""
            continue
        if statement.strip() in ("", "quit", "exit", "\\q"):
            if statement.strip():
                return
            statement = ""
        elif statement.rstrip().endswith(";"):
            try:
                print_rows(statement.rstrip().rstrip(";"), False, False, limit, release)
            except expected() as error:
                print(first_lines(error), file=sys.stderr)
            statement = ""
