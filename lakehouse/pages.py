"""HTML pages that need nothing but themselves: templates of ``lakehouse/templates/pages``, and files that are whole."""

from __future__ import annotations

import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("lakehouse", "templates/pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["commit"] = short
    return found


def short(code_version: str) -> str:
    """A commit as people write it, and whether files were not as it has them.

    Args:
        code_version: Outcome of :func:`lakehouse.steps.code_version`.
    """
    commit, changed, which = code_version.partition("+changed")
    return commit[:12] + changed + which


def render(template: str, **values: Any) -> str:
    """A page; every value is escaped.

    Args:
        template: Name of the template.
        values: What it shows.
    """
    return _templates().get_template(template).render(**values)


def write(path: Path, html: str) -> None:
    """Write a page as a whole: who reads it meanwhile sees the old one or the new one.

    Args:
        path: The page's file.
        html: What it holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    part.write_text(html, "utf-8")
    part.replace(path)
