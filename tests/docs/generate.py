"""The parts of the reference that follow from the code. ``python -m tests.docs.generate`` writes them anew."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PART = "<!-- {name}: written by tests/docs/generate.py -->\n"
END = "<!-- end -->\n"

KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
"""Type in a JSON schema to what people call it."""

BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
"""Bound in a JSON schema to its sign."""


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


def model_tables() -> str:
    """Every key of ``model.yaml``: those of the file itself, then those of each of its parts."""
    from lakehouse.ml.model_spec import ModelSpec

    lines: list[str] = []
    for name, part in [("", ModelSpec), *_parts(ModelSpec)]:
        lines += [f"## `{name}`", "", (part.__doc__ or "").splitlines()[0], ""] if name else []
        lines += ["| key | kind | default | meaning |", "|---|---|---|---|"]
        schema = part.model_json_schema()
        for key, field in part.model_fields.items():
            kind = _kind(schema["properties"][key])
            lines.append(f"| `{key}` | {kind} | {_default(field)} | {field.description or ''} |")
        lines.append("")
    return "\n".join(lines)


def _parts(document: type[BaseModel], within: str = "") -> list[tuple[str, type[BaseModel]]]:
    """The parts of a document with their full names, each followed by its own."""
    found: list[tuple[str, type[BaseModel]]] = []
    for name, field in document.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += [(f"{within}{name}", kind), *_parts(kind, f"{within}{name}.")]
    return found


def _kind(schema: dict[str, Any]) -> str:
    """What values a key may have, of its JSON schema."""
    schema = next((each for each in schema.get("anyOf", ()) if each.get("type") != "null"), schema)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema or "allOf" in schema:
        return "see below"
    if schema["type"] == "array":
        return f"list of {KINDS[schema['items']['type']]}s"
    if schema["type"] == "object":
        return f"{KINDS[schema['additionalProperties']['type']]} by name"
    bounds = [f"{sign} {schema[bound]:g}" for bound, sign in BOUNDS.items() if bound in schema]
    return ", ".join([KINDS[schema["type"]], *bounds])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    return "see below" if isinstance(field.default, BaseModel) else f"`{json.dumps(field.default)}`"


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


GENERATED = {
    "settings.md": ("settings", settings_table),
    "cli.md": ("commands", cli_reference),
    "model.md": ("keys", model_tables),
}


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
