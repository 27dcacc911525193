"""Compilation: a fitted pipeline as a :class:`lakehouse.ml.compiled.Form`, used only when it is proven equal.

Known are linear models on sparse input and histogram gradient boosting, behind a ``ColumnTransformer`` of imputers,
scalers, bins and encoders of names. What an encoder makes of a name is not derived from its settings but asked of it,
name by name. A pipeline of another kind is served as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lakehouse.ml import compiled
from lakehouse.ml.compiled import Form, UnfitError
from lakehouse.ml.scoring import model_input, predict

if TYPE_CHECKING:
    import pyarrow as pa
    from sklearn.pipeline import Pipeline

    from lakehouse.ml.model_spec import ModelSpec

MOST_LEAVES = 64
DISTURBED_ROWS = 2000
STRANGE = "a name that no row of the training had"


class NotCompiledError(Exception):
    """There is no compiled form of a pipeline; the message says why."""


def attempt(fitted: Pipeline, frame: pd.DataFrame, spec: ModelSpec) -> tuple[bytes, str]:
    """The bytes of a pipeline's compiled form if there is one and it is equal, and what was found.

    Args:
        fitted: A fitted pipeline.
        frame: Rows of the features table to prove it on.
        spec: The model.
    """
    features = spec.features
    try:
        payload = prove(fitted, frame, list(features.numeric), list(features.categorical), spec.task)
    except NotCompiledError as error:
        return b"", f"none: {error}"
    return payload, f"equal on {len(frame)} rows"


def scorer(fitted: Pipeline, payload: bytes, spec: ModelSpec) -> Callable[[pd.DataFrame], Any]:
    """What scores a model's inputs: the compiled form where there is one, which is the fastest; else the pipeline.

    Args:
        fitted: A fitted pipeline.
        payload: The bytes of its form; may be empty.
        spec: The model.
    """
    import pyarrow as pa

    def score(inputs: pd.DataFrame) -> Any:
        if payload:
            with suppress(UnfitError):
                return compiled.score(compiled.load(payload), pa.RecordBatch.from_pandas(inputs, preserve_index=False))
        return predict(fitted, inputs, spec.task)

    return score


def prove(fitted: Pipeline, frame: pd.DataFrame, numeric: list[str], categorical: list[str], task: str) -> bytes:
    """Compile a pipeline, and make sure that its form gives the same scores, bit for bit.

    Compared are all given rows, and some of them with nulls and unknown names strewn in; as a whole, and in batches of
    other sizes.

    Args:
        fitted: A fitted pipeline.
        frame: Rows of the features table.
        numeric: Input columns that are numbers.
        categorical: Input columns that are names.
        task: ``classification`` or ``regression``.

    Returns:
        The form's bytes.

    Raises:
        NotCompiledError: The pipeline is of another kind, or a score differs.
    """
    import pyarrow as pa

    payload = compile_(fitted, numeric, categorical, task).dump()
    form = compiled.load(payload)
    for rows in (frame, _disturbed(frame, numeric, categorical)):
        inputs = model_input(rows, numeric, categorical)
        batch = pa.RecordBatch.from_pandas(rows[[*numeric, *categorical]], preserve_index=False)
        try:
            expected = predict(fitted, inputs, task)
        except ValueError:
            _check_refused(form, batch)
            continue
        for size in (len(rows), 1000, 7):
            part = batch.slice(0, size)
            try:
                found = compiled.score(form, part)
            except UnfitError:
                raise NotCompiledError("the compiled form cannot score all rows of the training") from None
            if found.tobytes() != expected[: part.num_rows].tobytes():
                off = np.abs(found - expected[: part.num_rows])
                raise NotCompiledError(f"{(off > 0).sum()} of {part.num_rows} scores differ, by {off.max():g} at most")
    return payload


def compile_(fitted: Pipeline, numeric: list[str], categorical: list[str], task: str) -> Form:
    """The compiled form of a pipeline, not yet proven.

    Args:
        fitted: A fitted pipeline.
        numeric: Input columns that are numbers.
        categorical: Input columns that are names.
        task: ``classification`` or ``regression``.

    Raises:
        NotCompiledError: The pipeline is of a kind that is not known here.
    """
    if len(fitted) != 2 or _kind(fitted[0]) != "ColumnTransformer":
        raise NotCompiledError("its steps are not a ColumnTransformer and an estimator")
    encoder, final = fitted[0], fitted[-1]
    blocks = [
        block
        for name, transformer, columns in encoder.transformers_
        if not (isinstance(transformer, str) and transformer == "drop") and len(columns)
        for block in _blocks(transformer, list(columns), numeric, categorical)
    ]
    width = sum(1 if block["kind"] == "number" else _width(block["table"]) for block in blocks)
    if _kind(final) in ("LogisticRegression", "Ridge", "LinearRegression", "ElasticNet", "Lasso"):
        if not encoder.sparse_output_:
            raise NotCompiledError("a linear model on a dense matrix rounds by the shape of its batch")
        return Form(task, tuple(blocks), _linear(final, width, blocks))
    if _kind(final) in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        return Form(task, tuple(blocks), _trees(final, width))
    raise NotCompiledError(f"{_kind(final)} is not known")


def _check_refused(form: Form, batch: pa.RecordBatch) -> None:
    try:
        compiled.score(form, batch)
    except UnfitError:
        return
    raise NotCompiledError("the compiled form scores rows that the pipeline refuses")


def _blocks(transformer: Any, columns: list[Any], numeric: list[str], categorical: list[str]) -> list[dict[str, Any]]:
    if _kind(transformer) in ("OneHotEncoder", "OrdinalEncoder"):
        if not set(columns) <= set(categorical):
            raise NotCompiledError(f"{_kind(transformer)} of numbers is not known")
        return [_names(transformer, columns, place) for place in range(len(columns))]
    if not set(columns) <= set(numeric):
        raise NotCompiledError(f"{_kind(transformer)} of names is not known")
    steps = [step for _, step in transformer.steps] if _kind(transformer) == "Pipeline" else [transformer]
    blocks: list[dict[str, Any]] = [{"input": name, "kind": "number", "steps": []} for name in columns]
    for step in steps:
        if any(block["kind"] == "bins" for block in blocks):
            raise NotCompiledError(f"{_kind(step)} of bins is not known")
        for place, block in enumerate(blocks):
            _add(step, place, block)
    return blocks


def _add(step: Any, place: int, block: dict[str, Any]) -> None:
    kind, steps = _kind(step), block["steps"]
    if kind == "FunctionTransformer" and step.func is None:
        return
    if kind == "SimpleImputer" and not step.add_indicator:
        if not np.isfinite(step.statistics_).all():
            raise NotCompiledError(f"{block['input']} is null in every row of the training")
        steps.append(["fill", float(step.statistics_[place])])
    elif kind == "StandardScaler":
        steps += [["subtract", float(step.mean_[place])]] if step.with_mean else []
        steps += [["divide", float(step.scale_[place])]] if step.with_std else []
    elif kind == "RobustScaler":
        steps += [["subtract", float(step.center_[place])]] if step.with_centering else []
        steps += [["divide", float(step.scale_[place])]] if step.with_scaling else []
    elif kind == "KBinsDiscretizer" and step.encode.startswith("onehot"):
        block |= {
            "kind": "bins",
            "edges": step.bin_edges_[place][1:-1].tolist(),
            "table": np.eye(int(step.n_bins_[place])).tolist(),
        }
    else:
        raise NotCompiledError(f"{kind} is not known")


def _names(encoder: Any, columns: list[str], place: int) -> dict[str, Any]:
    """What an encoder makes of each name that it knows, of another, and of null."""
    values = [value for value in encoder.categories_[place] if not _null(value)]
    if not all(isinstance(value, (str, int, float)) for value in values):
        raise NotCompiledError(f"{columns[place]} holds names that are neither text nor numbers")
    # The other columns get a name that they know; what they are encoded as is cut away.
    usual = [next((v for v in known if not _null(v)), np.nan) for known in encoder.categories_]
    start = _widths(encoder, columns)[:place]
    first, width = sum(start), _widths(encoder, columns)[place]
    table: list[list[float] | None] = []
    for value in [*values, STRANGE, np.nan]:
        row = [*usual]
        row[place] = value
        try:
            made = encoder.transform(pd.DataFrame([row], columns=columns, dtype=object))
        except ValueError:
            table.append(None)
            continue
        made = np.asarray(made.toarray() if hasattr(made, "toarray") else made, dtype="float64")
        table.append(made[0, first : first + width].tolist())
    return {"input": columns[place], "kind": "names", "values": [_plain(value) for value in values], "table": table}


def _widths(encoder: Any, columns: list[str]) -> list[int]:
    if _kind(encoder) == "OrdinalEncoder":
        return [1] * len(columns)
    return [int(width) for width in encoder._n_features_outs]


def _linear(final: Any, width: int, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    weights, intercept = np.ravel(final.coef_), np.ravel(final.intercept_)
    if len(weights) != width or len(intercept) != 1:
        raise NotCompiledError(f"{len(weights)} weights for {width} columns")
    for block in blocks:
        if any(np.count_nonzero(row) > 1 for row in block.get("table", ()) if row is not None):
            raise NotCompiledError(f"a name of {block['input']} is encoded by several numbers")
    return {"kind": "linear", "weights": weights.tolist(), "intercept": float(intercept[0])}


def _trees(final: Any, width: int) -> dict[str, Any]:
    if final._preprocessor is not None or final.n_features_in_ != width:
        raise NotCompiledError("its trees see other columns than the encoder makes")
    if final.n_trees_per_iteration_ != 1 or _kind(final._loss.link) not in ("LogitLink", "IdentityLink"):
        raise NotCompiledError(f"{final.loss} is not known")
    trees = [_tree(predictor.nodes) for (predictor,) in final._predictors]
    used = sorted({node[0] for tree in trees for node in tree["nodes"]})
    return {"kind": "trees", "base": float(final._baseline_prediction.ravel()[0]), "trees": trees, "columns": used}


def _tree(nodes: Any) -> dict[str, Any]:
    """Inner nodes as (column, threshold, whether null goes left, bits of the leaves on the left); values of leaves."""
    leaves: list[float] = []
    inner: list[list[Any]] = []

    def walk(place: int) -> int:
        node = nodes[place]
        if node["is_leaf"]:
            leaves.append(float(node["value"]))
            return 1 << (len(leaves) - 1)
        if node["is_categorical"]:
            raise NotCompiledError("trees that split by sets of categories are not known")
        entry: list[Any] = [int(node["feature_idx"]), float(node["num_threshold"]), bool(node["missing_go_to_left"]), 0]
        inner.append(entry)
        entry[3] = walk(int(node["left"]))
        return int(entry[3]) | walk(int(node["right"]))

    walk(0)
    if len(leaves) > MOST_LEAVES:
        raise NotCompiledError(f"a tree has {len(leaves)} leaves; up to {MOST_LEAVES} are known")
    return {"nodes": inner, "leaves": leaves}


def _disturbed(frame: pd.DataFrame, numeric: list[str], categorical: list[str]) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = frame[[*numeric, *categorical]].sample(min(DISTURBED_ROWS, len(frame)), random_state=0).astype(object)
    for name in numeric:
        rows[name] = pd.to_numeric(rows[name].where(random.random(len(rows)) > 0.3, np.nan), errors="coerce")
    for name in categorical:
        rows[name] = rows[name].where(random.random(len(rows)) > 0.3, None)
        if rows[name].map(lambda value: value is None or isinstance(value, str)).all():
            rows[name] = rows[name].where(random.random(len(rows)) > 0.3, STRANGE)
    return rows


def _kind(estimator: Any) -> str:
    return type(estimator).__name__


def _width(table: list[Any]) -> int:
    return max(len(row) for row in table if row is not None)


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
