"""Spark's properties for the engine."""

from __future__ import annotations

import pytest

from lakehouse.platform import engine, jars
from lakehouse.settings import settings


@pytest.mark.parametrize(("master", "fetched"), [("local[*]", False), ("spark://127.0.0.1:7077", True)])
def test_executors_elsewhere_fetch_the_jars_from_the_driver_and_compile_as_it_does(
    monkeypatch: pytest.MonkeyPatch, master: str, fetched: bool
) -> None:
    monkeypatch.setattr(settings(), "spark_master", master)
    properties = engine.properties()
    assert properties["spark.master"] == master
    listed = properties.get("spark.jars", "").split(",") if fetched else []
    assert listed == ([str(jar.path) for jar in jars.locked()] if fetched else [])
    assert ("spark.jars" in properties) is fetched
    compiled = properties.get("spark.executor.defaultJavaOptions")
    assert compiled == (engine.COMPILES_LONG_METHODS if fetched else None)
    assert engine.COMPILES_LONG_METHODS in engine.JAVA_OPTIONS


def test_what_the_user_sets_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "spark_master", "spark://127.0.0.1:7077")
    monkeypatch.setattr(settings(), "spark_conf", {"spark.jars": "s3a://jars/delta.jar", "spark.driver.host": "lake"})
    properties = engine.properties()
    assert (properties["spark.jars"], properties["spark.driver.host"]) == ("s3a://jars/delta.jar", "lake")


@pytest.mark.parametrize(("master", "asked"), [("local[*]", False), ("spark://127.0.0.1:7077", True)])
def test_a_cluster_is_asked_for_a_core_before_anything_is_made_that_needs_one(
    monkeypatch: pytest.MonkeyPatch, master: str, asked: bool
) -> None:
    done: list[str] = []
    monkeypatch.setattr(settings(), "spark_master", master)
    monkeypatch.setattr(engine, "check_cores", lambda: done.append("cores"))
    monkeypatch.setattr(engine, "_execute", lambda *statements: done.append(statements[0]) or [])
    engine.create_schemas()
    assert (done[0] == "cores") is asked and "show schemas" in done[:2]
