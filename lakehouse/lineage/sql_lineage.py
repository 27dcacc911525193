"""What the columns of a query are made from: read out of the SQL, without an engine.

sqlglot parses, resolves every name and expands the stars; the scopes that it finds are walked here, because
``sqlglot.lineage`` does not tell a column whose value goes in from one that only decides which value does.
The words are OpenLineage's (its facet ColumnLineageDatasetFacet).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

from lakehouse.errors import LakeError
from lakehouse.tables import GATED_LAYERS, VIEW_LAYER

Kind = Literal["direct", "indirect"]

_DIRECT = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")
"""In the order of how far the value is from what it is made from."""

_POSITIONAL = (exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.NthValue)
"""Window functions that give a value of another row, and not one made of several."""

_AGGREGATES = {
    *("count_min_sketch", "every", "grouping", "histogram_numeric", "mean", "product", "some", "std"),
    *("bitmap_construct_agg", "bitmap_or_agg", "hll_sketch_agg", "hll_union_agg", "try_avg", "try_sum"),
}
"""Aggregate functions of Spark that sqlglot has no class for."""

_GENERATORS = ("explode", "inline", "posexplode", "stack")
"""Functions that make rows, of which it is known what goes into which column."""


_UNRESOLVED = re.compile(r"Column '(.*)' could not be resolved\. Line: (\d+), Col: (\d+)")


class LineageError(LakeError, ValueError):
    """The columns of a query cannot be traced; the message names what is made, the place and the reason."""


@dataclass(frozen=True, order=True)
class Edge:
    """A column that another one is made from, one step before.

    Attributes:
        table: What is made, by the name that readers use.
        column: Its column.
        source_table: What it is made from.
        source_column: Its column.
        kind: ``direct``: the value goes in; ``indirect``: it only decides which value does.
        transformation: OpenLineage's subtype: ``IDENTITY``, ``TRANSFORMATION`` or ``AGGREGATION`` of a direct
            edge; ``CONDITIONAL``, ``WINDOW`` or ``SORT`` of an indirect one.
    """

    table: str
    column: str
    source_table: str
    source_column: str
    kind: Kind
    transformation: str


@dataclass(frozen=True, order=True)
class Condition:
    """A column that decides about the rows of a table, and so about each of its columns.

    Attributes:
        table: What is made, by the name that readers use.
        source_table: What decides.
        source_column: Its column.
        transformation: OpenLineage's subtype: ``FILTER``, ``JOIN``, ``GROUP_BY`` or ``SORT``.
    """

    table: str
    source_table: str
    source_column: str
    transformation: str


@dataclass(frozen=True)
class QueryLineage:
    """What is known of a query's columns.

    Attributes:
        columns: The columns that it makes, in order; of a MERGE those that it writes.
        edges: What each of them is made from.
        conditions: What decides about the rows.
    """

    columns: tuple[str, ...]
    edges: tuple[Edge, ...]
    conditions: tuple[Condition, ...]


class _Flow(NamedTuple):
    table: str
    column: str
    kind: Kind
    transformation: str


_Flows = frozenset[_Flow]
_NONE: _Flows = frozenset()


def edges_of_query(query: str, target: str, columns: Mapping[str, Sequence[str]]) -> list[Edge]:
    """What each column that a statement makes is made from.

    Args:
        query: One query, or one ``merge into``, in Spark SQL.
        target: The table that it makes, by the name that readers use.
        columns: The columns of every table that it reads, by the names that readers use (and of the one that a
            MERGE writes).

    Raises:
        LineageError: It cannot be understood.
    """
    return list(lineage_of_query(query, target, columns).edges)


def conditions_of_query(query: str, target: str, columns: Mapping[str, Sequence[str]]) -> list[Condition]:
    """What decides about the rows that a statement makes: filters, joins, groups and sorts, those of its CTEs too.

    Args:
        query: One query, or one ``merge into``, in Spark SQL.
        target: The table that it makes, by the name that readers use.
        columns: As in :func:`edges_of_query`.

    Raises:
        LineageError: It cannot be understood.
    """
    return list(lineage_of_query(query, target, columns).conditions)


def lineage_of_query(query: str, target: str, columns: Mapping[str, Sequence[str]]) -> QueryLineage:
    """Columns, edges and conditions of a statement at once.

    Args:
        query: One query, or one ``merge into``, in Spark SQL.
        target: The table that it makes, by the name that readers use.
        columns: As in :func:`edges_of_query`.

    Raises:
        LineageError: It cannot be understood.
    """
    statement = _parse(query, target)
    if isinstance(statement, exp.Merge):
        outputs, rows = _merge(statement, target, columns)
    else:
        walk = _Walk(statement, target, columns)
        outputs, rows = walk.outputs(), walk.conditions()
    return QueryLineage(
        tuple(outputs),
        tuple(sorted({Edge(target, name, *flow) for name, flows in outputs.items() for flow in _merged(flows)})),
        tuple(sorted({Condition(target, flow.table, flow.column, flow.transformation) for flow in rows})),
    )


def _parse(query: str, target: str) -> exp.Query | exp.Merge:
    try:
        trees = [tree for tree in sqlglot.parse(query, read="spark") if tree]
    except SqlglotError as error:
        raise LineageError(f"{target}: the SQL cannot be understood: {_reason(error)}") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query | exp.Merge):
        raise LineageError(f"{target}: columns are traced through one query (select …) or one MERGE, and nothing else.")
    tree = trees[0]
    for table in tree.find_all(exp.Table):
        # What readers call gold.x is stored, and written, as gold_next.x.
        layer = table.db.lower().removesuffix("_next")
        if table.db and layer in (*GATED_LAYERS, VIEW_LAYER):
            table.set("db", exp.to_identifier(layer))
    return tree


def _reason(error: SqlglotError) -> str:
    found = getattr(error, "errors", None)
    if found and found[0].get("line"):
        return f"line {found[0]['line']}, column {found[0]['col']}: {found[0]['description']}"
    text = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0]
    if unresolved := _UNRESOLVED.match(text):
        column, line, position = unresolved.groups()
        return f"line {line}, column {position}: {column} is a column of none of the tables read here, or of several"
    return text


def _place(node: exp.Expr) -> str:
    for each in node.find_all(exp.Identifier):
        if "line" in each.meta:
            return f"line {each.meta['line']}, column {each.meta['col']}"
    return f"in {node.sql('spark')[:80]!r}"


def _merge(merge: exp.Merge, target: str, columns: Mapping[str, Sequence[str]]) -> tuple[dict[str, _Flows], set[_Flow]]:
    """A MERGE is traced as the queries whose rows its clauses write."""
    into, using, on = merge.this, merge.args["using"], merge.args["on"]

    def walk(values: dict[str, exp.Expr], *sources: exp.Expr) -> _Walk:
        named = [exp.alias_(value.copy(), name) for name, value in values.items()]
        query = exp.select(*named or [exp.Star()]).from_(sources[0].copy())
        for source in sources[1:]:
            query = query.join(source.copy(), on=on.copy())
        if merge.args.get("with_"):
            query.set("with_", merge.args["with_"].copy())
        return _Walk(query, target, columns)

    both = walk({"_one": exp.Literal.number(1)}, into, using)
    rows = both.conditions()
    outputs: dict[str, set[_Flow]] = {}
    known = {name.lower() for name in columns[_name(into)]}
    for when in merge.args["whens"].expressions:
        then, condition = when.args["then"], when.args.get("condition")
        # An unmatched row is one of the source alone, or with BY SOURCE one of the target alone.
        unmatched = into if when.args.get("source") else using
        sources = [into, using] if when.args.get("matched") else [unmatched]
        if not isinstance(then, exp.Update | exp.Insert):
            if condition is not None:
                rows |= _indirect(walk({"_condition": condition}, *sources).outputs()["_condition"], "FILTER")
            continue
        starred = isinstance(then.this, exp.Star) or isinstance((then.expressions or [None])[0], exp.Star)
        if starred:
            alias = using.alias_or_name
            names = [name for name in walk({}, using).outputs() if name in known]
            if not names:
                raise LineageError(f"{target}: the MERGE copies all columns, but {alias} has none of {_name(into)}'s.")
            values: dict[str, exp.Expr] = {name: exp.column(name, table=alias) for name in names}
        elif isinstance(then, exp.Update):
            values = {each.this.name.lower(): each.expression for each in then.expressions}
        else:
            written = [each.name.lower() for each in then.this.expressions]
            values = dict(zip(written, then.expression.expressions, strict=True))
        unknown = sorted(set(values) - known)
        if unknown:
            raise LineageError(f"{target}: the MERGE writes {', '.join(unknown)}, which {_name(into)} does not have.")
        decided = {"_condition": condition} if condition is not None else {}
        found = walk(values | decided, *sources).outputs()
        for name in values:
            decisive = _indirect(found.get("_condition", _NONE), "CONDITIONAL")
            outputs.setdefault(name, set()).update(found[name] | decisive)
    return {name: frozenset(flows) for name, flows in outputs.items()}, rows


class _Walk:
    """The scopes of one query, from its output to the columns of the tables that it reads."""

    def __init__(self, query: exp.Query, target: str, columns: Mapping[str, Sequence[str]]) -> None:
        self.target = target
        query = normalize_identifiers(query, dialect="spark")
        self._refuse_unknown(query, columns)
        for join in query.find_all(exp.Join):
            # Resolving replaces USING by ON, and loses which of the columns a name stands for.
            if join.args.get("using"):
                join.meta["using"] = [identifier.name for identifier in join.args["using"]]
        schema: dict[str, Any] = {}
        for name, names in columns.items():
            layer, dot, table = name.rpartition(".")
            (schema.setdefault(layer, {}) if dot else schema)[table] = dict.fromkeys(names, "string")
        try:
            qualified = qualify(query, schema=schema, dialect="spark", quote_identifiers=False)
            scope = build_scope(qualified)
        except SqlglotError as error:
            raise LineageError(f"{target}: the SQL cannot be understood: {_reason(error)}") from error
        if scope is None:
            raise self._error(query, "this is not a query")
        self.root = scope
        self._known: dict[tuple[int, int], _Flows] = {}

    def outputs(self) -> dict[str, _Flows]:
        """Column of the output to what it is made from."""
        names = self._names(self.root)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise LineageError(f"{self.target}: the query makes two columns of the name {', '.join(twice)}.")
        return {name: self._output(self.root, position) for position, name in enumerate(names)}

    def conditions(self) -> set[_Flow]:
        """What decides about the rows of the output."""
        found: set[_Flow] = set()
        for scope in self._reached(self.root):
            found |= self._decisive(scope)
        return found

    def _error(self, node: exp.Expr, reason: str) -> LineageError:
        return LineageError(f"{self.target}: {_place(node)}: {reason}.")

    def _refuse_unknown(self, query: exp.Query, columns: Mapping[str, Sequence[str]]) -> None:
        known = {name.lower() for name in columns}
        ctes = {cte.alias for cte in query.find_all(exp.CTE)}
        for clause in query.find_all(exp.With):
            if clause.args.get("recursive"):
                raise self._error(clause, "columns are not traced through a recursive query")
        for pivot in query.find_all(exp.Pivot):
            raise self._error(pivot.parent or pivot, "columns are not traced through PIVOT; write the cases out")
        for table in query.find_all(exp.Table):
            if not isinstance(table.this, exp.Identifier):
                raise self._error(table, "columns are not traced through a table function; use lateral view")
            if _name(table) not in known and not (not table.db and table.name in ctes):
                raise self._error(table, f"the columns of {_name(table)} are not known")

    def _reached(self, scope: Scope) -> Iterator[Scope]:
        """The scopes that the output depends on: a CTE that nobody reads does not count."""
        seen: dict[int, Scope] = {}
        waiting = [scope]
        while waiting:
            each = waiting.pop()
            if id(each) not in seen:
                seen[id(each)] = each
                waiting += [*each.set_operation_scopes, *each.subquery_scopes]
                waiting += [source for source in self._sources(each).values() if isinstance(source, Scope)]
        return iter(seen.values())

    @staticmethod
    def _sources(scope: Scope) -> dict[str, exp.Table | Scope]:
        """What a scope itself reads: of ``sources`` also holds every CTE that it could read."""
        return {name: scope.sources[name] for name, _ in scope.references if name in scope.sources}

    def _decisive(self, scope: Scope) -> set[_Flow]:
        select = scope.expression
        found: set[_Flow] = set()

        def add(nodes: Iterable[exp.Expr | None], transformation: str) -> None:
            for node in nodes:
                if node is not None:
                    found.update(_indirect(self._flows(node, scope), transformation))

        if isinstance(select, exp.SetOperation):
            # All but UNION ALL compare the rows of both sides, column by column.
            if select.args.get("distinct") or not isinstance(select, exp.Union):
                for side in scope.set_operation_scopes:
                    for position in range(len(self._names(scope))):
                        found |= _indirect(self._output(side, position), "GROUP_BY")
        elif isinstance(select, exp.Select):
            args = select.args
            add((args.get(name) for name in ("where", "having", "qualify")), "FILTER")
            add((join.args.get("on") for join in args.get("joins") or ()), "JOIN")
            group = args.get("group")
            if group and group.args.get("all"):
                add((each for each in select.selects if not each.find(exp.AggFunc)), "GROUP_BY")
            add([group], "GROUP_BY")
            if args.get("distinct"):
                add(select.selects, "GROUP_BY")
        add((select.args.get(name) for name in ("order", "sort", "cluster", "distribute")), "SORT")
        return found

    def _names(self, scope: Scope) -> list[str]:
        query = scope.expression
        if isinstance(query, exp.Query):
            return list(query.named_selects)
        if isinstance(query, exp.Lateral) and isinstance(query.this, exp.Subquery):
            return list(query.this.named_selects)
        alias = query.args.get("alias")
        return [column.name for column in alias.columns] if alias else []

    def _output(self, scope: Scope, position: int) -> _Flows:
        key = (id(scope), position)
        if key not in self._known:
            self._known[key] = self._trace(scope, position)
        return self._known[key]

    def _trace(self, scope: Scope, position: int) -> _Flows:
        query = scope.expression
        if isinstance(query, exp.SetOperation):
            # What EXCEPT leaves is of its left side alone.
            sides = scope.set_operation_scopes[: 1 if isinstance(query, exp.Except) else None]
            return frozenset().union(*(self._output(side, position) for side in sides))
        if isinstance(query, exp.Subquery):
            # A query in parentheses, as one side of a union.
            inner = query.unnest()
            for each in (*scope.subquery_scopes, *scope.derived_table_scopes):
                if each.expression is inner:
                    return self._output(each, position)
            raise self._error(query, "the query in parentheses cannot be traced")
        if isinstance(query, exp.Select):
            return self._flows(query.selects[position], scope)
        if isinstance(query, exp.Values):
            return frozenset().union(*(self._flows(row, scope) for row in query.expressions))
        if isinstance(query, exp.Lateral):
            return self._generated(query, scope, position)
        raise self._error(query, f"columns are not traced through {query.key.upper()}")

    def _generated(self, lateral: exp.Lateral, scope: Scope, position: int) -> _Flows:
        """A column of a lateral view: the values that a generator makes rows of."""
        function = lateral.this
        if isinstance(function, exp.Subquery):
            inner = [each for each in scope.subquery_scopes if each.expression is function.unnest()]
            if inner:
                return self._output(inner[0], position)
            raise self._error(lateral, "the lateral query cannot be traced")
        width = len(self._names(scope))
        chosen = _fields(function, position, width)
        parts = [function] if chosen is None else chosen
        return _direct(frozenset().union(*(self._flows(part, scope) for part in parts)), "TRANSFORMATION")

    def _column(self, column: exp.Column, scope: Scope) -> _Flows:
        if not column.table:
            # Of ORDER BY and the like: the name of an output.
            names = self._names(scope)
            if column.name in names:
                return self._output(scope, names.index(column.name))
            raise self._error(column, f"{column.name} is no column of what is read here")
        within: Scope | None = scope
        while within is not None:
            source = self._sources(within).get(column.table) or within.lateral_sources.get(column.table)
            if isinstance(source, exp.Table):
                return frozenset({_Flow(_name(source), column.name, "direct", "IDENTITY")})
            if isinstance(source, Scope):
                names = self._names(source)
                if column.name in names:
                    return self._output(source, names.index(column.name))
                break
            within = within.parent
        raise self._error(column, f"{column.sql('spark')} is no column of what is read here")

    def _flows(self, node: exp.Expr, scope: Scope) -> _Flows:
        """What the value of an expression is made from."""

        def of(*parts: exp.Expr | None) -> _Flows:
            return frozenset().union(*(self._flows(part, scope) for part in parts if part is not None))

        args: Mapping[str, Any] = node.args
        match node:
            case exp.Column():
                return self._column(node, scope)
            case exp.Alias() | exp.Paren() | exp.Ordered() | exp.Where() | exp.Having():
                return of(node.this)
            case exp.Case():
                conditions = [args.get("this"), *(branch.this for branch in args["ifs"])]
                values = [*(branch.args["true"] for branch in args["ifs"]), args.get("default")]
                return _indirect(of(*conditions), "CONDITIONAL") | _direct(of(*values), "TRANSFORMATION")
            case exp.If() | exp.Nvl2():
                values = [args.get("true"), args.get("false")]
                return _indirect(of(node.this), "CONDITIONAL") | _direct(of(*values), "TRANSFORMATION")
            case exp.DecodeCase():
                compared, *rest = node.expressions
                *pairs, default = rest if len(rest) % 2 else [*rest, None]
                conditions, values = [compared, *pairs[::2]], [*pairs[1::2], default]
                return _indirect(of(*conditions), "CONDITIONAL") | _direct(of(*values), "TRANSFORMATION")
            case exp.Filter():
                return of(node.this) | _indirect(of(node.expression), "CONDITIONAL")
            case exp.ArrayFilter():
                kept = _direct(of(node.this), "TRANSFORMATION")
                return kept | _indirect(of(node.expression), "CONDITIONAL")
            case exp.Window():
                return of(node.this) | _indirect(of(*self._window(node, scope)), "WINDOW")
            case exp.WithinGroup():
                order = of(node.expression)
                if isinstance(node.this, exp.PercentileCont | exp.PercentileDisc | exp.Mode):
                    return _direct(order, "AGGREGATION")
                return of(node.this) | _indirect(order, "SORT")
            case exp.Order():
                # Within an aggregate it has the value as `this`; as a clause it has none.
                sorts = of(*node.expressions)
                return of(node.this) | _indirect(sorts, "SORT") if node.this else sorts
            case exp.ArgMax() | exp.ArgMin():
                return _direct(of(node.this), "AGGREGATION") | _indirect(of(node.expression), "SORT")
            case exp.Coalesce() if (column := self._using(node, scope)) is not None:
                return of(*column)
            case exp.Subquery():
                return self._subquery(node.unnest(), scope)
            case exp.Exists() if isinstance(node.this, exp.Query | exp.Subquery):
                return self._matching(node.this, scope)
            case exp.In() if args.get("query"):
                matching = self._matching(args["query"], scope)
                compared_with = self._subquery(args["query"].unnest(), scope)
                return _direct(of(node.this) | compared_with, "TRANSFORMATION") | matching
            case exp.Query():
                return self._subquery(node, scope)
        return _direct(of(*node.iter_expressions()), "AGGREGATION" if _aggregates(node) else "TRANSFORMATION")

    def _window(self, window: exp.Window, scope: Scope) -> list[exp.Expr | None]:
        """What a window is partitioned, ordered and bounded by, the named one that it refers to included."""
        args = window.args
        parts: list[exp.Expr | None] = [*(args.get("partition_by") or ()), args.get("order"), args.get("spec")]
        name = args["alias"].name if args.get("alias") else None
        if name:
            named = {each.this.name: each for each in scope.expression.args.get("windows") or ()}
            if name not in named:
                raise self._error(window, f"there is no window {name}")
            parts += self._window(named[name], scope)
        return parts

    def _using(self, coalesce: exp.Coalesce, scope: Scope) -> list[exp.Expr] | None:
        """What a column of JOIN … USING stands for; None when it is not that of one.

        Resolving makes ``coalesce(a.x, b.x)`` of it, but of a left join it is a's, and of an inner one they are equal.
        """
        operands = [coalesce.this, *coalesce.expressions]
        name = coalesce.this.name
        if not all(isinstance(each, exp.Column) and each.table and each.name == name for each in operands):
            return None
        joins = [join for join in scope.expression.args.get("joins") or () if name in join.meta.get("using", ())]
        if not joins:
            return None
        by_table = {each.table: each for each in operands}
        chosen = [operands[0]]
        for join in joins:
            other = by_table.get(join.alias_or_name)
            if other is None:
                return None
            if join.side == "RIGHT":
                chosen = [other]
            elif join.side == "FULL":
                chosen.append(other)
        return chosen

    def _subquery(self, query: exp.Expr, scope: Scope) -> _Flows:
        inner = self._scope_of(query, scope)
        return frozenset().union(*(self._output(inner, position) for position in range(len(self._names(inner)))))

    def _matching(self, query: exp.Expr, scope: Scope) -> _Flows:
        """Whether a subquery has rows is for its conditions to decide."""
        decisive: set[_Flow] = set()
        for each in self._reached(self._scope_of(query.unnest() if isinstance(query, exp.Subquery) else query, scope)):
            decisive |= self._decisive(each)
        return _indirect(decisive, "CONDITIONAL")

    def _scope_of(self, query: exp.Expr, scope: Scope) -> Scope:
        for each in scope.subquery_scopes:
            if each.expression is query:
                return each
        raise self._error(query, "the subquery cannot be traced")


def _aggregates(node: exp.Expr) -> bool:
    if isinstance(node, exp.Anonymous):
        return node.name.lower() in _AGGREGATES
    return isinstance(node, exp.AggFunc) and not isinstance(node, _POSITIONAL)


def _fields(function: exp.Expr, position: int, width: int) -> list[exp.Expr] | None:
    """The expressions that one column of a generator's rows is made of; None when that cannot be told apart."""
    name = function.name.lower() if isinstance(function, exp.Anonymous) else function.key.strip("_")
    name = name.removesuffix("outer").removesuffix("_")
    if name not in _GENERATORS:
        return None
    arguments = list(function.iter_expressions())
    if name == "stack":
        return arguments[1 + position :: width]
    if name == "posexplode":
        if position == 0:
            return []
        position, width = position - 1, width - 1
    collection = arguments[0]
    if name == "inline":
        rows = collection.expressions if isinstance(collection, exp.Array) else []
        if not rows or not all(isinstance(row, exp.Struct) and len(row.expressions) == width for row in rows):
            return None
        fields = [row.expressions[position] for row in rows]
        return [field.expression if isinstance(field, exp.PropertyEQ) else field for field in fields]
    if width == 2 and isinstance(collection, exp.VarMap | exp.Map):
        return [collection.args["values" if position else "keys"]]
    return None


