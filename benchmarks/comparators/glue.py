"""A day's run as the usual glue does it: tasks that know nothing of each other, each in a process of its own.

Landing and scoring are jobs of ``spark-submit``, each table is checked by Great Expectations on a Spark session of its
own, and each model of the dbt project is built by a ``dbt run --select``. This file is the program of the Spark jobs:

    spark-submit glue.py land SOURCE DAY …
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparators import daily, rules

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

TYPES = {"varchar": "string", "integer": "int", "timestamptz": "timestamp"}
"""Types of Spark, where they are called otherwise than DuckDB's."""


def session() -> SparkSession:
    """A Spark session with Delta tables."""
    from pyspark.sql import SparkSession

    return (
        SparkSession.builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", str(len(os.sched_getaffinity(0))))
        .config("spark.databricks.delta.snapshotPartitions", "1")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )


def land(source: str, day: dt.date, drop: Path, suites: Path, root: Path) -> None:
    """Bring a file into its table, and the rows that break a rule into its quarantine.

    Args:
        source: Such as ``weather``.
        day: The day that the file is about.
        drop: Folder that the files are delivered to.
        suites: Folder of the expectations.
        root: Folder of the tables.

    Raises:
        CheckFailedError: The file has too many of them.
    """
    from pyspark.sql import functions as F

    kind, spark = daily.SOURCES[source], session()
    name = f"{source}/{source}_{day}.{kind.suffix}"
    raw = _records(spark, drop / name, kind).withColumn("_id", F.monotonically_increasing_id())
    typed = raw.selectExpr(
        *(f"try_cast({column} as {TYPES.get(type_, type_)}) as {column}" for column, type_ in kind.types.items()),
        f"date '{day}' as _interval",
        f"'{name}' as _source_file",
        "cast(row_number() over (order by _id) as bigint) as _source_row",
        f"struct({', '.join(kind.types)}) as _record",
    )
    reasons = {f"{each} is not of its type": f"_record.{each} is not null and {each} is null" for each in kind.types}
    reasons |= daily.reasons(suites, source, "_record", rules.SPARK)
    broken = ", ".join(f"case when {condition} then '{n}' end" for n, condition in enumerate(reasons.values()))
    judged = typed.withColumn("_reasons", F.expr(f"array_compact(array({broken}))")).persist()
    good = judged.where("size(_reasons) = 0").drop("_record", "_reasons")
    bad = judged.where("size(_reasons) > 0").selectExpr(
        "_interval", "_source_file", "_source_row", "to_json(_record) as _raw", "_reasons"
    )
    rows, refused = judged.agg(F.count("*"), F.count_if(F.expr("size(_reasons) > 0"))).collect()[0]
    if refused > rows * daily.TOO_MANY:
        raise daily.CheckFailedError(f"{name}: {refused} of {rows} rows are bad")
    _replace(good, root / "bronze" / source, f"_interval = '{day}'")
    _replace(bad, root / "quarantine" / source, f"_interval = '{day}'")


def check(table: str, suites: Path, root: Path) -> None:
    """Have Great Expectations check a table, and keep what it says in ``<root>/verdicts``.

    Args:
        table: Such as ``bronze.weather``.
        suites: Folder of the expectations.
        root: Folder of the tables.

    Raises:
        CheckFailedError: A critical expectation does not hold.
    """
    import great_expectations as gx

    rows = session().read.format("delta").load(str(root / table.replace(".", "/")))
    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_spark("spark").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
    found = rules.read(suites, table)
    outcome = batch.validate(gx.ExpectationSuite(table, expectations=found))
    severity = {_key(each["type"], each["kwargs"]): each["severity"] for each in found}
    verdicts = []
    for result in outcome.results:
        key = _key(result.expectation_config.type, result.expectation_config.kwargs)
        verdicts.append([*key, severity[key], bool(result.success), result.result.get("unexpected_count")])
    file = root / "verdicts" / f"{table}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(verdicts), "utf-8")
    if failed := [each for each in verdicts if not each[3] and each[2] == "critical"]:
        raise daily.CheckFailedError(f"{table}: {failed}")


