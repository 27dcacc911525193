"""Trainings and scorings are made again from their pins: equal, or it is told what differs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.errors import PySparkException
from rich.console import Console

import lakehouse
from lakehouse import ops, release_log, tables
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.lineage import column_lineage
from lakehouse.maintenance import maintain
from lakehouse.maintenance.verify import DamagedError, verify
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.ml.scoring import ModelFailedError
from lakehouse.provenance.explain import explain, find
from lakehouse.provenance.graphs import page_of_explanation
from lakehouse.provenance.impact import Impact, impact
from lakehouse.provenance.trees import of_explanation
from lakehouse.registry import model_versions, pins, registry, roles
from lakehouse.registry.reproduction import NotReproducedError
from lakehouse.release_log import released
from lakehouse.releases import fingerprints
from lakehouse.releases.release import release
from lakehouse.releases.rollback import rollback
from lakehouse.settings import PROJECT_DIR, settings
from lakehouse.steps import code_version, job, step
from lakehouse.tables import UnreadableError, VersionGoneError
from tests.made_up_flights import SPEC, WINDOW, flights
from tests.openlineage_receiver import Receiver, made_from, receiving, told, versions_of
from tests.spark.made_up import forget, give_suites, put

train, score = job("train"), job("score")
train_again, score_again = job("reproduce_training"), job("reproduce_predictions")
FEATURES, OUTCOMES, TABLE = "gold.pinned_features", "gold.pinned_outcomes", "ml.pinned_predictions"
MODEL = SPEC.name
WINDOWS = [WINDOW, Interval.parse("2013-01-05/2013-02-28"), Interval.parse("2013-01-01/2013-03-03")]
SCORED = [Interval.parse(text) for text in ("2013-03-01", "2013-03-02/2013-03-05", "2013-03-04", "2013-03-06")]
ALL = Interval.parse("2013-03-01/2013-03-06")


@pytest.fixture(scope="module", autouse=True)
def backend(engine: None) -> Iterator[Receiver]:
    """Takes the events of all steps of this module by HTTP."""
    with receiving() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def folder(backend: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model with a history: two releases of its input, three trainings, four scorings by two versions."""
    path = tmp_path_factory.mktemp("model")
    spec = SPEC.model_copy(
        update={
            "features": SPEC.features.model_copy(update={"table": FEATURES}),
            "label": SPEC.label.model_copy(update={"table": OUTCOMES}),
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folders, "load", lambda _name: spec)
        patch.setattr(ModelSpec, "predictions_table", TABLE)
        give_suites(patch, path, {TABLE: f"ml.predictions_{MODEL}"})
        patch.setattr(settings(), "mlflow_tracking_uri", f"sqlite:///{path}/mlflow.sqlite")
        registry.connect.cache_clear()
        forget(MODEL)
        registry.connect().create_experiment(spec.name, artifact_location=(path / "artifacts").as_uri())
        for seed, windows, scored in ((1, WINDOWS[:2], SCORED[:2]), (2, WINDOWS[2:], SCORED[2:])):
            features, outcomes = flights(Interval(WINDOW.start, ALL.end), seed=seed)
            put(FEATURES, features, path)
            put(OUTCOMES, outcomes, path)
            for window in windows:
                version = train(MODEL, window)["model_version"]
            if (before := roles.champion(MODEL).version) == version and version > 2:
                before = version - 1
                appoint(spec, before, roles.ROLLED_BACK)
            if before != version:
                appoint(spec, version, roles.PROMOTED, scored[0].start)  # of days that the other has scored, too
            for interval in scored:
                publish(score(MODEL, interval)["version"], interval)
        yield path
        forget(MODEL)
    registry.connect.cache_clear()


def appoint(spec: ModelSpec, number: int, event: str, since: dt.date | None = None) -> None:
    with step("promote", f"{MODEL}@{number}", None, writes=f"models.{MODEL}") as run:
        roles.appoint(spec, registry.version(MODEL, number), event, "a person's word", "ada", run, since)


def publish(version: int, interval: Interval) -> int:
    verdict = {"table_name": TABLE, "version": version, "verdict": "passed", "checked_at": dt.datetime.now(dt.UTC)}
    ops.append("ops.gate_results", [verdict])
    return release([TABLE], interval)


def file_of(table: str, release_id: int) -> Path:
    """A data file of the version that a release showed."""
    stored, version = tables.next_table(table), released(release_id)[table].version
    return Path(tables.location(stored)) / sorted(fingerprints.data_files(stored, version))[0]


def prediction(day: Interval) -> dict[str, Any]:
    """One that readers see of a day."""
    found: dict[str, Any] = lakehouse.read(TABLE, where=[("flight_date", "=", day.start)]).iloc[0].to_dict()
    return found


def first_release() -> int:
    return int(registry.version(MODEL, 1).tags["release_id"])


def test_a_backend_is_told_of_a_training_and_a_scoring_what_went_in_and_what_came_out(backend: Receiver) -> None:
    assert backend.faults == []
    trained, scored = told(backend.events, f"train.{MODEL}"), told(backend.events, f"score.{TABLE}")
    state = released()
    read = {table: str(state[table].version) for table in (FEATURES, OUTCOMES)}
    assert (versions_of(trained["inputs"]), versions_of(trained["outputs"])) == (read, {f"models.{MODEL}": "3"})
    assert (versions_of(scored["inputs"]), versions_of(scored["outputs"])) == (
        {FEATURES: read[FEATURES]}, {TABLE: str(state[TABLE].version)},
    )  # fmt: skip
    kinds = pd.read_parquet(file_of(FEATURES, state[FEATURES].release_id)).dtypes
    [features] = scored["inputs"]
    assert {field["name"] for field in features["facets"]["schema"]["fields"]} == set(kinds.index)
    [model], [predictions] = trained["outputs"], scored["outputs"]
    inputs = SPEC.features.inputs
    assert [field["name"] for field in model["facets"]["schema"]["fields"]] == [*inputs, "score"]
    assert made_from(model) == {
        *((name, FEATURES, name, "direct", "IDENTITY") for name in inputs),
        *(("score", f"models.{MODEL}", name, "direct", "TRANSFORMATION") for name in inputs),
    }
    assert made_from(predictions) == {
        *((name, FEATURES, name, "direct", "IDENTITY") for name in SPEC.features.kept),
        *(("prediction_id", FEATURES, name, "direct", "TRANSFORMATION") for name in ("flight_id", "flight_date")),
        ("score", f"models.{MODEL}", "score", "direct", "IDENTITY"),
        ("decision", f"models.{MODEL}", "score", "direct", "TRANSFORMATION"),
    }
    types = {field["name"]: field["type"] for field in predictions["facets"]["schema"]["fields"]}
    assert types.keys() == set(lakehouse.read(TABLE).columns)
    assert (types["score"], types["decision"], types["model_version"]) == ("double", "boolean", "integer")
    assert predictions["outputFacets"]["outputStatistics"]["rowCount"] == 60
    for event in (trained, scored):
        assert event["job"]["facets"]["sourceCodeLocation"]["version"] == code_version()
    assert scored["run"]["facets"]["nominalTime"]["nominalStartTime"] == f"{SCORED[-1].start}T00:00:00Z"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_training_comes_out_equal(version: int) -> None:
    outcome = train_again(MODEL, version)
    assert outcome["equal"] and outcome["changed_since"] == []
    assert outcome["parameters"] > 10 and outcome["metrics"] > 20
    assert outcome["predictions_sha256"] == registry.version(MODEL, version).tags["predictions_sha256"]
    assert len(registry.versions(MODEL)) == len(WINDOWS)


def test_the_pins_of_a_training_are_in_a_table_and_in_the_registry() -> None:
    row = next(
        row for row in ops.read("ops.models").to_pylist() if (row["model_name"], row["model_version"]) == (MODEL, 2)
    )
    state = released(row["release_id"])
    pins = {
        "versions": [(table, state[table].version) for table in sorted((FEATURES, OUTCOMES))],
        "row_order": "flight_date, flight_id",
        "seed": SPEC.training.seed,
        "lock_sha256": hashlib.sha256((PROJECT_DIR / "uv.lock").read_bytes()).hexdigest(),
        "code_version": code_version(),
        "window_start": WINDOWS[1].start,
        "window_end": WINDOWS[1].end,
    }
    assert {name: row[name] for name in pins} == pins
    assert row["environment"].startswith("Python 3.") and all(row[f"{name}_sha256"] for name in ("input", "model"))
    tags = registry.version(MODEL, 2).tags
    same = ("row_order", "seed", "lock_sha256", "code_version", "release_id", "environment", "input_sha256")
    assert {name: tags[name] for name in same} == {name: str(row[name]) for name in same}
    assert {name: int(tags[f"version.{name}"]) for name in (FEATURES, OUTCOMES)} == dict(row["versions"])


def test_what_was_scored_comes_out_equal_with_the_versions_that_scored_it() -> None:
    outcome = score_again(MODEL, ALL)
    assert outcome["equal"]
    assert sorted((batch["model_version"], batch["rows"]) for batch in outcome["batches"]) == [
        (2, 60), (2, 180), (3, 60), (3, 60),
    ]  # fmt: skip
    assert len({batch["release_id"] for batch in outcome["batches"]}) == 2


def test_what_has_been_replaced_since_comes_out_equal_as_of_its_release() -> None:
    day = SCORED[2]
    before = next(row["release_id"] for row in ops.read("ops.releases").sort_by("release_id").to_pylist()
                  if row["table_name"] == TABLE and row["interval_start"] == SCORED[1].start)  # fmt: skip
    (then,), (now,) = (score_again(MODEL, day, at)["batches"] for at in (before, None))
    assert (then["model_version"], now["model_version"]) == (2, 3)
    assert then["content_sha256"] != now["content_sha256"]


def test_a_row_that_was_changed_by_hand_is_told() -> None:
    day = SCORED[3]
    stored = tables.next_table(TABLE)
    before = released()[TABLE].version
    sql(f"update {stored} set score = score + 1e-15 where flight_id = '{day}_7'").collect()
    version = tables.head(stored)
    assert version is not None
    at = publish(version, day)
    with pytest.raises(NotReproducedError, match=r"(?s)comes out otherwise:\ncontent of run .*`lake verify`"):
        score_again(MODEL, day, at)
    rollback(TABLE)
    assert released()[TABLE].version == before
    assert score_again(MODEL, day)["equal"]


def unchecked(log: Any, columns: Any, where: Any) -> Any:
    """What ``tables.read`` gives of pages that were written without a checksum."""
    return log.to_pyarrow_table(columns=columns, filesystem=tables.filesystem(log), filters=where)


def test_a_flipped_bit_in_the_input_is_told_and_its_file_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    values = lakehouse.read(FEATURES, release_id=first_release())[SPEC.features.numeric[0]]
    file = file_of(FEATURES, first_release())
    whole, of_hadoop = file.read_bytes(), file.with_name(f".{file.name}.crc")
    beside = of_hadoop.read_bytes()  # by which alone Hadoop would refuse the file; an object store has none
    place = next(at for value in values if (at := whole.find(struct.pack("<d", value))) > 0)
    try:
        of_hadoop.unlink()
        file.write_bytes(whole[: place + 6] + bytes([whole[place + 6] ^ 1]) + whole[place + 7 :])
        with pytest.raises(UnreadableError, match=r"(?s)pinned_features.*checksum.*`lake verify`"):
            train_again(MODEL, 1)
        with pytest.raises(
            UnreadableError,
            match=rf"(?s){FEATURES} of release (\d+) or {TABLE} cannot .*FAILED_READ_FILE"
            rf".*`lake verify {FEATURES} --release \1`",
        ):
            score_again(MODEL, SCORED[0])
        told = explain(find(prediction(SCORED[0])["prediction_id"], MODEL, SCORED[0].start))
        assert "cannot be read, so they cannot be shown" in told["reasons"]["gone"] and told["inputs"]
        with (
            monkeypatch.context() as patch,
            pytest.raises(NotReproducedError, match=r"(?s)hash input_sha256: .*`lake verify`"),
        ):
            patch.setattr(tables, "read", unchecked)
            train_again(MODEL, 1)
        version = released(first_release())[FEATURES].version
        column, pinned = SPEC.features.numeric[0], f"{tables.next_table(FEATURES)} version as of {version}"
        with pytest.raises(PySparkException, match=f"FAILED_READ_FILE.*{file.name}"):  # by its pages' checksums
            sql(f"select sum({column}) from {pinned}").collect()
        with pytest.raises(DamagedError, match=f"{FEATURES} version {version}: {file.name}: its content has changed"):
            verify([FEATURES], first_release())
        assert train_again(MODEL, 3)["equal"]
    finally:
        file.write_bytes(whole)
        of_hadoop.write_bytes(beside)
    assert train_again(MODEL, 1)["equal"]


def test_data_that_is_no_longer_kept_is_named() -> None:
    file, version = file_of(FEATURES, first_release()), released(first_release())[FEATURES].version
    aside = file.rename(file.with_suffix(".aside"))
    try:
        with pytest.raises(VersionGoneError, match=rf"Version {version} of gold_next\.pinned_features.*{file.name}"):
            train_again(MODEL, 1)
        with pytest.raises(VersionGoneError, match=r"gold_next\.pinned_features"):
            score_again(MODEL, SCORED[0])
        told = explain(find(prediction(SCORED[0])["prediction_id"], MODEL, SCORED[0].start))
        assert file.name in told["reasons"]["gone"] and told["reasons"]["contributions"] == []
        assert told["model"]["version"] == 2 and [each["version"] for each in told["inputs"]] == [version]
    finally:
        aside.rename(file)


def test_it_is_said_what_has_changed_since(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spark_jobs.reproduce_training.code_version", lambda: "another")
    assert [line.split(":")[0] for line in train_again(MODEL, 1)["changed_since"]] == ["the code (code_version)"]
    assert score_again(MODEL, SCORED[0])["changed_since"] == []
    with monkeypatch.context() as patch:
        patch.setattr("spark_jobs.reproduce_predictions.code_version", lambda: "another")
        [changed] = score_again(MODEL, SCORED[0])["changed_since"]
    assert changed == f"the code (code_version): {code_version()} then, another now"
    features = model_folders.load(MODEL).features.model_copy(update={"table": "gold.named_since"})
    with monkeypatch.context() as patch:
        elsewhere = model_folders.load(MODEL).model_copy(update={"features": features})
        patch.setattr(model_folders, "load", lambda _name: elsewhere)
        for again in (lambda: train_again(MODEL, 1), lambda: score_again(MODEL, SCORED[0])):
            with pytest.raises(NotReproducedError, match=r"gold\.named_since had not been released: model\.yaml"):
                again()
        # What the run has recorded tells what the prediction came from, and the pins what the model was trained on.
        found = prediction(SCORED[0])
        told = explain(find(found["prediction_id"], MODEL, SCORED[0].start))
        assert [each["table"] for each in told["inputs"]] == [FEATURES]
        assert told["reasons"]["gone"] is None and told["reasons"]["contributions"]
        patch.setattr(column_lineage, "downstream", lambda _name, **_: [])
        affected = impact(f"{FEATURES}.{SPEC.features.numeric[0]}")
        assert sorted(each["version"] for each in affected.models) == [1, 2, 3] and affected.predictions
        affected = impact(f"{OUTCOMES}.{SPEC.label.column}")
        assert {tuple(each["label"]) for each in affected.models} == {(SPEC.label.column,)}
        assert {each["because"] for each in affected.predictions} == {"the label of its model"}
    of_another_commit = "did not name it then. Check out the commit"
    for changed_features, again, said in (
        ({"numeric": ["named_since"]}, lambda: train_again(MODEL, 1), f"{FEATURES} has no column named_since"),
        ({"carried": ["named_since"]}, lambda: score_again(MODEL, SCORED[0]), f"{FEATURES} has no column named_since"),
        ({"entity_key": ["named_since"]}, lambda: score_again(MODEL, SCORED[0]), f"{TABLE} has no column named_since"),
        (
            {"carried": []},
            lambda: score_again(MODEL, SCORED[0]),
            rf"(?s){TABLE} .* comes out otherwise.*\ncolumns of run .* then, none of them now",
        ),
    ):
        with monkeypatch.context() as patch:
            then = model_folders.load(MODEL)
            now = then.model_copy(update={"features": then.features.model_copy(update=changed_features)})
            patch.setattr(model_folders, "load", lambda _name, now=now: now)
            with pytest.raises(NotReproducedError, match=said) as error:
                again()
        assert ("named_since" in said) == (of_another_commit in str(error.value))
    other = model_folders.load(MODEL).model_copy(update={"decision_threshold": 0.9})
    monkeypatch.setattr(model_folders, "load", lambda _name: other)
    monkeypatch.setattr(pins, "_sha256", lambda *_files: "another lock")
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert [line.split(":")[0] for line in score_again(MODEL, SCORED[0])["changed_since"]] == [
        "the model's folder (model_sha256)", "the environment (uv.lock) (lock_sha256)",
        "Python or the machine (environment)",
    ]  # fmt: skip
    with pytest.raises(
        NotReproducedError,
        match=r"(?s)parameter decision_threshold: .* 0\.9 now.*the code .*another now"
        r".*the environment \(uv\.lock\) .*another lock now.*Python or the machine .*Python 3\.99\.0.* now",
    ):
        train_again(MODEL, 1)


def test_a_version_that_there_is_not_is_refused() -> None:
    with pytest.raises(registry.UnknownVersionError, match=r"no version 9\. Versions: 1, 2, 3\."):
        train_again(MODEL, 9)


def test_after_maintenance_with_the_shortest_retention_all_is_made_again_and_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the features, a version that was released and replaced, and that nothing was made from, goes."""
    # Of this module's tables alone: those that other tests have left may have been damaged or removed by them.
    everything = release_log.history
    monkeypatch.setattr(
        release_log,
        "history",
        lambda: [row for row in everything() if row["table_name"] in (FEATURES, OUTCOMES, TABLE)],
    )
    day = SCORED[0]
    unneeded = [put(FEATURES, flights(day, seed=seed)[0], folder) for seed in (3, 4, 5)]
    put(FEATURES, flights(Interval(WINDOW.start, ALL.end), seed=6)[0], folder)
    score(MODEL, day)  # not released: withdrawn by the next write, or released later
    views = {table: sql(f"select * from {table}").toPandas() for table in released()}
    told_before = {each: explain(find(each)) for each in (prediction(one)["prediction_id"] for one in SCORED)}
    going = {each.table: each for each in maintain.plan(0, grace_hours=0)}
    assert {pin.version for pin in going[FEATURES].pinned}.isdisjoint(unneeded)
    assert going[FEATURES].bytes > 0

    one_by_one = maintain._remove

    def killed(files: dict[str, int]) -> None:
        one_by_one(list(files)[: len(files) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(maintain, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            maintain.maintain(0, grace_hours=0)
    assert maintain.maintain(0, grace_hours=0)["files"] > 0
    assert maintain.maintain(0, grace_hours=0)["files"] == 0

    for version in unneeded:
        with pytest.raises(VersionGoneError):
            tables.check_kept(tables.next_table(FEATURES), version)
    for version in (1, 2, 3):
        assert train_again(MODEL, version)["equal"]
    assert sum(batch["rows"] for batch in score_again(MODEL, Interval(day.end, SCORED[2].end))["batches"]) == 240
    verify()
    assert {each: explain(find(each)) for each in told_before} == told_before
    for table, before in views.items():
        after = sql(f"select * from {table}").toPandas()
        pd.testing.assert_frame_equal(after, before)
    for interval in SCORED[2:]:
        publish(score(MODEL, interval)["version"], interval)
        assert score_again(MODEL, interval)["equal"]

    # Once nothing else needs what an archived version was trained on, what is left of its reasons is told.
    explained = explain(find(prediction(SCORED[3])["prediction_id"], MODEL, SCORED[3].start))
    assert explained["reasons"]["gone"] is None
    assert explained["scored"]["made_with"] == pins.surroundings(model_folders.load(MODEL))
    registry.connect().set_model_version_tag(MODEL, "3", "archived", "true")
    assert maintain.maintain(0, grace_hours=0)["files"] > 0
    told = explain(find(prediction(SCORED[3])["prediction_id"], MODEL, SCORED[3].start))
    reasons = told["reasons"]
    assert re.search(rf"version 3 of {MODEL} was fitted on are no longer kept.* of gold_next\.pinned", reasons["gone"])
    values = {each["feature"]: each["value"] for each in explained["reasons"]["contributions"]}
    assert {each["feature"]: each["value"] for each in reasons["contributions"]} == values
    assert {each["contribution"] for each in reasons["contributions"]} == {None}
    assert told["inputs"] == explained["inputs"] and told["model"] == {
        **explained["model"],
        "roles_now": told["model"]["roles_now"],
    }
    with (console := Console(width=500)).capture() as printed:
        console.print(of_explanation(told))
    assert reasons["gone"][:60] in printed.get() and f"{SPEC.features.numeric[0]} = " in printed.get()
    made_with = told["scored"]["made_with"]
    assert f"uv.lock {made_with['lock_sha256'][:12]}, {made_with['environment']}" in printed.get()
    assert reasons["gone"][:60] in page_of_explanation(told)


def test_the_content_hash_sees_every_value_and_no_order() -> None:
    def of(*rows: str) -> str:
        return tables.content_sha256(sql(f"select * from values {', '.join(rows)} as t(a, b, at)"))

    at = "timestamp'2013-01-01 00:00:00.000001'"
    one, two = f"(1.0D, 'x', {at})", f"(2.0D, null, {at})"
    assert of(one, two) == of(two, one)
    others = [
        (one, one, two), (one,), (one, "(2.0D, '', " + at + ")"), (f"(1.0D, null, {at})", f"(2.0D, 'x', {at})"),
        (f"(1.0000000000000002D, 'x', {at})", two), (one, two.replace("01'", "02'")),
    ]  # fmt: skip
    assert len({of(*rows) for rows in others} | {of(one, two)}) == len(others) + 1


def test_a_version_that_mlflow_has_lost_is_explained_followed_and_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First its entry in the registry, then all that was stored of it: the last that this module does."""
    column = f"{FEATURES}.{SPEC.features.numeric[0]}"
    monkeypatch.setattr(column_lineage, "downstream", lambda _name, **_: [])
    row = find(prediction(SCORED[0])["prediction_id"], MODEL, SCORED[0].start)
    explained, followed = explain(row), {what: impact(what) for what in (f"{MODEL}@2", column)}
    assert explained["model"]["version"] == 2 and explained["model"]["card"] and explained["reasons"]["contributions"]
    assert all(each.predictions and each.models for each in followed.values())

    def same(now: Impact, then: Impact) -> bool:
        models = [[{**each, "roles_now": None} for each in found.models] for found in (now, then)]
        return models[0] == models[1] and dataclasses.replace(now, models=[]) == dataclasses.replace(then, models=[])

    registry.connect().delete_model_version(MODEL, "2")
    of_model = {**explained["model"], "deleted": True, "roles_now": []}
    assert explain(row) == {**explained, "model": of_model}
    assert all(same(impact(what), then) for what, then in followed.items())
    assert train_again(MODEL, 2)["equal"] and score_again(MODEL, SCORED[0])["equal"]
    with pytest.raises(ModelFailedError, match="was deleted from the registry"):
        model_versions.fetch_to_score(model_versions.find_or_unknown(MODEL, 2))
    with pytest.raises(registry.UnknownVersionError, match="no version 9"):
        impact(f"{MODEL}@9")

    shutil.rmtree(folder / "artifacts")
    left = explain(row)
    assert "version 2 cannot be loaded" in left["reasons"]["gone"] and left["reasons"]["contributions"] == []
    assert left == {**explained, "reasons": left["reasons"], "model": {**of_model, "card": None}}
    with (console := Console(width=500)).capture() as printed:
        console.print(of_explanation(left))
    for shown in (printed.get(), page_of_explanation(left)):
        assert "cannot be loaded" in shown and "deleted from MLflow" in shown and "no longer kept" in shown
    assert f"decision {str(row['decision']).lower()}" in printed.get() and "true from" not in printed.get()
    assert all(same(impact(what), then) for what, then in followed.items())
    with pytest.raises(ModelFailedError, match="version 2 cannot be loaded"):
        score_again(MODEL, SCORED[0])
