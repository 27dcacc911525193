"""OpenLineage: each step says what it reads and writes, as events that any OpenLineage backend understands.

Airflow's own provider sends the events of DAG runs and tasks. It hands the ids of a task's run on in the variables
``OPENLINEAGE_PARENT_ID`` and ``OPENLINEAGE_ROOT_PARENT_ID`` (``namespace/job/run``), so that the steps hang below it.

The library is imported when the first event is sent, not before: DAG files import the steps.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deltalake.exceptions import DeltaError

from lakehouse import tables
from lakehouse.errors import LakeError
from lakehouse.ml.model_spec import PREDICTIONS, SCORING_STEPS
from lakehouse.settings import PROJECT_DIR, settings

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, RunEvent

    from lakehouse.lineage.sql_lineage import Edge

PRODUCER = f"urn:lakehouse:{installed('lakehouse')}"
PARENT, ROOT = "OPENLINEAGE_PARENT_ID", "OPENLINEAGE_ROOT_PARENT_ID"
ENGINE_STEPS = (
    "land", "replay", "gate", "build", "score", "shadow", "what_if", "monitor", "reproduce", "maintain",
)  # fmt: skip

log = logging.getLogger("lakehouse")


def send(events: Iterable[RunEvent]) -> None:
    """Send events; one that cannot be made, or is not taken, costs a line in the log, and never a step.

    Args:
        events: In the order of their times; they may be made while they are sent.
    """
    import requests

    try:
        for event in events:
            _client().emit(event)
    except (LakeError, DeltaError) as error:
        log.warning("OpenLineage: an event cannot be made: %s", error)
    except (requests.RequestException, RuntimeError, OSError) as error:
        log.warning("OpenLineage: %s does not take events: %s", _backend(), error)
    except (ImportError, ValueError, TypeError, LookupError) as error:  # of a transport that there is not, or not so
        log.warning("OpenLineage: no event can be sent by the setting openlineage: %s", error)


def started(row: Mapping[str, Any], parent: tuple[str, str] | None = None) -> RunEvent:
    """The event of a step that begins.

    Args:
        row: What is known of its row in ``ops.runs``.
        parent: Job and run that it is a part of; the task of Airflow, if any, without it.
    """
    from openlineage.client.event_v2 import Run, RunEvent, RunState

    return RunEvent(
        eventTime=_time(row["started_at"]),
        eventType=RunState.START,
        producer=PRODUCER,
        run=Run(row["run_id"], _run_facets(row, parent)),
        job=_job(row),
    )


def ended(
    row: Mapping[str, Any],
    details: Mapping[str, Any],
    assertions: Mapping[str, list[dict[str, Any]]] | None = None,
    parent: tuple[str, str] | None = None,
) -> RunEvent:
    """The event of a step that has ended.

    Args:
        row: Its row in ``ops.runs``.
        details: What else it has recorded; of a landing, its files.
        assertions: Of a gate and of dbt's data tests: table to rows as ``ops.gate_results`` has them.
        parent: Job and run that it is a part of; the task of Airflow, if any, without it.
    """
    from openlineage.client.event_v2 import Run, RunEvent, RunState

    failed = row["status"] == "failed"
    return RunEvent(
        eventTime=_time(row["ended_at"]),
        eventType=RunState.FAIL if failed else RunState.COMPLETE,
        producer=PRODUCER,
        run=Run(row["run_id"], _run_facets(row, parent)),
        job=_job(row),
        inputs=_inputs(row, details, assertions or {}),
        outputs=_outputs(row),
    )


def job_name(step: str, dataset: str) -> str:
    """The name of a step as a job: that of its table, of their layer when it is about several, or of the lake.

    Args:
        step: Such as ``gate``.
        dataset: The tables, joined by commas, or the source or model.
    """
    several = dataset.split(", ")
    layers = {table.partition(".")[0] for table in several}
    about = dataset if len(several) == 1 else layers.pop() if len(layers) == 1 else "the lake"
    return f"{step}.{about}"


def prepare() -> None:
    """Make the folder that the events go to when no backend is configured."""
    (settings().home / "openlineage").mkdir(parents=True, exist_ok=True)


@cache
def _client() -> OpenLineageClient:
    from openlineage.client import OpenLineageClient

    prepare()
    return OpenLineageClient(config={"transport": settings().openlineage_transport})


def _backend() -> str:
    transport = settings().openlineage_transport
    return str(transport.get("url") or transport.get("log_file_path") or transport.get("type"))


def _time(at: dt.datetime) -> str:
    return at.isoformat()


def _job(row: Mapping[str, Any]) -> Job:
    from openlineage.client.event_v2 import Job
    from openlineage.client.facet_v2 import job_type_job, source_code_location_job

    return Job(
        settings().openlineage_namespace,
        job_name(row["step"], row["dataset"]),
        {
            "jobType": job_type_job.JobTypeJobFacet("BATCH", "LAKEHOUSE", "STEP"),
            "sourceCodeLocation": source_code_location_job.SourceCodeLocationJobFacet(
                "git", PROJECT_DIR.as_uri(), version=row["code_version"]
            ),
        },
    )


def _run_facets(row: Mapping[str, Any], parent: tuple[str, str] | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import (
        error_message_run,
        nominal_time_run,
        parent_run,
        processing_engine_run,
    )

    facets: dict[str, Any] = {}
    if parent:
        job, run = parent
        facets["parent"] = parent_run.ParentRunFacet(
            parent_run.Run(run), parent_run.Job(settings().openlineage_namespace, job)
        )
    elif above := _above(PARENT, os.environ.get(PARENT)):
        namespace, job, run = above
        root = None
        if top := _above(ROOT, os.environ.get(ROOT)):
            root_namespace, root_job, root_run = top
            root = parent_run.Root(parent_run.RootRun(root_run), parent_run.RootJob(root_namespace, root_job))
        facets["parent"] = parent_run.ParentRunFacet(parent_run.Run(run), parent_run.Job(namespace, job), root)
    if row["interval_start"]:
        after = row["interval_end"] + dt.timedelta(days=1)
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(
            f"{row['interval_start']}T00:00:00Z", f"{after}T00:00:00Z"
        )
    if row["step"] in ENGINE_STEPS:
        facets["processing_engine"] = processing_engine_run.ProcessingEngineRunFacet(
            installed("pyspark"), "Spark", installed("openlineage-python")
        )
    if row.get("error"):
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(row["error"], "PYTHON")
    return facets


@cache  # so that it is said once
def _above(variable: str, value: str | None) -> tuple[str, str, str] | None:
    """Namespace, job and run that a variable names; None without it, or when it cannot be read."""
    if value is None:
        return None
    try:
        namespace, job, run = value.rsplit("/", 2)
        uuid.UUID(run)
        if namespace and job:
            return namespace, job, run
    except ValueError:
        pass
    log.warning("OpenLineage: %s is not namespace/job/run, so the events name no parent: %r", variable, value)
    return None


def _inputs(
    row: Mapping[str, Any], details: Mapping[str, Any], assertions: Mapping[str, list[dict[str, Any]]]
) -> list[InputDataset]:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality
    from openlineage.client.facet_v2 import dataset_version_dataset

    found = []
    for name, facts in details.get("files", {}).items() if row["step"] == "land" else ():
        namespace, path = _file(name)
        version = dataset_version_dataset.DatasetVersionDatasetFacet(facts["sha256"])
        found.append(InputDataset(namespace, path, facets={"version": version}))
    if row["step"] == "land":
        name = row["dataset"].rpartition(".")[2]
        found.append(InputDataset(settings().openlineage_namespace, f"source.{name}", facets=_schema_of_source(name)))
    read = [(tables.reader_name(table), version) for table, version in row["versions_in"]]
    # What a data test asks without a version is a view.
    asked = [(name, None) for name in assertions if row["step"] == "test" and name not in dict(read)]
    for name, version in [*read, *asked]:
        checked = [
            quality.Assertion(
                result["expectation"], bool(result["success"]), result["column_name"], severity=result["severity"]
            )
            for result in assertions.get(name, [])
            if result["success"] is not None
        ]
        found.append(
            InputDataset(
                settings().openlineage_namespace,
                name,
                facets=_facets(name, version),
                inputFacets={"dataQualityAssertions": quality.DataQualityAssertionsDatasetFacet(checked)}
                if checked
                else {},
            )
        )
    for name, number in _models_asked(row, details):
        found.append(InputDataset(settings().openlineage_namespace, name, facets=_facets(name, number)))
    return found


def _models_asked(row: Mapping[str, Any], details: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The model versions that a scoring has asked."""
    if row["step"] not in SCORING_STEPS:
        return []
    name = row["dataset"].partition(f".{PREDICTIONS}")[2]
    versions = details.get("model_versions") or filter(None, [details.get("model_version")])
    return [(f"models.{name}", int(number)) for number in dict.fromkeys(versions)] if name else []


