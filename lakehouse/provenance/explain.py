"""Explain: everything that one prediction comes from, from its reasons to the source files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from lakehouse import contracts, ops, release_log, tables
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.ml import attribution, model_folders
from lakehouse.ml.model_spec import PREDICTIONS, ModelSpec
from lakehouse.ml.prediction_id import prediction_id
from lakehouse.ml.scoring import SCORE, ModelFailedError, ServedModel, score
from lakehouse.provenance.ledger import Files, Ledger, Write, features_of, landed, ranges
from lakehouse.registry import model_versions, registry, roles
from lakehouse.registry.registry import ModelVersion
from lakehouse.release_log import released
from lakehouse.table_days import Days

RUN = ("run_id", "step", "dataset", "started_at", "ended_at", "code_version", "airflow_dag_id", "airflow_run_id")

DECISION = ("at", "event", "serves_from", "reason", "decided_by")
TAKEN_BACK = "taken back"
"""What became of a champion that a model was rolled back from."""


class PredictionNotFoundError(LakeError, LookupError):
    """There is no such prediction."""


class ExplanationError(LakeError):
    """Something that a prediction comes from is no longer what it was."""


def find(
    wanted: str, model: str | None = None, day: dt.date | None = None, release_id: int | None = None
) -> dict[str, Any]:
    """A prediction that readers see, by its id.

    Args:
        wanted: Its id.
        model: Name of its model; all are looked through without it.
        day: Its day, which makes the search faster.
        release_id: As readers saw it right after this release; the present without it.

    Returns:
        Its row, with ``table`` and ``version``.

    Raises:
        PredictionNotFoundError: There is none.
        lakehouse.release_log.UnknownReleaseError: There is no such release.
        lakehouse.tables.VersionGoneError: What readers saw then is no longer kept.
    """
    row, looked = _search(wanted, [model_folders.load(model)] if model else model_folders.readable(), day, release_id)
    if row is None:
        skipped = [] if model else _unreadable(release_id)
        then = f"had been released by release {release_id}" if release_id else "have been released"
        nothing = "nothing" if skipped else f"nothing: no predictions {then}"
        raise PredictionNotFoundError(
            f"No prediction has the id {wanted}"
            + (f" ({model} on {day})" if model and day else "")
            + (f" in release {release_id}" if release_id else "")
            + f". Looked through {', '.join(looked) or nothing}. "
            + "".join(f"Not looked through: {those}. " for those in skipped)
            + "The ids are in the column prediction_id; --model, --key and --date name one by what it is about."
        )
    return row


def _unreadable(release_id: int | None) -> list[str]:
    """The predictions of models whose folder is wrong or gone, in words: without it they cannot be explained."""
    wrong = model_folders.problems()
    known = {f"ml.{PREDICTIONS}{name}" for name in wrong} | {
        spec.predictions_table for spec in model_folders.readable()
    }
    gone = sorted(
        table for table in released(release_id) if table.startswith(f"ml.{PREDICTIONS}") and table not in known
    )
    return [f"those of {name}, as {str(error).rstrip('.')}" for name, error in sorted(wrong.items())] + [
        f"{table}, as models/{table.partition(f'.{PREDICTIONS}')[2]} is gone" for table in gone
    ]


def find_about(model: str, key: Sequence[str], day: dt.date, release_id: int | None = None) -> dict[str, Any]:
    """A prediction that readers see, by what it is about.

    Args:
        model: Name of its model.
        key: Values of the entity key, in the order of ``model.yaml``.
        day: Its day.
        release_id: As readers saw it right after this release; the present without it.

    Returns:
        Its row, as :func:`find` gives it.

    Raises:
        PredictionNotFoundError: There is none.
        lakehouse.release_log.UnknownReleaseError: There is no such release.
        lakehouse.tables.VersionGoneError: What readers saw then is no longer kept.
    """
    spec = model_folders.load(model)
    names = spec.features.entity_key
    if len(key) != len(names):
        raise PredictionNotFoundError(
            f"The entity key of {model} is {', '.join(names)}: give --key once for each of them, in this order, and "
            f"not {len(key)} times."
        )
    row, looked = _search(prediction_id(model, key, day), [spec], day, release_id)
    if row is None:
        about = ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True))
        then = f" in release {release_id}" if release_id else ""
        raise PredictionNotFoundError(
            f"{model} has no prediction for {about} on {day}{then}. "
            + (_scored_days(spec, release_id) if looked else f"Nothing has been released of {spec.predictions_table}.")
            + f" The key is {', '.join(names)}, as {spec.predictions_table} has it."
        )
    return row


def _search(
    wanted: str, specs: Sequence[ModelSpec], day: dt.date | None, release_id: int | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """The row with an id, or None, and the tables that were looked through for it."""
    state = released(release_id)
    looked = []
    for spec in specs:
        if (seen := state.get(spec.predictions_table)) is None:
            continue
        looked.append(seen.table)
        tables.check_kept(tables.next_table(seen.table), seen.version)
        where: list[tuple[str, str, Any]] = [("prediction_id", "=", wanted)]
        if day:
            where.append((spec.features.interval_column, "=", day))
        rows: Any = release_log.read(seen.table, release_id=release_id, where=where).to_dict("records")
        if rows:
            return {**rows[0], "table": seen.table, "version": seen.version}, looked
    return None, looked


def _scored_days(spec: ModelSpec, release_id: int | None) -> str:
    column = spec.features.interval_column
    rows = release_log.read(spec.predictions_table, release_id=release_id, columns=[column])
    days = frozenset(rows[column].dropna())
    return f"Days with predictions: {ranges(days) or 'none'}."


def decisions(events: Iterable[dict[str, Any]], name: str, number: int) -> list[dict[str, Any]]:
    """What was decided about a version, that it was taken back among it.

    Args:
        events: Rows of ``ops.model_events``.
        name: The model.
        number: The version.
    """
    found = []
    for event in events:
        taken_back = event["event"] == roles.ROLLED_BACK and event["champion_before"] == number
        if event["model_name"] == name and (taken_back or event["model_version"] == number):
            told = {key: event[key] for key in DECISION}
            # The day that it is about is the other version's.
            found.append({**told, "event": TAKEN_BACK, "serves_from": None} if taken_back else told)
    return found


class Explainer:
    """Explains predictions; what several of them share is looked up once."""

    def __init__(self) -> None:
        self._ledger = Ledger.read()
        self._cache: dict[Any, Any] = {}

    def explain(self, row: dict[str, Any]) -> dict[str, Any]:
        """Everything that a prediction comes from.

        Args:
            row: Outcome of :func:`find`, or any released row with its ``table`` and ``version``.

        Returns:
            ``prediction``, ``reasons``, ``scored``, ``inputs``, ``model``: see docs/explanation/lineage.md. Of
            ``reasons``, ``gone`` says what of them cannot be told any more, since it is no longer kept or is damaged.

        Raises:
            ExplanationError: The features or the model give another score than that of the row.
        """
        spec = model_folders.load(row["model_name"])
        if missing := [name for name in (spec.features.interval_column, *spec.features.entity_key) if name not in row]:
            raise ExplanationError(
                f"{row['table']} has no column {', '.join(missing)}, which models/{spec.name}/model.yaml names now and "
                "did not then. Check out the commit that the prediction was made by (code_version of its run)."
            )
        days = frozenset([row[spec.features.interval_column]])
        [(write, _)] = self._ledger.owners(row["table"], row["version"], days)
        return {
            "prediction": {name: value for name, value in row.items() if name not in ("table", "version")},
            "reasons": self._reasons(spec, row, write),
            "scored": {**self._made(write, days), "made_with": write.details.get("made_with")},
            "inputs": self._inputs(write, days),
            "model": self._model(row["model_name"], int(row["model_version"])),
        }

    def _reasons(self, spec: ModelSpec, row: dict[str, Any], write: Write) -> dict[str, Any]:
        day = row[spec.features.interval_column]
        told: dict[str, Any] = {"unit": None, "method": None, "base": None, "threshold": None, "gone": None}
        try:
            served = self._served(row)
        except ModelFailedError as error:
            return {**told, "contributions": [], "gone": f"The reasons cannot be told without the model. {error}"}
        told["threshold"] = served.threshold
        source = self._source(spec, row, write)
        try:
            features, scores = self._features(spec, served, source, int(row["release_id"]), day)
        except (tables.VersionGoneError, tables.UnreadableError) as error:
            gone = f"The features that it was made from {_why(error)}, so they cannot be shown. {error}"
            return {**told, "contributions": [], "gone": gone}
        key = tuple(str(row[name]) for name in spec.features.entity_key)
        if key not in features.index:
            raise ExplanationError(
                f"{source} has no row for {', '.join(key)} on {day} in release {row['release_id']}, from "
                "which this prediction was made. `lake verify` says whether its files are whole."
            )
        place = features.index.get_loc(key)
        if scores[place] != row[SCORE]:
            raise ExplanationError(
                f"The features of release {row['release_id']} and version {served.version} of {served.name} give "
                f"{scores[place]}, and not {row[SCORE]}. `lake verify` says whether their files are whole, "
                f"`lake reproduce {served.name} --predictions --interval {day}` what else has changed."
            )
        values = features.iloc[place].to_dict()
        try:
            found = self._attribution(spec, served, source, int(row["release_id"]), day, features)
        except (tables.VersionGoneError, tables.UnreadableError) as error:
            gone = (
                f"The rows that version {served.version} of {served.name} was fitted on {_why(error)}, so it "
                f"cannot be told how much each value has moved the score. {error}"
            )
            listed = [{"feature": name, "value": _plain(values[name]), "contribution": None} for name in served.inputs]
            return {**told, "contributions": listed, "gone": gone}
        contributions = found.contributions.iloc[place].to_dict()
        return {
            **told,
            "unit": found.unit,
            "method": found.method,
            "base": found.base,
            "contributions": [
                {"feature": name, "value": _plain(values[name]), "contribution": float(contributions[name])}
                for name in sorted(served.inputs, key=lambda name: -abs(contributions[name]))
            ],
        }

    def _source(self, spec: ModelSpec, row: dict[str, Any], write: Write) -> str:
        """The table that the features of a row came from; model.yaml may name another by now."""
        recorded = list(write.reads)
        if len(recorded) == 1:
            return recorded[0]
        if spec.features.table not in released(int(row["release_id"])):
            raise ExplanationError(
                f"It is not recorded what the run {row['run_id']} has read, and {spec.features.table}, which "
                f"models/{spec.name}/model.yaml names now, had not been released when it scored."
            )
        return spec.features.table

    def _served(self, row: dict[str, Any]) -> ServedModel:
        key = "served", row["model_name"], int(row["model_version"]), row["role"]
        if key not in self._cache:
            self._cache[key] = model_versions.that_scored(row["model_name"], row)
        served: ServedModel = self._cache[key]
        return served

    def _features(
        self, spec: ModelSpec, served: ServedModel, source: str, release_id: int, day: dt.date
    ) -> tuple[pd.DataFrame, Any]:
        """The day's rows of the features, by entity key, and the scores that the model gives them."""
        key = "features", served.name, served.version, hash(served.payload), release_id, day
        if key not in self._cache:
            rows = self._read(
                source,
                release_id,
                list(dict.fromkeys([*spec.features.entity_key, *served.inputs])),
                [(spec.features.interval_column, "=", day)],
            )
            rows.index = pd.MultiIndex.from_frame(rows[spec.features.entity_key].astype(str))
            self._cache[key] = rows, score(rows, served)
        found: tuple[pd.DataFrame, Any] = self._cache[key]
        return found

    def _attribution(
        self, spec: ModelSpec, served: ServedModel, source: str, release_id: int, day: dt.date, rows: pd.DataFrame
    ) -> attribution.Attribution:
        key = "attribution", served.name, served.version, hash(served.payload), release_id, day
        if key not in self._cache:
            self._cache[key] = attribution.attribute(served, rows, lambda: self._background(spec, served, source))
        found: attribution.Attribution = self._cache[key]
        return found

    def _background(self, spec: ModelSpec, served: ServedModel, source: str) -> pd.DataFrame:
        """The rows that a version was fitted on."""
        version = model_versions.find(served.name, served.version)
        days = Interval.parse(registry.logged(version).parameters["train_days"])
        column = spec.features.interval_column
        key = "background", served.name, served.version
        if key not in self._cache:
            read = [tag.removeprefix("version.") for tag in version.tags if tag.startswith("version.")]
            self._cache[key] = self._read(
                features_of(spec, read, source),
                int(version.tags["release_id"]),
                served.inputs,
                [(column, ">=", days.start), (column, "<=", days.end)],
            )
        rows: pd.DataFrame = self._cache[key]
        return rows

    def _read(self, table: str, release_id: int, columns: list[str], where: list[tuple[str, str, Any]]) -> pd.DataFrame:
        """Rows of a table as of a release, if they are still kept."""
        stored, version = tables.next_table(table), released(release_id)[table].version
        tables.check_kept(stored, version)
        needed = {*columns, *(column for column, _, _ in where)}
        if missing := sorted(needed - tables.types(stored, version).keys()):
            raise ExplanationError(
                f"{table} had no column {', '.join(missing)} in release {release_id}: model.yaml names other columns "
                "now than it did then. Check out the commit that the prediction was made by (code_version of its run)."
            )
        return release_log.read(table, release_id=release_id, columns=columns, where=where)

    def _model(self, name: str, number: int) -> dict[str, Any]:
        key = "model", name, number
        if key not in self._cache:
            self._cache[key] = self._describe_model(name, number)
        found: dict[str, Any] = self._cache[key]
        return found

    def _describe_model(self, name: str, number: int) -> dict[str, Any]:
        version = model_versions.find(name, number)
        recorded = next(
            (r for r in self._models if (r["model_name"], r["model_version"]) == (name, number)),
            None,
        )
        if recorded is None:
            raise ExplanationError(
                f"ops.models does not know version {number} of {name}: it was registered by other means than "
                f"`lake train {name}`, so it is not recorded what it was made from."
            )
        spec = model_folders.load(name)
        run = next((run for run in self._ledger.runs if run["run_id"] == recorded["run_id"]), None)
        window = Interval(recorded["window_start"], recorded["window_end"])
        days = frozenset(window.days())
        parameters, card = _parameters_and_card(version)
        return {
            "name": name,
            "version": number,
            "deleted": version.deleted,
            "roles_now": list(version.aliases),
            "registered_as": recorded["role"],
            "reason": recorded["reason"],
            "decided_by": recorded["decided_by"],
            "registered_at": recorded["registered_at"],
            "decisions": decisions(self._events, name, number),
            "candidate": recorded["candidate"],
            "card": card,
            "description": spec.description,
            "mlflow_run_id": version.run_id,
            "parameters": parameters,
            "metrics": dict(recorded["metrics"]),
            "training": {
                "window": str(window),
                "release_id": recorded["release_id"],
                "rows": run and run["rows_in"],
                **{
                    pin: recorded[pin]
                    for pin in ("row_order", "seed", "lock_sha256", "model_sha256", "input_sha256", "environment")
                },
                "run": _run(run),
                "code_version": recorded["code_version"],
                "inputs": [
                    self._input(table, version_read, days) for table, version_read in sorted(recorded["versions"])
                ],
            },
        }

    @cached_property
    def _models(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = ops.read("ops.models").to_pylist()
        return rows

    @cached_property
    def _events(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = ops.read("ops.model_events").sort_by("at").to_pylist()
        return rows

    def _inputs(self, write: Write, days: Days) -> list[dict[str, Any]]:
        return [self._input(table, version, own) for table, version, own in self._ledger.inputs(write, days)]

    def _input(self, table: str, version: int, days: Days) -> dict[str, Any]:
        key = "input", table, version, days
        if key not in self._cache:
            self._cache[key] = {
                "table": table,
                "version": version,
                "days": ranges(days),
                "release": _release(self._ledger.release_of(table, version)),
                "gate": self._ledger.verdict(table, version),
                "writes": [self._write(write, own) for write, own in self._ledger.owners(table, version, days)],
            }
        found: dict[str, Any] = self._cache[key]
        return found

    def _write(self, write: Write, days: Days) -> dict[str, Any]:
        made = self._made(write, days)
        if write.step in ("land", "replay"):
            return {**made, "files": self._files(write, days)}
        return {**made, "inputs": self._inputs(write, days)}

    def _made(self, write: Write, days: Days) -> dict[str, Any]:
        return {
            "table": write.table,
            "version": write.version,
            "days": ranges(days),
            "step": write.step,
            "interval": str(write.interval) if write.interval else None,
            "gate": self._ledger.verdict(write.table, write.version),
            "release": _release(self._ledger.first_shown_by(write, days)),
            "run": _run(write.run),
        }

    def _files(self, write: Write, days: Days) -> list[dict[str, Any]]:
        """The files that were landed for some days: name, day, size in bytes, SHA-256, rows."""
        source = tables.split(write.table)[1]
        contract = contracts.load(source) if source in contracts.sources() else None
        by_day = self._landed(write)
        if not any(by_day.values()) and contract is not None and contract.server.location is None:
            return [{"file": str(contract.server.table), "day": ranges(days), "rows": (write.run or {}).get("rows_in")}]
        found = {
            name: {"file": name, **facts, "day": ranges(own)}
            for day, of_day in sorted(by_day.items())
            if days is None or day in days
            for name, (own, facts) in sorted(of_day.items())
        }
        return list(found.values())

    def _landed(self, write: Write) -> dict[dt.date, Files]:
        """The files of a landing by the days of their rows.

        A replay has those of the landings before it, and of the days of which rows were in quarantine those that these
        had come from: of a delivery that was rejected whole, the table has had nothing before.
        """
        if write.step != "replay":
            return _by_day(landed(write))
        found: dict[dt.date, Files] = {}
        for each in reversed(self._ledger.chain(write.table, write.version)):
            found |= _by_day(landed(each))
            brought = {run_id: _by_day(self._ledger.files_of(run_id)) for run_id in set(each.batches.values())}
            found |= {day: brought[run_id].get(day, {}) for day, run_id in each.batches.items()}
        return found


def explain(row: dict[str, Any]) -> dict[str, Any]:
    """Everything that a prediction comes from.

    Args:
        row: Outcome of :func:`find`.
    """
    return Explainer().explain(row)


def sources(explanation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The source files of an explanation, of the prediction and of the model's training, by table and name.

    Args:
        explanation: Outcome of :func:`explain`.
    """
    every = (explanation["inputs"], explanation["model"]["training"]["inputs"])
    return {f"{table} {file['file']}": file for inputs in every for table, file in files_of(inputs)}


def files_of(inputs: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The source files behind some inputs of an explanation: table, and what is known of the file.

    Args:
        inputs: Those of a prediction, of a training or of a write.
    """
    for each in inputs:
        for write in each["writes"]:
            for file in write.get("files", []):
                yield each["table"], file
            yield from files_of(write.get("inputs", []))


def _by_day(files: Files) -> dict[dt.date, Files]:
    found: dict[dt.date, Files] = {}
    for name, (days, facts) in files.items():
        for day in days:
            found.setdefault(day, {})[name] = days, facts
    return found


def _release(row: dict[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {name: row[name] for name in ("release_id", "released_at", "reason", "released_by", "override_of")}


def _why(error: tables.VersionGoneError | tables.UnreadableError) -> str:
    return "are no longer kept" if isinstance(error, tables.VersionGoneError) else "cannot be read"


def _run(run: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if run is None else {name: run[name] for name in RUN}


def _parameters_and_card(version: ModelVersion) -> tuple[dict[str, str] | None, str | None]:
    """What MLflow has kept of a training run, as far as it still has it."""
    from mlflow.exceptions import MlflowException

    try:
        return registry.logged(version).parameters, registry.kept_text(version, registry.CARD)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None, None


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return None
    return value.item() if hasattr(value, "item") else value
