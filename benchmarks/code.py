"""The code that a result was made with, as a hash: what was kept of another code is made again."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from lakehouse.settings import PROJECT_DIR

NOT_CODE = {"__pycache__", "target", "logs", "README.md"}


def sha256(*modules: str, folders: tuple[str, ...] = (), root: Path = PROJECT_DIR) -> str:
    """Hash of modules with all of the project that they import, of folders of files, and of the locked libraries.

    Args:
        *modules: Such as ``lakehouse.ml.training``.
        folders: Such as ``dbt``, from the project's own.
        root: The project's folder.
    """
    files = {path for module in modules for path in _imported(module, root)}
    files |= {path for folder in folders for path in _files(root / folder)}
    digest = hashlib.sha256()
    for path in sorted(files | {root / "uv.lock"}):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not NOT_CODE & {*path.relative_to(folder).parts}:
            yield path


def _imported(module: str, root: Path) -> set[Path]:
    found: set[Path] = set()
    queue = [_module(module, root)]
    while queue:
        path = queue.pop()
        if path is None or path in found:
            continue
        found.add(path)
        for node in _run(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                queue += [_module(each.name, root) for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = _module(node.module, root)
                queue += [_module(f"{node.module}.{each.name}", root) or whole for each in node.names]
    return found


def _module(name: str, root: Path) -> Path | None:
    """The file of a module of the project; None for one of a library."""
    stem = root / name.replace(".", "/")
    return next((each for each in (stem.with_suffix(".py"), stem / "__init__.py") if each.is_file()), None)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module, without those that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from _run(node)