def _outputs(row: Mapping[str, Any]) -> list[OutputDataset]:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    return [
        OutputDataset(
            settings().openlineage_namespace,
            name := tables.reader_name(table),
            facets=_facets(name, version) | _schema_of_model(name, row["step"]) | _column_lineage(name, row["step"]),
            outputFacets={}
            if (rows := _rows(row, name)) is None
            else {"outputStatistics": statistics.OutputStatisticsOutputDatasetFacet(rowCount=rows)},
        )
        for table, version in row["versions_out"]
    ]


def _rows(row: Mapping[str, Any], table: str) -> int | None:
    """How many rows a step has written to a table; None where it has written to several and has not said it of each."""
    if table.startswith("quarantine."):
        return row.get("rows_quarantined")
    beside = [stored for stored, _ in row["versions_out"] if not stored.startswith("quarantine.")]
    return row["rows_out"] if len(beside) == 1 else None


def _facets(table: str, version: int | None) -> dict[str, Any]:
    """Version and columns of a table, out of its log; of a view, which has no version, the columns that it declares."""
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset

    if version is None:
        from lakehouse import dbt_project

        declared = [
            schema_dataset.SchemaDatasetFacetFields(each["name"], each["data_type"], each["description"] or None)
            for each in dbt_project.declared_columns(table)
        ]
        return {"schema": schema_dataset.SchemaDatasetFacet(declared)}
    facets: dict[str, Any] = {"version": dataset_version_dataset.DatasetVersionDatasetFacet(str(version))}
    if table.startswith("models."):
        return facets
    try:
        log_of_table = tables.delta(tables.next_table(table), version)
    except DeltaError:  # retention has taken the version away: it has no columns any more that could be told
        return facets
    if log_of_table is not None:
        facets["schema"] = schema_dataset.SchemaDatasetFacet(
            [
                schema_dataset.SchemaDatasetFacetFields(
                    field.name, _type(field.type), field.metadata.get("comment") if field.metadata else None
                )
                for field in log_of_table.schema().fields
            ]
        )
    return facets


