"""Impact: everything that was made from a source file, some days, a version of a table, a column or a model version."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from lakehouse import ops, tables
from lakehouse.errors import LakeError
from lakehouse.interval import Interval, InvalidIntervalError
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import PREDICTIONS, SCORING_STEPS
from lakehouse.ml.scoring import DECISION, LINEAGE, SCORE, ModelFailedError
from lakehouse.provenance.ledger import Ledger, Write, features_of, ranges
from lakehouse.registry import model_versions, registry
from lakehouse.table_days import Days
from lakehouse.wording import did_you_mean

COLUMNS_OF = ("source", "bronze", "silver", "gold", "models", "ml")
"""What comes before the table of a column that can be asked for."""

Origin = dict[tuple[str, int], Days]


class UnknownOriginError(LakeError, LookupError):
    """It is not known what is meant."""


@dataclass
class Impact:
    """What was made from something.

    Attributes:
        what: As it was asked for.
        kind: file, days, version, column or model.
        landings: The runs that have landed it, the failed ones too.
        columns: For a column: the columns made from it, as ``layer.table.column``.
        columns_by_condition: And the others: nothing of it is in their values, but as a filter, the key of a join or of
            a group it decides which rows they have.
        tables: Per write: ``table``, ``version``, ``days``, ``step``, ``run_id``, ``visible_days``, ``releases``, and
            whether it is ``without_rows``: what readers see of these days is by it, and has no rows. What a model has
            said in the shadow, or when it was asked what if, is among them: readers never see it. For a column: per
            table, with the version and days that readers see, and all releases.
        models: Versions trained on it: ``name``, ``version``, ``roles_now``, ``trained_on``. Of a column: those of its
            columns that are among its ``inputs``, or its ``label``.
        predictions: Per scoring: ``table``, ``version``, ``run_id``, ``model_version``, ``days``, ``because``,
            ``rows_written``, ``rows_visible``, ``query``, ``releases``.
        overrides: Those of the ``releases`` above that somebody has published against a gate: ``table``,
            ``release_id``, ``released_by``, ``reason``.
        unknown: What cannot be told, in words.
    """

    what: str
    kind: str
    landings: list[dict[str, Any]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    columns_by_condition: list[str] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)
    overrides: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def visible(self) -> bool:
        """Whether readers still see something of it."""
        return any(each["visible_days"] for each in self.tables) or any(p["rows_visible"] for p in self.predictions)


def impact(what: str) -> Impact:
    """Everything that was made from something.

    Args:
        what: A source file (its name, or the end of its path), days (``2013-03-01`` or ``FIRST/LAST``: all that was
            landed for them), a version of a table (``bronze.weather@3``), a column (``bronze.weather.temperature_f``,
            ``models.flight_delay.score``, ``ml.predictions_flight_delay.decision``) or a model version
            (``flight_delay@1``, ``models.flight_delay@1``).

    Raises:
        UnknownOriginError: There is no such thing.
        lakehouse.interval.InvalidIntervalError: It is made of digits like days, and they are none.
    """
    ledger = Ledger.read()
    found = _made_from(ledger, what)
    shown = {(each["table"], number) for each in found.tables + found.predictions for number in each["releases"]}
    found.overrides = [
        {"table": row["table_name"], **{name: row[name] for name in ("release_id", "released_by", "reason")}}
        for row in ledger.releases
        if row["override_of"] and (row["table_name"], row["release_id"]) in shown
    ]
    return found


def _made_from(ledger: Ledger, what: str) -> Impact:
    name, at, version = what.partition("@")
    if at and version.isdigit() and "." not in name.removeprefix("models."):
        return _of_model(ledger, what, name.removeprefix("models."), int(version))
    if at and version.isdigit():
        return _of_writes(ledger, Impact(what, "version"), _origin_of_version(ledger, name, int(version)))
    if "/" not in what and what.count(".") == 2 and what.split(".")[0] in COLUMNS_OF:
        return _of_column(ledger, what)
    try:
        days = Interval.parse(what)
    except InvalidIntervalError:
        if re.fullmatch(r"[\d/-]+", what):
            raise
        return _of_file(ledger, what)
    return _of_writes(ledger, Impact(what, "days"), _origin_of_days(ledger, days))


def _origin_of_version(ledger: Ledger, table: str, version: int) -> Origin:
    if table.startswith("ops."):
        raise UnknownOriginError(
            f"{table} is a record of the platform's own. Ask for what its rows are about: days, a table or a model."
        )
    if table not in (known := {write.table for write in ledger.writes()}):
        if table.startswith("silver."):
            raise UnknownOriginError(f"{table} is a view and has no versions: ask for one of what it reads.")
        if table.startswith("quarantine."):
            raise UnknownOriginError(
                f"{table} is read by replays alone. Ask for the days, or the source files, of its rows."
            )
        hint = did_you_mean(table.lower(), known, f"There are: {', '.join(sorted(known))}.", most=3)
        raise UnknownOriginError(f"No step has written a table {table}.{hint}")
    chain = [each for each in ledger.chain(table, version) if each.holds_rows]
    if not chain or version > (tables.head(tables.next_table(table)) or 0):
        raise UnknownOriginError(f"{table} has had no version {version}. `lake releases {table}` lists what was seen.")
    # Of a version that only took something back, or was made by maintenance, what it goes on from.
    write = chain[0]
    return {(table, write.version): ledger.written(write)}


def _origin_of_days(ledger: Ledger, interval: Interval) -> Origin:
    wanted = frozenset(interval.days())
    found: Origin = {}
    for write in ledger.writes():
        written = ledger.written(write)
        if write.step in ("land", "replay") and written is not None and (hit := written & wanted):
            found[write.table, write.version] = hit
    if not found:
        landed: Days = frozenset()
        for write in ledger.writes():
            if write.step == "land":
                landed = _together([landed, ledger.written(write)])
        raise UnknownOriginError(f"Nothing has been landed for {interval}. Days that have been: {ranges(landed)}.")
    return found


def _of_file(ledger: Ledger, what: str) -> Impact:
    result = Impact(what, "file")
    origin: Origin = {}
    seen: set[str] = set()
    written: dict[str, list[Write]] = {}
    replayed: dict[str, list[tuple[Write, dt.date]]] = {}
    for write in ledger.writes():
        if write.run is not None:
            written.setdefault(write.run["run_id"], []).append(write)
        for day, run_id in write.batches.items():
            replayed.setdefault(run_id, []).append((write, day))
    for run in ledger.runs:
        if run["step"] != "land":
            continue
        read = ledger.files_of(run["run_id"])
        seen |= set(read)
        for name, (days, facts) in read.items():
            if name != what and not name.endswith(f"/{what.lstrip('/')}") and not what.endswith(f"/{name}"):
                continue
            result.landings.append(_landing(run, name, facts))
            for write in written.get(run["run_id"], []):
                key = write.table, write.version
                origin[key] = (origin.get(key) or frozenset()) | days
            for write, day in replayed.get(run["run_id"], []):
                if day in days:
                    key = write.table, write.version
                    origin[key] = (origin.get(key) or frozenset()) | {day}
                    result.edges.append((name, _node(*key)))
    if not result.landings:
        raise _no_origin(ledger, what, seen)
    return _of_writes(ledger, result, origin)


def _no_origin(ledger: Ledger, what: str, files: Iterable[str]) -> UnknownOriginError:
    """Why nothing is called so, and what may have been meant."""
    if what in (known := {write.table for write in ledger.writes()}):
        columns = f", or for one of its columns, as {what}.COLUMN. `lake lineage {what} --down` needs neither"
        return UnknownOriginError(
            f"{what} is a table: ask for one of its versions, such as {what}@1"
            f"{columns if what.partition('.')[0] in COLUMNS_OF else ''}."
        )
    table, at, version = what.partition("@")
    if at and table in known:
        return UnknownOriginError(f"{version!r} is no version of {table}: versions are numbers, as in {table}@1.")
    model = what.removeprefix("models.")
    models = {spec.name for spec in model_folders.readable()} | model_folders.problems().keys()
    if model in models or f"ml.{PREDICTIONS}{model}" in known:
        return UnknownOriginError(f"{model} is a model: ask for one of its versions, such as {model}@1.")
    if re.fullmatch(r"[0-9a-f]{32}", what):
        return UnknownOriginError(f"{what} looks like the id of a prediction: `lake explain {what}` says more of it.")
    spelled = (
        "A model version is written flight_delay@1, a version of a table bronze.weather@3, a column "
        f"bronze.weather.temperature_f (of {', '.join(COLUMNS_OF)})."
    )
    hint = did_you_mean(what, sorted({*files, *(name.rpartition("/")[2] for name in files)}), spelled, most=3)
    return UnknownOriginError(f"No source file, days, table version, column or model version is {what!r}.{hint}")


def _landing(run: Mapping[str, Any], name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "file": name,
        **facts,
        "dataset": run["dataset"],
        "run_id": run["run_id"],
        "ended_at": run["ended_at"],
        "status": run["status"],
        "rows_landed": run["rows_out"],
        "rows_quarantined": run["rows_quarantined"],
        "error": run["error"],
    }


def _of_writes(ledger: Ledger, result: Impact, origin: Origin) -> Impact:
    affected = ledger.affected(origin)
    found = {(write.table, write.version): days for write, days in affected.items()}
    models = _trained_on(ledger, found)
    for write, days in affected.items():
        if write.step == "score" and _models_of(ledger, write):
            continue
        result.tables.append(_table(ledger, write, days))
        result.edges += _edges_into(ledger, write, found)
    for trained, sources in models.items():
        result.models.append(_model(*trained, sources))
        result.edges += [(_node(table, version), _node(*trained)) for table, version in sources]
    for write in ledger.writes():
        if write in affected and write.step == "score":
            result.edges += _edges_into(ledger, write, found)
        spoilt = [model for model in _models_of(ledger, write) if model in models]
        result.edges += [(_node(*model), _node(write.table, write.version)) for model in spoilt]
        if spoilt and write.step != "score" and write not in affected:
            result.tables.append(_table(ledger, write, ledger.written(write)))
        for model in _models_of(ledger, write) if write.step == "score" else ():
            because = []
            days = affected.get(write)
            if write in affected:
                because.append("its features")
            if model in spoilt:
                because.append(f"its model {_node(*model)}")
                days = ledger.written(write)
            if because:
                result.predictions.append(_predictions(ledger, write, model, days, " and ".join(because)))
    result.edges = list(dict.fromkeys(result.edges))
    return result


def _edges_into(ledger: Ledger, write: Write, found: Origin) -> list[tuple[str, str]]:
    """From the writes that were found to one that has read their rows."""
    return [
        (_node(source, hit.version), _node(write.table, write.version))
        for source, version, _ in ledger.inputs(write, None)
        for hit, own in ledger.owners(source, version, None)
        if (source, hit.version) in found and _meet(found[source, hit.version], own)
    ]


def _of_model(ledger: Ledger, what: str, name: str, number: int) -> Impact:
    try:
        version = model_versions.find(name, number)
    except registry.UnknownVersionError:
        if not registry.versions(name):
            model_folders.load(name)  # says of a name that is no model's which there are
        raise
    result = Impact(what, "model")
    result.models.append(
        {"name": name, "version": number, "roles_now": list(version.aliases), "trained_on": [], "itself": True}
    )
    for write in ledger.writes():
        if (name, number) not in _models_of(ledger, write):
            continue
        result.edges.append((_node(name, number), _node(write.table, write.version)))
        if write.step == "score":
            result.predictions.append(_predictions(ledger, write, (name, number), ledger.written(write), "its model"))
        else:
            result.tables.append(_table(ledger, write, ledger.written(write)))
    return result


def _of_column(ledger: Ledger, what: str) -> Impact:
    from lakehouse.lineage import column_lineage

    result = Impact(what, "column")
    for edge in column_lineage.downstream(what, with_conditions=True):
        result.edges.append((f"{edge.source_table}.{edge.source_column}", f"{edge.table}.{edge.column}"))
    result.columns = sorted({f"{edge.table}.{edge.column}" for edge in column_lineage.downstream(what)})
    result.columns_by_condition = sorted({to for _, to in result.edges} - set(result.columns))
    inputs = {what, *result.columns, *result.columns_by_condition}
    used = _models_made_from(ledger, result, inputs)
    of_table: dict[str, list[Write]] = {}
    known = cache(lambda table: tables.columns(tables.next_table(table)))
    for write in ledger.writes():
        scored_by = _models_of(ledger, write)
        using = [each for each in scored_by if each in used]
        carried = _carried(write, known(write.table), what, inputs) if write.step in SCORING_STEPS else []
        if write.step == "score":
            names = ", ".join(each.rpartition(".")[2] for each in carried)
            for one in scored_by if carried else using:
                because = used.get(one, f"its column{'s' if len(carried) > 1 else ''} {names}")
                result.predictions.append(_predictions(ledger, write, one, ledger.written(write), because))
                origins = [_node(*one)] if one in used else carried
                result.edges += [(each, _node(write.table, write.version)) for each in origins]
        elif using or carried or any(each.rpartition(".")[0] == write.table for each in inputs):
            of_table.setdefault(write.table, []).append(write)
    result.tables = [_whole(ledger, table, writes) for table, writes in sorted(of_table.items())]
    return result


def _models_made_from(ledger: Ledger, result: Impact, inputs: set[str]) -> dict[tuple[str, int], str]:
    """Add the model versions that were made from some columns, those asked for and what they lead to.

    Returns:
        The versions, each with what it has to do with them.
    """
    from lakehouse.lineage import column_lineage

    what = result.what
    used: dict[tuple[str, int], str] = {}
    models, wrong = {spec.name: spec for spec in model_folders.readable()}, model_folders.problems()
    writes = ledger.writes()
    scorings: dict[tuple[str, int], list[Write]] = {}
    for write in writes:
        for one in _models_of(ledger, write) if write.step == "score" else ():
            scorings.setdefault(one, []).append(write)
    touched = {each.rpartition(".")[0] for each in inputs}
    for row in ops.read("ops.models").to_pylist():
        name, number = row["model_name"], row["model_version"]
        if what.startswith("ml.") and not touched & set(dict(row["versions"])):
            continue  # not even one that could not be told
        if error := wrong.get(name):
            result.unknown.append(f"Whether {_node(name, number)} was made from {what}: {error}")
            continue
        if name not in models:
            read = dict(row["versions"])
            reason, seen = _use_without_folder(scorings, (name, number), read, inputs)
            if seen:
                used[name, number] = reason
                named = [each.rpartition(".")[2] for each in seen]
                result.models.append(_model(name, number, [], named, label="label" in reason))
                result.edges += [(each, _node(name, number)) for each in seen]
            elif (gone := sorted(set(read) - set(column_lineage.columns()))) and _may_come_from(touched, gone, writes):
                result.unknown.append(
                    f"Whether {_node(name, number)} was made from {what}: models/{name} is gone, and so "
                    f"{'are' if len(gone) > 1 else 'is'} {', '.join(gone)}, which it was trained on."
                )
            elif (name, number) not in scorings and any(each.rpartition(".")[0] in read for each in inputs):
                result.unknown.append(
                    f"Whether {what} is the label of {_node(name, number)}: models/{name} is gone, and it has never "
                    "scored, so it is not known which of the tables that it was trained on has its features."
                )
            continue
        if what.startswith(f"models.{name}."):
            column = what.rpartition(".")[2]
            if column == SCORE or column in _inputs(name, number, [column]):
                used[name, number] = "its score" if column == SCORE else "an input of its model"
                result.models.append(_model(name, number, [], [column] if column != SCORE else []))
                result.edges.append((what, _node(name, number)))
            continue
        # That of its training, and not of today.
        features = features_of(models[name], dict(row["versions"]))
        label = models[name].label
        columns = [each.rpartition(".")[2] for each in sorted(inputs) if each.startswith(f"{features}.")]
        if seen := [each for each in _inputs(name, number, columns) if each in columns] if columns else []:
            used[name, number] = "an input of its model"
            result.models.append(_model(name, number, [], seen))
            result.edges += [(f"{features}.{each}", _node(name, number)) for each in seen]
            continue
        if label.table in dict(row["versions"]) and f"{label.table}.{label.column}" in inputs:
            used[name, number] = "the label of its model"
            result.models.append(_model(name, number, [], [label.column], label=True))
            result.edges.append((f"{label.table}.{label.column}", _node(name, number)))
    return used


def _carried(write: Write, known: Container[str], what: str, affected: Iterable[str]) -> list[str]:
    """Those of some columns that stand in the rows of a scoring, and not only by way of its model: keys, and copies.

    The columns that the table has today (``known``) decide, as ``model.yaml`` may no longer carry all of them. One that
    it carries since a later scoring has no value in the rows of an earlier one, which counts all the same.
    """
    found: dict[str, str] = {}
    for name in sorted(affected):  # gold before ml: the table's own name is the nearer one
        table, _, column = name.rpartition(".")
        own = table == write.table and (name == what or column not in (SCORE, DECISION))
        copied = table in write.reads and column not in (SCORE, DECISION, *LINEAGE)
        if column in known and (own or copied):
            found[column] = name
    return sorted(found.values())


def _may_come_from(touched: set[str], made: Iterable[str], writes: Sequence[Write]) -> bool:
    """Whether tables that the project no longer has can have been made from one of some others, at any remove.

    What was read for them tells; views, which have no versions, and what nobody has recorded are not in it.
    """
    found, before = set(made), set[str]()
    if not {write.table for write in writes} >= found or any(table.startswith("silver.") for table in touched):
        return True
    while found != before:
        before = set(found)
        found |= {table for write in writes if write.table in before for table in write.reads}
    return bool(touched & found)


def _use_without_folder(
    scorings: Mapping[tuple[str, int], Iterable[Write]],
    model: tuple[str, int],
    read: Iterable[str],
    columns: Iterable[str],
) -> tuple[str, list[str]]:
    """What a version has to do with some columns when there is no ``model.yaml`` any more: in words, and with which.

    Its scorings have recorded the table of its features. Without one, it can be each that the training has read. The
    label is recorded nowhere.
    """
    tables_read = set(read)
    features = tables_read.intersection(*(each.reads for each in scorings.get(model, ()))) or tables_read
    others = tables_read - features
    of_features, of_others = (
        [each for each in sorted(columns) if each.rpartition(".")[0] in tables] for tables in (features, others)
    )
    names = [each.rpartition(".")[2] for each in of_features]
    scored = _inputs(*model, names) if names else []
    if seen := [each for each in of_features if each.rpartition(".")[2] in scored]:
        return "an input of its model", seen
    return "what may be the label of its model, whose folder is gone", of_others


def _inputs(name: str, number: int, lost: list[str]) -> list[str]:
    """The columns that a version scores; of one that MLflow has lost, any column may have been among them."""
    try:
        return model_versions.fetch(model_versions.find(name, number)).inputs
    except ModelFailedError:
        return lost


def _whole(ledger: Ledger, table: str, writes: list[Write]) -> dict[str, Any]:
    """A table of which every write counts."""
    seen = ledger.released_version(table)
    return {
        "table": table,
        "version": writes[-1].version if seen is None else seen,
        "days": ranges(_together(map(ledger.written, writes))),
        "step": "every write",
        "run_id": None,
        "visible_days": ledger.with_rows(
            table, seen, frozenset() if seen is None else _together(own for _, own in ledger.owners(table, seen, None))
        ),
        "releases": [row["release_id"] for row in ledger.releases if row["table_name"] == table],
    }


def _together(parts: Iterable[Days]) -> Days:
    found: Days = frozenset()
    for days in parts:
        found = None if found is None or days is None else found | days
    return found


def _trained_on(ledger: Ledger, found: Origin) -> dict[tuple[str, int], list[tuple[str, int]]]:
    """The model versions whose training days hold rows of some writes, each with these writes."""
    models: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for row in ops.read("ops.models").to_pylist():
        window = frozenset(Interval(row["window_start"], row["window_end"]).days())
        sources = [
            (table, write.version)
            for table, version in row["versions"]
            for write, own in ledger.owners(table, version, window)
            if (table, write.version) in found and _meet(found[table, write.version], own)
        ]
        if sources:
            models[row["model_name"], row["model_version"]] = sources
    return models


def _meet(one: Days, other: Days) -> bool:
    return one is None or other is None or bool(one & other)


def _table(ledger: Ledger, write: Write, days: Days) -> dict[str, Any]:
    seen = ledger.released_version(write.table)
    still = ledger.still(write, seen, days)
    return {
        "table": write.table,
        "version": write.version,
        "days": ranges(days),
        "step": write.step,
        "run_id": (write.run or {}).get("run_id"),
        "visible_days": (visible := ledger.with_rows(write.table, seen, still)),
        "without_rows": still != frozenset() and not visible,
        "releases": ledger.shown_by(write, days),
    }


def _model(
    name: str, number: int, sources: Iterable[tuple[str, int]], columns: Sequence[str] = (), *, label: bool = False
) -> dict[str, Any]:
    aliases = list(model_versions.find(name, number).aliases)
    return {
        "name": name,
        "version": number,
        "roles_now": aliases,
        "trained_on": [_node(table, version) for table, version in sources],
        **({"label" if label else "inputs": list(columns)} if columns else {}),
    }


def _models_of(ledger: Ledger, write: Write) -> list[tuple[str, int]]:
    """The versions that have scored rows of a write: the champion, and what scored beside it or in its place."""
    spec = ledger.specs.get(write.table)
    # Of a model without a folder, by now, the table still says which it is of.
    name = spec.name if spec else write.table.partition(f".{PREDICTIONS}")[2]
    numbers = write.details.get("model_versions") or [write.details.get("model_version")]
    return [(name, int(number)) for number in numbers if name and number is not None]


def _predictions(ledger: Ledger, write: Write, model: tuple[str, int], days: Days, because: str) -> dict[str, Any]:
    assert write.run is not None
    spec = ledger.specs.get(write.table)
    column = spec.features.interval_column if spec else ""  # without one, it is all days
    seen = ledger.released_version(write.table)
    still = ledger.still(write, seen, days)
    run_id = write.run["run_id"]
    return {
        "table": write.table,
        "version": write.version,
        "run_id": run_id,
        "model_version": model[1],
        "days": ranges(days),
        "because": because,
        "rows_written": write.details.get("model_versions", {}).get(str(model[1]), write.run["rows_out"]),
        "rows_visible": _count(write.table, seen, run_id, model[1], column, still),
        "query": f"select * from {write.table} where run_id = '{run_id}' and model_version = {model[1]}"
        + ("" if days is None else f" and {column} in ({', '.join(f'date{str(d)!r}' for d in sorted(days))})"),
        "releases": ledger.shown_by(write, days),
    }


def _count(table: str, version: int | None, run_id: str, number: int, column: str, days: Days) -> int:
    if version is None or days == frozenset():
        return 0
    log = tables.delta(tables.next_table(table), version)
    assert log is not None
    where = (ds.field("run_id") == run_id) & (ds.field("model_version") == number)
    if days is not None:
        where &= pc.is_in(ds.field(column), value_set=_dates(days))
    return int(log.to_pyarrow_dataset(filesystem=tables.filesystem(log)).count_rows(filter=where))


def _dates(days: Iterable[dt.date]) -> Any:
    import pyarrow as pa

    return pa.array(sorted(days), pa.date32())


def _node(name: str, version: int) -> str:
    return f"{name}@{version}"
