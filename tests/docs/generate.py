"""The parts of the reference that follow from the code. ``python -m tests.docs.generate`` writes them anew."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import AliasChoices
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PART = "<!-- {name}: written by tests/docs/generate.py -->\n"
END = "<!-- end -->\n"


@cache
def command() -> Any:
    """The whole ``lake`` command, as Click sees it."""
    import typer.main

    from lakehouse.cli import command_line

    return typer.main.get_command(command_line())


def settings_table() -> str:
    """Every setting: key, variable, default, meaning."""
    from lakehouse.settings import PROJECT_DIR, Ports, Settings

    rows = ["| in `lake.toml` | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if field.annotation is Ports:
            continue
        alias = field.validation_alias
        variable = str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"LAKE_{name}".upper()
        rows.append(_row(name, variable, field, PROJECT_DIR))
    for name, field in Ports.model_fields.items():
        rows.append(_row(f"ports.{name}", f"LAKE_PORTS__{name}".upper(), field, PROJECT_DIR))
    return "\n".join(rows) + "\n"


def _row(name: str, variable: str, field: Any, project: Path) -> str:
    default = field.default
    if default is None or default is PydanticUndefined:
        shown = "" if default is None else "empty"
    else:
        text = json.dumps(default) if isinstance(default, tuple) else str(default)
        shown = f"`{text.replace(str(project), '<checkout>')}`"
    return f"| `{name}` | `{variable}` | {shown} | {field.description} |"


def cli_reference() -> str:
    """Every command with its arguments and options."""
    lines: list[str] = []
    for path, leaf in leaves():
        usage = [f"lake {' '.join(path)}", *(f"[{_name(p)}]" if not p.required else _name(p) for p in _arguments(leaf))]
        text = " ".join((leaf.help or "").split())
        lines += [f"### `{' '.join(usage)}`", "", text, ""]
        options = [p for p in leaf.params if p.param_type_name == "option" and "--help" not in p.opts]
        if options:
            lines += ["| option | |", "|---|---|"]
            for option in options:
                names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len, reverse=True))
                required = " Required." if option.required else ""
                lines.append(f"| {names}{_value(option)} | {option.help}{required} |")
            lines.append("")
    return "\n".join(lines)


def leaves() -> list[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""

    def walk(node: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
        if not hasattr(node, "commands"):
            return [(path, node)]
        return [leaf for name, child in node.commands.items() for leaf in walk(child, (*path, name))]

    return walk(command(), ())


def _arguments(leaf: Any) -> list[Any]:
    return [p for p in leaf.params if p.param_type_name == "argument"]


def _name(argument: Any) -> str:
    return (argument.metavar or argument.name.upper()) + ("…" if argument.nargs == -1 else "")


def _value(option: Any) -> str:
    return "" if option.is_flag else " " + str(option.metavar or option.name.strip("_").upper()).replace("|", "\\|")


GENERATED = {"settings.md": ("settings", settings_table), "cli.md": ("commands", cli_reference)}


def fill(page: str, text: str) -> str:
    """A page with its generated part as the code says it is now.

    Args:
        page: Name of the page in ``docs/reference``.
        text: What it holds.
    """
    name, make = GENERATED[page]
    start = PART.format(name=name)
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{page} has no part {start.strip()} … {END.strip()}")
    return pattern.sub(lambda _: f"{start}\n{make().strip()}\n\n{END}", text)


def main() -> None:
    """Write the generated parts of the reference."""
    for page in GENERATED:
        path = REFERENCE / page
        path.write_text(fill(page, path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