def _name(table: exp.Expr) -> str:
    assert isinstance(table, exp.Table)
    return ".".join(part for part in (table.db, table.name) if part).lower()


def _direct(flows: Iterable[_Flow], transformation: str) -> _Flows:
    """What is direct is at least transformed like that; what is indirect stays as it is."""

    def farther(flow: _Flow) -> _Flow:
        if flow.kind == "indirect":
            return flow
        return flow._replace(transformation=max(flow.transformation, transformation, key=_DIRECT.index))

    return frozenset(map(farther, flows))


def _indirect(flows: Iterable[_Flow], transformation: str) -> _Flows:
    return frozenset(flow._replace(kind="indirect", transformation=transformation) for flow in flows)


def _merged(flows: Iterable[_Flow]) -> Iterator[_Flow]:
    """One direct edge from a column, by the strongest of the ways that it takes; each kind of indirect one."""
    strongest: dict[tuple[str, str], _Flow] = {}
    strength: Callable[[_Flow], int] = lambda flow: _DIRECT.index(flow.transformation)  # noqa: E731
    for flow in flows:
        if flow.kind == "indirect":
            yield flow
        else:
            known = strongest.get((flow.table, flow.column), flow)
            strongest[flow.table, flow.column] = max(known, flow, key=strength)
    yield from strongest.values()
