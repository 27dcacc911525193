"""The platform's commands alone: ``python -m lakehouse.platform up``."""

from __future__ import annotations

import sys

import typer

from lakehouse.errors import LakeError
from lakehouse.platform.commands import register


def main() -> None:
    """Run one of the commands."""
    app = typer.Typer(add_completion=False)
    register(app)
    try:
        app()
    except LakeError as error:
        print(f"lake: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
