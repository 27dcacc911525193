"""Verify: every damage to the files of a released version is found and named, and nothing else is."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse import ops, release_log, tables
from lakehouse.cli.errors import expected, first_lines
from lakehouse.maintenance import maintain
from lakehouse.maintenance.verify import DamagedError, verify
from lakehouse.releases import fingerprints
from lakehouse.releases.fingerprints import Fault
from lakehouse.tables import VersionGoneError

TABLE = "gold.made_up"
STORED = "gold_next.made_up"
DAMAGES = 240


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a table of 14 versions, appended, replaced and compacted, of which some were released."""
    lake = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "location", lambda stored: str(lake / stored))
        for day in range(12):
            put(day)
            if day % 4 == 2:
                released(day)
        put(3, predicate="day = 3")
        tables.delta(STORED).create_checkpoint()
        DeltaTable(tables.location(STORED)).optimize.compact()
        released(13)
    return lake


@pytest.fixture
def lake(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(whole, tmp_path / "lake")
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / "lake" / stored))
    return tmp_path / "lake"


def put(day: int, predicate: str | None = None) -> int:
    rows = pa.Table.from_pandas(pd.DataFrame({"day": [day] * 500, "value": range(500)}), preserve_index=False)
    mode = "overwrite" if predicate else "append"
    write_deltalake(tables.location(STORED), rows, mode=mode, predicate=predicate)
    head = tables.head(STORED)
    assert head is not None
    return head


def released(version: int, release_id: int | None = None) -> None:
    fingerprints.record({TABLE: version}, "a run")
    ops.append(release_log.LOG, [{"release_id": release_id or version, "table_name": TABLE, "version": version}])


def faults(version: int) -> list[Fault]:
    return list(fingerprints.check(TABLE, [version], ops.read(fingerprints.LOG).to_pylist()))


def needed(version: int) -> list[str]:
    facts = fingerprints.expected(ops.read(fingerprints.LOG).to_pylist(), version)
    assert facts is not None
    return [*facts.data, *facts.log]


@pytest.mark.parametrize("version", [2, 6, 10, 13])
def test_nothing_is_said_of_versions_that_are_whole(lake: Path, version: int) -> None:
    assert faults(version) == []
    facts = fingerprints.expected(ops.read(fingerprints.LOG).to_pylist(), version)
    assert facts is not None
    assert set(facts.data) == fingerprints.data_files(STORED, version)
    assert f"_delta_log/{version:020}.json" in facts.log


def damage(file: Path, chance: random.Random) -> str:
    content = file.read_bytes()
    kind = chance.choice(["flip", "flip", "truncate", "remove", "empty", "grow"])
    if kind == "flip":
        at = chance.randrange(len(content))
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :])
        return "content has changed"
    if kind == "remove":
        file.unlink()
        return "is missing"
    if kind == "grow":
        file.write_bytes(content + b"\n")
        return "something was added"
    file.write_bytes(content[: chance.randrange(1, len(content)) if kind == "truncate" else 0])
    return "truncated"


def kind(path: str) -> str:
    """What kind of file it is: ``data``, or the name that such files have in a log, without the version."""
    name = path.removeprefix("_delta_log/")
    return "data" if name == path else re.sub(r"\d{20}", "N", name)


def any_of(paths: list[str], chance: random.Random) -> str:
    """One of the files; the few of a rare kind come as often as those of another."""
    wanted = chance.choice(sorted({kind(path) for path in paths}))
    return chance.choice(sorted(path for path in paths if kind(path) == wanted))