def score(day: dt.date, model: str, root: Path) -> None:
    """Score the flights of a day with the registered model, replacing what was scored for it before.

    Args:
        day: The day.
        model: URI of the version of the model in MLflow, such as ``models:/flight_delay/1``.
        root: Folder of the tables.

    Raises:
        CheckFailedError: A flight is missing.
    """
    import mlflow.sklearn
    from pyspark.sql import functions as F

    spark, pipeline, about = session(), mlflow.sklearn.load_model(model), mlflow.models.get_model_info(model)
    numeric, categorical = about.metadata["numeric"], about.metadata["categorical"]
    features = spark.read.format("delta").load(str(root / "gold" / "flight_delay_features"))
    features = features.where(F.col("flight_date") == F.lit(day))
    features = features.select(*dict.fromkeys([*daily.CARRIED, *numeric, *categorical]))

    def predict(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            named = batch[categorical].astype(object)
            inputs = batch[numeric].astype("float64").join(named.where(named.notna(), float("nan")))
            yield batch[daily.CARRIED].assign(score=pipeline.predict_proba(inputs)[:, 1])

    folder, written = root / "ml" / daily.PREDICTIONS, f"flight_date = '{day}'"
    kept = features.select(*daily.CARRIED).schema.add("score", "double")
    _replace(
        features.mapInPandas(predict, kept).select(
            F.expr(f"substr(sha2(concat('{daily.MODEL}|', flight_id, '|', flight_date), 256), 1, 32)").alias(
                "prediction_id"
            ),
            *daily.CARRIED,
            "score",
            (F.col("score") >= about.metadata["decision_threshold"]).alias("decision"),
            F.lit(daily.MODEL).alias("model_name"),
            F.lit(int(model.rpartition("/")[2])).cast("int").alias("model_version"),
            F.lit("champion").alias("role"),
            F.lit("").alias("run_id"),
            F.lit(0).cast("bigint").alias("release_id"),
            F.current_timestamp().alias("scored_at"),
        ),
        folder,
        written,
    )
    scored, due = spark.read.format("delta").load(str(folder)).where(written).count(), features.count()
    if scored != due:
        raise daily.CheckFailedError(f"{daily.PREDICTIONS}: {scored} of {due} flights of {day} are scored")


def _records(spark: SparkSession, path: Path, kind: daily.Source) -> DataFrame:
    texts = ", ".join(f"{name} string" for name in kind.types)
    match kind.suffix:
        case "csv":
            return spark.read.schema(texts).csv(str(path), header=True)
        case "jsonl":
            return spark.read.schema(texts).json(str(path))
    return spark.read.parquet(str(path))


def _key(type_: str, kwargs: dict[str, Any]) -> tuple[str, str]:
    """What tells an expectation from the others of its table."""
    own = {name: value for name, value in kwargs.items() if name != "batch_id"}
    return type_, json.dumps(own, ensure_ascii=False, sort_keys=True)


def _replace(rows: DataFrame, folder: Path, where: str) -> None:
    writer = rows.write.format("delta").mode("overwrite")
    if folder.exists():
        writer = writer.option("replaceWhere", where)
    writer.save(str(folder))


def main() -> None:
    """Do one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    arguments: dict[str, list[tuple[str, Any]]] = {
        "land": [("source", str), ("day", dt.date.fromisoformat), ("drop", Path), ("suites", Path), ("root", Path)],
        "check": [("table", str), ("suites", Path), ("root", Path)],
        "score": [("day", dt.date.fromisoformat), ("model", str), ("root", Path)],
    }
    for name, named in arguments.items():
        task = tasks.add_parser(name)
        for argument, type_ in named:
            task.add_argument(argument, type=type_)
    given = vars(parser.parse_args())
    {"land": land, "check": check, "score": score}[given.pop("task")](**given)


if __name__ == "__main__":
    main()
