"""The YAML file of a contract, which knows the line of each of its fields and refuses what the standard has not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from open_data_contract_standard.model import OpenDataContractStandard, SchemaProperty
from open_data_contract_standard.model import Server as ServerDocument
from pydantic import ValidationError

from lakehouse.errors import LakeError
from lakehouse.interval import day
from lakehouse.settings import PROJECT_DIR
from lakehouse.wording import did_you_mean

_FIELDS: dict[str, dict[str, Any]] = {
    "servers": ServerDocument.model_fields,
    "properties": SchemaProperty.model_fields,
}


class ContractError(LakeError, ValueError):
    """A contract is wrong; the message names the file, the line, the field and the way out.

    Args:
        message: All of that.
        code: The kind of fault, if it is one of those that ``docs/reference/reason-codes.md`` lists.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(f"[{code}] {message}" if code else message)
        self.code = code


class _Loader(yaml.CSafeLoader):
    """Leaves dates as text, so that a day that does not exist is an error of its field."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for letter, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


class Document:
    """A parsed contract that knows the line of each of its fields."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            raw = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
            self._root = yaml.compose(text, Loader=_Loader)
        except UnicodeDecodeError as error:
            raise ContractError(f"{shown(path)}: not UTF-8 ({error}). Save it as UTF-8.") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ContractError(
                f"{shown(path)}, line {line}: not YAML ({error.problem}). Correct the line; indent with spaces."
            ) from error
        self._refuse_duplicates(self._root, ())
        if not isinstance(raw, dict):
            self.fail((), "is empty or not a mapping. Start it with `apiVersion: v3.1.0` and `kind: DataContract`.")
        try:
            self.odcs = OpenDataContractStandard.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "extra_forbidden":
                self._refuse_key(first["loc"], list(OpenDataContractStandard.model_fields))
            self.fail(first["loc"], f"{first['msg']} (the value is {first['input']!r}).")
        self._refuse_unknown(raw, self.odcs.model_dump(by_alias=True, exclude_unset=True), ())

    def line(self, path: Sequence[str | int]) -> int:
        """Line of a field, or of the nearest field around it that the document has."""
        node, line = self._root, 1
        for part in path:
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == part:
                        node, line = value, key.start_mark.line + 1
                        break
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
        return line

    def fail(self, path: Sequence[str | int], problem: str, code: str | None = None) -> NoReturn:
        """Raise an error about one field."""
        raise ContractError(f"{shown(self.path)}, line {self.line(path)}: {_dotted(path)} {problem}", code)

    def _refuse_key(self, path: Sequence[str | int], known: Sequence[str]) -> NoReturn:
        self.fail(path, f"is not a field of the Open Data Contract Standard.{did_you_mean(str(path[-1]), known)}")

    def _refuse_duplicates(self, node: yaml.Node | None, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise ContractError(
                        f"{shown(self.path)}, line {line}: {_dotted((*path, key.value))} is there twice, "
                        f"first on line {seen[key.value]}. Keep one."
                    )
                seen[key.value] = line
                self._refuse_duplicates(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._refuse_duplicates(item, (*path, index))

    def _refuse_unknown(self, raw: Any, model: Any, path: tuple[str | int, ...]) -> None:
        # The standard's pydantic model drops unknown keys inside the document in silence.
        if isinstance(raw, dict) and isinstance(model, dict):
            for key, value in raw.items():
                if key not in model:
                    fields = [field.alias or name for name, field in _FIELDS.get(_kind(path), {}).items()]
                    self._refuse_key((*path, key), fields)
                self._refuse_unknown(value, model[key], (*path, key))
        elif isinstance(raw, list) and isinstance(model, list):
            for index, (item, modelled) in enumerate(zip(raw, model, strict=True)):
                self._refuse_unknown(item, modelled, (*path, index))


class Properties:
    """Custom properties, read one by one; what is left over at the end is unknown and refused."""

    def __init__(self, document: Document, path: tuple[str | int, ...], entries: Sequence[Any] | None) -> None:
        self._document, self._path = document, path
        self._known: list[str] = []
        self._entries: dict[str, tuple[int, Any]] = {}
        for index, entry in enumerate(entries or ()):
            if entry.property in self._entries:
                document.fail((*path, index, "property"), f"{entry.property} is there twice. Keep one.")
            self._entries[entry.property] = (index, entry.value)

    def place(self, name: str) -> tuple[str | int, ...]:
        """Where a property is, for an error about it."""
        return (*self._path, self._entries[name][0]) if name in self._entries else self._path

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a property."""
        self._known.append(name)
        return self._entries[name][1] if name in self._entries else default

    def one_of(self, name: str, choices: Any, default: str | None = None) -> Any:
        """A property that is one of the values of a Literal."""
        value = self.get(name, default)
        if value not in get_args(choices):
            said = f"is {value!r}" if value is not None else "is missing"
            self._document.fail(self.place(name), f"{name} {said}. Set it to one of: {', '.join(get_args(choices))}.")
        return value

    def whole_number(self, name: str, default: int, minimum: int) -> int:
        """A property that is a whole number."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            self._document.fail(self.place(name), f"{name} is {value!r}. Write a whole number of at least {minimum}.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A property that is true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            self._document.fail(self.place(name), f"{name} is {value!r}. Write true or false.")
        return value

    def date(self, name: str) -> dt.date | None:
        """A property that is a day."""
        value = self.get(name)
        if value is None:
            return None
        try:
            return day(str(value))
        except ValueError:
            self._document.fail(self.place(name), f"{name} is {value!r}. Write a day as 2013-12-31.")

    def refuse_others(self) -> None:
        """Refuse properties that nobody has asked for."""
        for name, (index, _) in self._entries.items():
            if name not in self._known:
                hint = did_you_mean(str(name), self._known, f"Known are: {', '.join(self._known)}.")
                self._document.fail((*self._path, index, "property"), f"{name} is not known to the platform.{hint}")


def required_text(document: Document, path: tuple[str | int, ...], value: str | None, way_out: str) -> str:
    """A text that must be there, without the blanks around it."""
    if value is None or not value.strip():
        document.fail(path, f"is missing. {way_out}")
    return value.strip()


def shown(path: Path) -> str:
    """A file as a message names it: from the folder of the project on, if it lies there."""
    return str(path.relative_to(PROJECT_DIR) if path.is_relative_to(PROJECT_DIR) else path)


def _dotted(path: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the document"


def _kind(path: Sequence[str | int]) -> str:
    return next((part for part in reversed(path) if isinstance(part, str)), "")