def _schema_of_source(name: str) -> dict[str, Any]:
    """The columns that an upstream delivers, as the contract promises them."""
    from openlineage.client.facet_v2 import schema_dataset as facet

    from lakehouse import contracts

    fields = [
        facet.SchemaDatasetFacetFields(each.name, each.spark_type.lower(), each.description or None)
        for each in contracts.load(name).columns
    ]
    return {"schema": facet.SchemaDatasetFacet(fields)}


def _schema_of_model(name: str, step: str) -> dict[str, Any]:
    """The inputs and the score of a version that has just been trained: a later ``model.yaml`` may name other ones."""
    from openlineage.client.facet_v2 import schema_dataset as facet

    if step != "train":
        return {}
    from lakehouse.lineage import column_lineage

    fields = [facet.SchemaDatasetFacetFields(column) for column in column_lineage.columns().get(name, ())]
    return {"schema": facet.SchemaDatasetFacet(fields)} if fields else {}


def _type(type_: Any) -> str:
    return str(getattr(type_, "type", type_))


def _column_lineage(table: str, step: str) -> dict[str, Any]:
    """What the columns of a table are made from, for the steps that make them."""
    from openlineage.client.facet_v2 import column_lineage_dataset as facet

    fields: dict[str, facet.Fields] = {}
    for edge in _edges(table, step):
        fields.setdefault(edge.column, facet.Fields([])).inputFields.append(
            facet.InputField(
                settings().openlineage_namespace,
                edge.source_table,
                edge.source_column,
                [facet.Transformation(edge.kind.upper(), edge.transformation)],
            )
        )
    return {"columnLineage": facet.ColumnLineageDatasetFacet(fields)} if fields else {}


def _edges(table: str, step: str) -> list[Edge]:
    from lakehouse import contracts
    from lakehouse.lineage import column_lineage

    layer, name = tables.split(table)
    if step in ("land", "replay"):
        # Of the contract alone: for the whole project, dbt has to compile it first.
        return column_lineage.of_landing(contracts.load(name)) if layer == "bronze" else []
    if step in ("shadow", "what_if"):
        # Made like the predictions that readers see, of the same columns.
        return [replace(edge, table=table) for edge in column_lineage.edges() if edge.table == f"ml.{name}"]
    if step in ("build", "train", "score"):
        return [edge for edge in column_lineage.edges() if edge.table == table]
    return []


def _file(name: str) -> tuple[str, str]:
    """Namespace and name of a source file, as OpenLineage names those of a disk and of an object store."""
    path = name if "://" in name else f"{settings().drop_url.rstrip('/')}/{name}"
    parts = urlsplit(path)
    if parts.scheme in ("", "file"):
        return "file", parts.path
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
