"""R1b, a day's run, against the usual glue: a process and a Spark session for each task, a dbt for each model."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks import daily
from benchmarks.comparators import glue as comparator
from benchmarks.daily import DAY, GOLD, PREDICTIONS, SOURCES, Lake
from benchmarks.harness import Goal, Result, Side, compare
from lakehouse.interval import Interval

SIZE, QUICK_SIZE = "100MB", "1MB"
GOAL = Goal(0.25)
PREFIX = "glue_"
"""Of the schemas that dbt reads and writes for this side."""

ABOUT = (
    "The glue is {} processes, one after the other, as the platform's steps are (which gate "
    "and build several tables at a time, each in one process): a spark-submit to land each source, one to "
    "score, one to check each table by Great Expectations on a Spark session of its own; a dbt for each model, "
    "views too, and one for the data tests. dbt has it better than usual: the Thrift server that it talks to "
    "is the platform's, which is up and warm. Each session has the cores and the memory that the platform's "
    "engine has, which is idle meanwhile and counts in the glue's peak memory. The platform's side is one "
    "process that has its libraries loaded, as the executor's workers have: see R5 for what Airflow adds. The "
    "glue has no anomaly rules and no pages of verdicts, no release, no record of runs and lineage, no locks, "
    "and does not look for later days whose features would have to be built again."
)

JAVA = """\
#!/bin/sh
# Spark's launcher asks for a module that the Java of the wheel lacks, and which nothing here needs.
for argument; do
    shift
    [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


def run(size: str, pairs: int) -> list[Result]:
    """Time both sides in turn.

    Args:
        size: Of the files of the day, such as ``100MB``.
        pairs: How often each side is timed.
    """
    with daily.prepared(size) as lake:
        glue = Glue(lake)
        result = Result(
            "R1b",
            "a day's run: land, gate, build, score, release ÷ the usual glue",
            size,
            GOAL,
            ("the platform", "glue"),
            notes=(
                daily.about(lake),
                "All rows of all tables are compared as in R1; so are the verdicts.",
                ABOUT.format(len(glue.tasks())),
            ),
            facts={"processes of the glue": len(glue.tasks())},
        )
        daily.run_day()  # warms the engine; the glue's processes have nothing that could be warm
        compare(
            result,
            Side("the platform", daily.run_day, lambda: daily.left(daily.stored, daily.platform_verdicts())),
            Side("glue", glue.run, lambda: daily.left(glue.folder, glue.verdicts())),
            pairs,
            warm=0,
        )
        return [result]


class Glue:
    """The other side.

    Args:
        lake: The platform before its day, whose tables are copied.
    """

    def __init__(self, lake: Lake) -> None:
        from lakehouse import dbt_project
        from lakehouse.engine import sql
        from lakehouse.platform.engine import java
        from lakehouse.platform.jars import locked

        self.lake, self.root = lake, lake.seed(lake.home / "glue")
        for layer, schema, tables in (("bronze", "bronze", SOURCES), ("gold", "gold_next", [t[5:] for t in GOLD])):
            sql(f"create schema if not exists {PREFIX}{schema}").collect()
            for name in tables:
                place = self.root / layer / name
                sql(f"create table {PREFIX}{schema}.{name} using delta location '{place}'").collect()
        self.models = [model.table.partition(".")[2] for model in dbt_project.compiled_models()]
        program = self.root / "java" / "bin" / "java"
        program.parent.mkdir(parents=True)
        program.write_text(JAVA.format(java=shlex.quote(str(java()))), "utf-8")
        program.chmod(0o755)
        day = dbt_project.environment() | dbt_project.build_environment(Interval(DAY, DAY))
        scratch = {"DBT_TARGET_PATH": str(self.root / "dbt"), "DBT_LOG_PATH": str(self.root / "dbt" / "logs")}
        self._dbt = {**os.environ, **day, **scratch, "DBT_SCHEMA_PREFIX": PREFIX}
        # This process is a client of Spark Connect; those of the glue have sessions of their own.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
        self._spark = {
            **clean,
            "JAVA_HOME": str(self.root / "java"),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "MLFLOW_TRACKING_URI": lake.mlflow,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GX_ANALYTICS_ENABLED": "false",
        }
        self._jars = os.pathsep.join(str(jar.path) for jar in locked())
        self._call(self._dbt_command("parse"), self._dbt)

    def tasks(self) -> list[list[str]]:
        """The commands of the day, in their order."""
        from lakehouse.quality.suites import SUITES_DIR
        from lakehouse.settings import settings

        def land(source: str) -> list[str]:
            day = daily.arrival(source).isoformat()
            return self._submit("land", source, day, settings().drop_url, str(SUITES_DIR), str(self.root))

        def check(table: str) -> list[str]:
            return self._submit("check", table, str(SUITES_DIR), str(self.root))

        return [
            *(command for source in SOURCES for command in (land(source), check(f"bronze.{source}"))),
            *(self._dbt_command("run", "--select", model) for model in self.models),
            self._dbt_command("test", "--exclude-resource-type", "unit_test"),
            *map(check, GOLD),
            self._submit("score", DAY.isoformat(), self.lake.model, str(self.root)),
            check(PREDICTIONS),
        ]

    def run(self) -> None:
        """Run the day."""
        from lakehouse.engine import sql

        for command in self.tasks():
            self._call(command, self._dbt if "--profile" in command else self._spark)
            sql("select 1").collect()  # the platform's session would end for idleness

    def folder(self, table: str) -> Path:
        """The folder of one of this side's tables.

        Args:
            table: Such as ``gold.fct_flights``.
        """
        return self.root / table.replace(".", "/")

    def verdicts(self) -> dict[str, object]:
        """What Great Expectations has said of each table."""
        files = (self.root / "verdicts").glob("*.json")
        return {file.stem: daily.summary(list(map(tuple, json.loads(file.read_text("utf-8"))))) for file in files}

    def _submit(self, *arguments: str) -> list[str]:
        from lakehouse.settings import settings

        spec = find_spec("pyspark")
        assert spec is not None and spec.origin is not None
        program = Path(spec.origin).parent / "bin" / "spark-submit"
        options = ["--master", settings().spark_master, "--driver-memory", settings().spark_memory]
        return [str(program), *options, "--driver-class-path", self._jars, comparator.__file__, *arguments]

    def _dbt_command(self, *arguments: str) -> list[str]:
        program = Path(sys.executable).with_name("dbt")
        return [str(program), *arguments, "--profile", "lakehouse", "--target", "lake"]

    def _call(self, command: list[str], environment: dict[str, str]) -> None:
        done = subprocess.run(command, env=environment, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
