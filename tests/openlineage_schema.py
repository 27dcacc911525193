"""The constraints of OpenLineage's specification 2-0-2 on run events, and of those facets that the platform sends.

Written after the specification (https://openlineage.io/spec/2-0-2/OpenLineage.json and spec/facets): which fields there
have to be, of which type and format.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

TEXT = {"type": "string"}
URI = {"type": "string", "pattern": r"^[a-z][a-z0-9+.-]*:\S+$"}
TIME = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"}
UUID = {"type": "string", "format": "uuid"}
WHOLE = {"type": "integer"}
TRUTH = {"type": "boolean"}


def record(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def facet(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return record({"_producer": URI, "_schemaURL": URI, **required}, optional)


def facets(**known: dict[str, Any]) -> dict[str, Any]:
    """Facets that the platform does not send are checked for what every facet has."""
    return {"type": "object", "properties": known, "additionalProperties": facet({})}


NAMED = {"namespace": TEXT, "name": TEXT}
LINKED_RUN, LINKED_JOB = record({"runId": UUID}), record(NAMED)
TRANSFORMATION = record({"type": TEXT}, {"subtype": TEXT, "description": TEXT, "masking": TRUTH})
INPUT_FIELD = record({**NAMED, "field": TEXT}, {"transformations": array(TRANSFORMATION)})
DATASET_FACETS = facets(
    version=facet({"datasetVersion": TEXT}),
    schema=facet({}, {"fields": array(record({"name": TEXT}, {"type": TEXT, "description": TEXT}))}),
    columnLineage=facet(
        {"fields": {"type": "object", "additionalProperties": record({"inputFields": array(INPUT_FIELD)})}},
        {"dataset": array(INPUT_FIELD)},
    ),
)
RUN_FACETS = facets(
    parent=facet({"run": LINKED_RUN, "job": LINKED_JOB}, {"root": record({"run": LINKED_RUN, "job": LINKED_JOB})}),
    nominalTime=facet({"nominalStartTime": TIME}, {"nominalEndTime": TIME}),
    processing_engine=facet({"version": TEXT}, {"name": TEXT, "openlineageAdapterVersion": TEXT}),
    errorMessage=facet({"message": TEXT, "programmingLanguage": TEXT}, {"stackTrace": TEXT}),
)
JOB_FACETS = facets(
    jobType=facet({"processingType": TEXT, "integration": TEXT}, {"jobType": TEXT}),
    sourceCodeLocation=facet({"type": TEXT, "url": URI}, {"version": TEXT}),
)
ASSERTION = record({"assertion": TEXT, "success": TRUTH}, {"column": TEXT, "severity": TEXT})
RUN_EVENT = record(
    {
        "eventTime": TIME,
        "producer": URI,
        "schemaURL": URI,
        "run": record({"runId": UUID}, {"facets": RUN_FACETS}),
        "job": record(NAMED, {"facets": JOB_FACETS}),
    },
    {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "inputs": array(
            record(
                NAMED,
                {
                    "facets": DATASET_FACETS,
                    "inputFacets": facets(dataQualityAssertions=facet({"assertions": array(ASSERTION)})),
                },
            )
        ),
        "outputs": array(
            record(
                NAMED,
                {
                    "facets": DATASET_FACETS,
                    "outputFacets": facets(outputStatistics=facet({}, {"rowCount": WHOLE, "size": WHOLE})),
                },
            )
        ),
    },
)
VALIDATOR = Draft202012Validator(RUN_EVENT, format_checker=FormatChecker())


def faults(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(event)]
