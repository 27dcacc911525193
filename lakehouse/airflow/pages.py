"""The platform's pages in Airflow's web server, for those who may read the logs of tasks.

Airflow puts no authentication on the routes of a plugin: every route here has a dependency that does.
"""

from __future__ import annotations

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

from lakehouse.airflow.links import PREFIX
from lakehouse.interval import Interval, InvalidIntervalError
from lakehouse.monitoring import reports
from lakehouse.quality import data_docs

DATA_DOCS = f"{PREFIX}/data-docs/"

app = FastAPI(title="lakehouse", docs_url=None, redoc_url=None, openapi_url=None)


def may_read_all(user: GetUserDep) -> None:
    """Refuse who may not read the logs of all DAGs: a page itself belongs to no DAG.

    Args:
        user: Who asks, by the session of the web UI or by a token.
    """
    if not get_auth_manager().is_authorized_dag(method="GET", access_entity=DagAccessEntity.TASK_LOGS, user=user):
        raise HTTPException(403, "These pages say what the logs of tasks say, and you may not read those.")


@app.get(
    "/data-docs/task/{dag_id}/{run_id:path}/{task_id}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS))],
)
def data_docs_of_task(dag_id: str, run_id: str, task_id: str) -> HTMLResponse:
    """What the gates of a task have found."""
    found = data_docs.verdicts(data_docs.runs_of_task(dag_id, run_id, task_id))
    return HTMLResponse(data_docs.index(found, f"{dag_id}: {task_id}, {run_id}", DATA_DOCS))


@app.get("/data-docs/", dependencies=[Depends(may_read_all)])
def all_data_docs() -> HTMLResponse:
    """What all gates have found, the newest first."""
    return HTMLResponse(data_docs.index(data_docs.verdicts(), "Data Docs", DATA_DOCS))


@app.get("/data-docs/{page:path}", dependencies=[Depends(may_read_all)])
def data_docs_page(page: str) -> Response:
    """Great Expectations' page about one verdict."""
    folder = data_docs.folder().resolve()
    path = (folder / page).resolve()
    if not path.is_relative_to(folder) or path.suffix != ".html" or not path.is_file():
        raise HTTPException(404, "There is no such page.")
    # Great Expectations does not escape the values that it shows: whatever they do, they do without the user's session.
    return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": "sandbox allow-scripts"})


@app.get(
    "/monitoring/task/{dag_id}/{run_id:path}/{task_id}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS))],
)
def report_of_task(dag_id: str, run_id: str, task_id: str) -> HTMLResponse:
    """What a task has measured of a model."""
    rows = reports.of_task(dag_id, run_id, task_id)
    if not rows:
        raise HTTPException(404, "The task has measured nothing, or it was measured again since.")
    interval = Interval(rows[0]["interval_start"], rows[0]["interval_end"])
    return HTMLResponse(reports.report(rows[0]["model_name"], interval))


@app.get("/monitoring/{model}", dependencies=[Depends(may_read_all)])
def newest_report(model: str) -> HTMLResponse:
    """The report of the newest interval of a model."""
    interval = reports.newest(model)
    if interval is None:
        raise HTTPException(404, "Nothing has been measured of such a model.")
    return HTMLResponse(reports.report(model, interval))


@app.get("/monitoring/{model}/{days:path}", dependencies=[Depends(may_read_all)])
def report(model: str, days: str) -> HTMLResponse:
    """The report of an interval of a model."""
    try:
        interval = Interval.parse(days)
    except InvalidIntervalError as error:
        raise HTTPException(404, str(error)) from error
    return HTMLResponse(reports.report(model, interval))
