"""Trees: explanations and impacts as a person reads them on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.tree import Tree

from lakehouse.pages import short
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.provenance.impact import Impact

REASONS, FILES, BROKEN = 8, 3, 3


def of_explanation(explanation: dict[str, Any]) -> Tree:
    """A prediction, its reasons and what it comes from.

    Args:
        explanation: Outcome of :func:`lakehouse.provenance.explain.explain`.
    """
    row, reasons, model = explanation["prediction"], explanation["reasons"], explanation["model"]
    decision = "" if row.get("decision") is None else f", decision {str(row['decision']).lower()}"
    if reasons["threshold"] is not None:
        decision += f" (true from {reasons['threshold']} on)"
    tree = Tree(f"[bold]prediction {row['prediction_id']}[/]: score {row['score']:.4f}{decision}")
    about = {name: value for name, value in row.items() if name not in TECHNICAL}
    tree.add(escape(", ".join(f"{name} {value}" for name, value in about.items())))
    _add_reasons(tree, reasons)
    written = explanation["scored"]
    scored = tree.add(
        f"scored: {_write(written)}{_made_with(written['made_with'])}{_released(written['release'], 'shown by ')}; "
        f"{_gate(written['gate'])}"
    )
    for each in explanation["inputs"]:
        _add_input(scored, each)
    branch = tree.add(
        f"model {model['name']} version {model['version']} ({model['candidate']}), {row['role']} then, "
        f"{', '.join(model['roles_now']) or 'no role'} now{', and deleted from MLflow' if model['deleted'] else ''}"
    )
    for each in model["decisions"]:
        told = f"{each['event']} by {each['decided_by']} at {each['at']:%Y-%m-%d %H:%M} UTC: {each['reason']}"
        branch.add(escape(told))
    branch.add(", ".join(f"{name} {value:.4f}" for name, value in model["metrics"].items()))
    where = f"card.md of run {model['mlflow_run_id']} in MLflow; --json and --html have it whole"
    branch.add(f"card: {where if model['card'] else 'no longer kept'}")
    training = model["training"]
    trained = branch.add(
        f"trained on {training['window']}, {counted(training['rows'], 'row')} of release {training['release_id']}, "
        f"seed {training['seed']}, code {short(training['code_version'])}, rows' hash {training['input_sha256'][:12]}, "
        f"uv.lock {training['lock_sha256'][:12]}, {training['environment']}; MLflow run {model['mlflow_run_id']}"
    )
    for each in training["inputs"]:
        _add_input(trained, each)
    return tree


TECHNICAL = {
    "prediction_id", "score", "decision", "model_name", "model_version", "role", "run_id", "release_id", "scored_at",
}  # fmt: skip


def _add_reasons(tree: Tree, reasons: dict[str, Any]) -> None:
    if reasons["gone"]:
        branch = tree.add(escape(f"reasons: {reasons['gone']}"))
        for each in reasons["contributions"]:
            branch.add(escape(_value(each)))
        return
    branch = tree.add(f"reasons ({reasons['method']}, in {reasons['unit']}; an average row has {reasons['base']:+.3f})")
    for each in reasons["contributions"][:REASONS]:
        branch.add(escape(f"{each['contribution']:+.3f}  {_value(each)}"))
    if rest := reasons["contributions"][REASONS:]:
        branch.add(f"{sum(each['contribution'] for each in rest):+.3f}  {counted(len(rest), 'other')}")


def _value(each: dict[str, Any]) -> str:
    value = "null" if each["value"] is None else each["value"]
    return f"{each['feature']} = {f'{value:.4g}' if isinstance(value, float) else value}"


def _add_input(tree: Tree, each: dict[str, Any]) -> None:
    branch = tree.add(
        f"[cyan]{each['table']}[/] version {each['version']}, days {each['days']}"
        f"{_released(each['release'])}; {_gate(each['gate'])}"
    )
    for broken in (each["gate"] or {}).get("broken", [])[:BROKEN]:
        branch.add(escape(f"broken: {broken}"))
    for write in each["writes"]:
        files = write.get("files")
        below = branch.add(f"days {write['days']}: {_write(write)}{_overridden(write, each)}")
        if files and len(files) > FILES:
            rows = counted(sum(file.get("rows") or 0 for file in files), "row")
            below.add(f"{len(files)} files, {files[0]['day']} to {files[-1]['day']}, {rows}: --json lists them")
        for file in (files or []) if len(files or []) <= FILES else ():
            rows = counted(file["rows"], "row") if file.get("rows") is not None else "? rows"
            facts = f", {counted(file['bytes'], 'byte')}, sha256 {file['sha256']}" if "sha256" in file else ""
            below.add(escape(f"{file['file']}: {rows}{facts}"))
        for one in write.get("inputs", []):
            _add_input(below, one)


def _overridden(write: dict[str, Any], read: dict[str, Any]) -> str:
    """That a write was released against its gate, where that is not said of the version that holds its rows."""
    release = write["release"]
    if release is None or not release["override_of"] or release == read["release"]:
        return ""
    return f"{_released(release)}; {_gate(write['gate'])}"


def _write(write: dict[str, Any]) -> str:
    run = write["run"]
    text = f"{write['step']} {write['interval'] or ''} as version {write['version']}"
    if run is None:
        return f"{text} (its run left no record)"
    by = f"{run['airflow_dag_id']} {run['airflow_run_id']}" if run["airflow_dag_id"] else "by hand"
    return escape(f"{text}, run {run['run_id']} ({by}), code {short(run['code_version'])}")


def _made_with(surroundings: dict[str, str] | None) -> str:
    if surroundings is None:  # a scoring of a time when it was not recorded
        return ""
    return f", uv.lock {surroundings['lock_sha256'][:12]}, {escape(surroundings['environment'])}"


def _gate(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "no gate verdict"
    rules = counted(verdict["rules"], "rule holds", "rules hold")
    held = verdict["rules"] - len(verdict["broken"]) - len(verdict["not_judged"])
    others = f", {len(verdict['not_judged'])} not judged: too little history" if verdict["not_judged"] else ""
    return f"gate {verdict['verdict']}: {held} of {rules}{others}"


def _released(release: dict[str, Any] | None, by: str = "") -> str:
    if release is None:
        return ", not released"
    if release["override_of"]:
        return escape(
            f", {by}release {release['release_id']}, an OVERRIDE of gate {release['override_of']} by "
            f"{release['released_by']}: {release['reason']}"
        )
    return f", {by}release {release['release_id']}"


def of_impact(found: Impact) -> Tree:
    """What was made from something.

    Args:
        found: Outcome of :func:`lakehouse.provenance.impact.impact`.
    """
    tree = Tree(
        f"[bold]{escape(found.what)}[/] ({found.kind}): "
        + ("readers still see something of it" if found.visible else "readers see nothing of it")
    )
    for each in found.landings:
        text = f"landed by run {each['run_id']} at {each['ended_at']:%Y-%m-%d %H:%M} UTC: {each['status']}, sha256 "
        branch = tree.add(
            escape(f"{text}{each['sha256']}, {counted(each['rows_quarantined'] or 0, 'row')} quarantined")
        )
        if each["error"]:
            branch.add(escape(str(each["error"]).splitlines()[0]))
    for columns, how in (
        (found.columns, "made from it"),
        (found.columns_by_condition, "of which it only decides the rows"),
    ):
        if columns:
            branch = tree.add(f"{counted(len(columns), 'column')} {how}")
            for column in columns:
                branch.add(column)
    if found.tables:
        branch = tree.add(
            counted(len(found.tables), "table")
            if found.kind == "column"
            else counted(len(found.tables), "write of a table", "writes of tables")
        )
        for each in found.tables:
            branch.add(
                f"[cyan]{each['table']}[/] version {each['version']} ({each['step']}), days {each['days']}; "
                f"{visibility(each)}; shown by {_releases(each['releases'])}"
            )
    branch = tree.add(counted(len(found.models), "model version"))
    for each in found.models:
        detail = f", inputs {', '.join(each['inputs'])}" if each.get("inputs") else ""
        detail += f", label {', '.join(each['label'])}" if each.get("label") else ""
        trained = f", trained on {', '.join(each['trained_on'])}" if each["trained_on"] else ""
        branch.add(
            f"{each['name']} version {each['version']} ({', '.join(each['roles_now']) or 'no role'}){trained}{detail}"
        )
    rows, visible = (sum(each[name] or 0 for each in found.predictions) for name in ("rows_written", "rows_visible"))
    branch = tree.add(
        f"{counted(len(found.predictions), 'scoring')} of {counted(rows, 'row')}; of the affected days "
        f"{counted(visible, 'row is', 'rows are')} visible"
    )
    for each in found.predictions:
        below = branch.add(
            f"[cyan]{each['table']}[/] {each['days']} by version {each['model_version']}, through {each['because']}: "
            f"{each['rows_visible']} visible; shown by {_releases(each['releases'])}"
        )
        below.add(escape(each["query"]))
    if found.overrides:
        branch = tree.add("published against a gate")
        for each in found.overrides:
            branch.add(
                escape(f"release {each['release_id']} of {each['table']} by {each['released_by']}: {each['reason']}")
            )
    if found.unknown:
        branch = tree.add("not known")
        for words in found.unknown:
            branch.add(escape(words))
    return tree


def visibility(each: dict[str, Any]) -> str:
    """Whether readers still see something of a table, in words.

    Args:
        each: One of the ``tables`` of an impact.
    """
    if each["visible_days"]:
        return f"visible: {each['visible_days']}"
    if each.get("without_rows"):
        return "visible, with no rows of these days"
    return "no longer visible" if each["releases"] else "never visible"


def _releases(ids: list[int]) -> str:
    if not ids:
        return "no release"
    if len(ids) == 1:
        return f"release {ids[0]}"
    if len(ids) == 2:
        return f"releases {ids[0]} and {ids[1]}"
    return f"{len(ids)} releases between {ids[0]} and {ids[-1]}"
