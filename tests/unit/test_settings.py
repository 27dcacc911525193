from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from lakehouse import dbt_project
from lakehouse import settings as module
from lakehouse.settings import InvalidSettingError, Settings, UnknownSettingError


@pytest.fixture(autouse=True)
def _fresh() -> None:
    module.settings.cache_clear()


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch):
    yield
    monkeypatch.undo()
    module.settings.cache_clear()


@pytest.mark.parametrize("name", ["LAKE_SPARK_MASTRE", "lake_spark_mastre"])
def test_a_misspelt_variable_is_an_error_that_names_the_right_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "local[1]")
    with pytest.raises(UnknownSettingError, match=rf"{name}.*LAKE_SPARK_MASTER"):
        module.settings()


def test_a_relative_folder_is_the_same_for_all_parts_though_each_has_another_present_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAKE_DROP", "drops")
    monkeypatch.chdir(tmp_path)
    assert Settings().drop_url == str(module.PROJECT_DIR / "drops")
    for elsewhere in ("s3://lake/tables", "file:/data/tables", str(tmp_path)):
        monkeypatch.setenv("LAKE_WAREHOUSE", elsewhere)
        assert Settings().warehouse_url == elsewhere


@pytest.mark.parametrize("name", ["LAKE_ALERTS", "lake_alerts"])
def test_a_variable_of_the_wrong_form_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "[")
    with pytest.raises(InvalidSettingError, match=r'"alerts" from source "EnvSettingsSource": .*line 1'):
        module.settings()


def test_a_file_that_cannot_be_read_is_an_error_that_names_the_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lake.toml").write_text('spark_memory = "1g"\nspark_master local\n')
    monkeypatch.setitem(Settings.model_config, "toml_file", tmp_path / "lake.toml")
    with pytest.raises(InvalidSettingError, match=r"lake\.toml is not valid TOML: .*at line 2"):
        module.settings()


def test_an_unknown_key_in_the_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lake.toml").write_text('spark_mastre = "local[1]"\n')
    monkeypatch.setitem(Settings.model_config, "toml_file", tmp_path / "lake.toml")
    with pytest.raises(ValidationError, match="spark_mastre"):
        Settings()


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lake.toml").write_text('spark_master = "local[1]"\nspark_memory = "1g"\n')
    monkeypatch.setitem(Settings.model_config, "toml_file", tmp_path / "lake.toml")
    monkeypatch.setenv("LAKE_SPARK_MASTER", "spark://cluster:7077")
    read = Settings()
    assert (read.spark_master, read.spark_memory) == ("spark://cluster:7077", "1g")


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({}, "127.0.0.1"),
        ({"SPARK_REMOTE": "sc://spark.example:15002/;token=secret"}, "spark.example"),
        ({"SPARK_REMOTE": "sc://spark.example", "LAKE_THRIFT_HOST": "thrift.example"}, "thrift.example"),
    ],
)
def test_dbt_goes_to_the_host_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str
) -> None:
    for name in ("SPARK_REMOTE", "LAKE_THRIFT_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert dbt_project.environment()["DBT_THRIFT_HOST"] == host


def test_statements_of_dbt_and_of_the_steps_do_not_go_to_two_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    monkeypatch.setenv("LAKE_THRIFT_HOST", "thrift.example")
    with pytest.raises(ValidationError, match="spark_remote"):
        module.settings()


def test_the_documented_file_names_every_setting_and_no_other() -> None:
    lines = [line.removeprefix("#").strip() for line in (module.PROJECT_DIR / "lake.toml").read_text().splitlines()]
    keys = {match[1] for line in lines if (match := re.match(r"\[?([a-z_]+)(\]| =)", line))}
    assert keys == set(Settings.model_fields) | set(module.Ports.model_fields)


def test_secrets_are_kept_for_their_owner_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAKE_HOME", str(tmp_path))
    first = module.settings().secret("airflow_admin_password")
    assert len(first) >= 24
    assert module.settings().secret("airflow_admin_password") == first
    assert module.settings().secret("another") != first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