def test_each_of_many_damages_is_found_and_named(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(20130101)
    monkeypatch.setattr(maintain, "CHECKPOINT_COMMITS", 1)
    before_it = set(needed(13))
    assert maintain.checkpoint([TABLE], "maintenance") == [TABLE]
    assert set(needed(13)) - before_it == {f"_delta_log/{13:020}.checkpoint.parquet"}
    hit = set()
    rows = ops.read(fingerprints.LOG).to_pylist()
    files = {version: needed(version) for version in (2, 6, 10, 13)}
    for _ in range(DAMAGES):
        version = chance.choice([*files])
        path = any_of(files[version], chance)
        file = lake / STORED / path
        before = file.read_bytes()
        what = damage(file, chance)
        found = list(fingerprints.check(TABLE, [version], rows))
        assert [(fault.table, fault.version, fault.file) for fault in found] == [(TABLE, version, path)]
        assert what in found[0].what
        file.write_bytes(before)
        hit.add((kind(path), what))
    # Files of every kind, each damaged in every way.
    assert {each for each, _ in hit} == {"data", "N.json", "N.checkpoint.parquet", "_last_checkpoint"}
    assert len(hit) == 4 * 4
    assert faults(13) == []


def test_a_checkpoint_that_comes_later_changes_nothing_and_is_recorded_with_what_points_to_it(lake: Path) -> None:
    version = put(30)
    released(version)
    tables.delta(STORED).create_checkpoint()
    assert faults(version) == faults(10) == []
    pointer = lake / STORED / "_delta_log" / "_last_checkpoint"
    pointer.write_text(pointer.read_text().replace(f":{version},", f":{version + 1},"))
    assert [fault.file for fault in faults(version)] == ["_delta_log/_last_checkpoint"]
    pointer.write_text(pointer.read_text().replace(f":{version + 1},", f":{version},"))
    fingerprints.record({}, "a later maintenance, after one that was killed", [TABLE])
    assert faults(version) == []
    for file in (pointer, pointer.with_name(f"{version:020}.checkpoint.parquet")):
        content = file.read_bytes()
        file.unlink()
        assert [fault.file for fault in faults(version)] == [f"_delta_log/{file.name}"]
        file.write_bytes(content)
    fingerprints.record({}, "again", [TABLE])
    later = put(31)
    tables.delta(STORED).create_checkpoint()
    released(later)
    assert faults(later) == faults(version) == faults(13) == []


def test_damages_that_come_together_are_all_named(lake: Path) -> None:
    data, log = next(p for p in needed(13) if p.endswith(".parquet")), f"_delta_log/{13:020}.json"
    (lake / STORED / data).unlink()
    (lake / STORED / log).write_text("{}")
    assert {fault.file for fault in faults(13)} == {data, log}


def test_a_checkpoint_that_was_put_beside_the_log_is_noticed(lake: Path) -> None:
    """Its entries are as recorded, but readers would see other files."""
    folder = lake / STORED / "_delta_log"
    checkpoint = next(folder.glob("*.checkpoint.parquet"))
    name = f"{13:020}.checkpoint.parquet"
    table = pq.read_table(checkpoint)
    pq.write_table(table, folder / name)
    size = f'"size":{table.num_rows}'
    (folder / "_last_checkpoint").write_text(f'{{"version":13,{size}}}')
    found = faults(13)
    assert found and all("but" in fault.what for fault in found)


def test_only_files_that_are_new_are_read_at_a_release(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    one = fingerprints._hash
    monkeypatch.setattr(fingerprints, "_hash", lambda root, paths, *a: (read.extend(paths), one(root, paths, *a))[1])
    version = put(20)
    released(version)
    assert sorted(path.startswith("_delta_log") for path in read) == [False, True]
    assert faults(version) == []


def test_what_was_damaged_after_its_release_does_not_pass_by_being_released_again(lake: Path) -> None:
    path = needed(10)[0]
    (lake / STORED / path).write_bytes(b"")
    released(10, release_id=20)
    assert [fault.file for fault in faults(10)] == [path]


def test_a_version_without_a_fingerprint_is_not_called_whole(lake: Path) -> None:
    assert "no fingerprint" in faults(5)[0].what


def test_the_step_names_what_is_damaged_and_keeps_it(lake: Path) -> None:
    outcome = verify([TABLE])
    assert outcome["versions"] == {TABLE: 13} and outcome["files"] == len(needed(13))
    path = needed(13)[0]
    (lake / STORED / path).unlink()
    with pytest.raises(DamagedError, match=f"(?s)1 fault .*{TABLE} version 13: {path}: is missing"):
        verify()
    (run,) = (row for row in ops.read("ops.runs").to_pylist() if row["status"] == "failed")
    assert run["step"] == "verify" and path in run["details"]
    only_before = verify(release_id=10)
    assert only_before["versions"] == {TABLE: 10}
    file = lake / STORED / needed(10)[0]
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(DamagedError, match="its content has changed") as changed:
        verify(release_id=10)
    assert "Maintenance removes" not in str(changed.value)
    file.unlink()
    with pytest.raises(DamagedError, match="Maintenance removes what is older than `keep_days`"):
        verify(release_id=10)


def test_what_is_kept_for_models_and_predictions_is_verified_when_asked_for(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = tuple(maintain.Pinned(version, ("a model",), 0) for version in (2, 6))
    plans = [maintain.Plan(TABLE, {}, pins), maintain.Plan("ml.shadow_of_one", {}, (maintain.Pinned(4, (), 0),))]
    monkeypatch.setattr(maintain, "plan", {0: plans}.__getitem__)
    outcome = verify(kept=True)
    assert outcome["versions"] == {TABLE: [2, 6, 13]}
    assert outcome["files"] == len({*needed(2), *needed(6), *needed(13)})
    of_both = (fingerprints.data_files(STORED, 2) & fingerprints.data_files(STORED, 6)).pop()
    (lake / STORED / of_both).unlink()
    verify()
    with pytest.raises(DamagedError, match=f"^1 fault .*:\n{TABLE} version 6: {of_both}: is missing\n"):
        verify(kept=True)


def test_a_file_that_cannot_be_read_is_a_fault_beside_the_others(lake: Path) -> None:
    first, second = needed(13)[:2]
    (lake / STORED / first).unlink()
    (lake / STORED / first).mkdir()
    (lake / STORED / second).unlink()
    found = {fault.file: fault.what for fault in faults(13)}
    assert found.keys() == {first, second} and found[second] == "is missing"
    assert found[first].startswith("cannot be read: [Errno 21]")


def test_a_page_that_was_damaged_before_its_release_is_named(lake: Path) -> None:
    version = put(99)
    [path] = fingerprints.data_files(STORED, version) - fingerprints.data_files(STORED, version - 1)
    rows = pa.table({"day": pa.array([99] * 500), "value": pa.array(range(500))})
    pq.write_table(rows, lake / STORED / path, write_page_checksum=True, use_dictionary=False, compression="none")
    content = bytearray((lake / STORED / path).read_bytes())
    content[content.index((123).to_bytes(8, "little"))] ^= 1
    (lake / STORED / path).write_bytes(content)
    released(version)
    [fault] = faults(version)
    assert fault.file == path and fault.what.startswith("cannot be read though it is as it was released: ")


def test_a_log_with_a_gap_is_told_in_a_line_with_the_name_of_its_table(lake: Path) -> None:
    (lake / STORED / "_delta_log" / f"{1:020}.json").unlink()
    with pytest.raises(expected()) as error:
        tables.delta(STORED, 5)
    said = first_lines(error.value)
    assert re.fullmatch(rf"The Delta log of {STORED} version 5 cannot be read: .*`lake verify` names what is .*", said)
    with pytest.raises(VersionGoneError, match=f"Version 5 of {STORED} is not in the table's log: .*`lake verify`"):
        tables.check_kept(STORED, 5)


def test_a_table_that_is_not_released_is_refused(lake: Path) -> None:
    with pytest.raises(release_log.NotReleasedError, match=r"gold\.unknown: not released\. Released"):
        verify(["gold.unknown"])
    with pytest.raises(
        release_log.NotReleasedError, match=r"silver\.a: not released as of release 10\. silver has views"
    ):
        verify(["silver.a"], release_id=10)
