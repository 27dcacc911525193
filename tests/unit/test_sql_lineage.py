"""What columns are made from, construct by construct: small queries, with the edges read off them by hand.

An expected line is ``column: source …``; a source is ``table.column`` with ``=`` for a copy (IDENTITY), ``~`` for a
TRANSFORMATION, ``+`` for an AGGREGATION, ``?`` for CONDITIONAL, ``#`` for WINDOW and ``^`` for SORT before it.
"""

from __future__ import annotations

import pytest

from lakehouse.lineage.sql_lineage import Edge, LineageError, conditions_of_query, edges_of_query, lineage_of_query

COLUMNS = {
    "silver.s": ["k", "x", "y", "z"],
    "silver.u": ["k", "v", "w"],
    "silver.n": ["k", "a", "b", "at", "extra"],
    "gold.t": ["k", "a", "b", "n"],
}
SIGNS = {
    "IDENTITY": "=",
    "TRANSFORMATION": "~",
    "AGGREGATION": "+",
    "CONDITIONAL": "?",
    "WINDOW": "#",
    "SORT": "^",
}
DIRECT = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")

QUERIES = {
    "renamed": ("select k as id, x from silver.s", "id: =s.k", "x: =s.x"),
    "computed": (
        "select cast(x as int) as i, x + y as sum, -z as z, 1 as one from silver.s",
        "i: ~s.x", "sum: ~s.x ~s.y", "z: ~s.z",
    ),
    "case of names does not matter": ("SELECT K, S.`X` FROM SILVER.S", "k: =s.k", "x: =s.x"),
    "case": (
        "select case when x > 1 then y when z is null then k else 0 end as c from silver.s",
        "c: ?s.x ?s.z ~s.y ~s.k",
    ),
    "case of a value": ("select case z when 1 then x else z end as c from silver.s", "c: ?s.z ~s.x ~s.z"),
    "if, nvl2, decode": (
        "select if(x > 1, y, z) as i, nvl2(x, y, z) as n, decode(x, y, z, 1, k, 0) as d from silver.s",
        "i: ?s.x ~s.y ~s.z",
        "n: ?s.x ~s.y ~s.z",
        "d: ?s.x ?s.y ~s.z ~s.k",
    ),
    "coalesce and nullif": (
        "select coalesce(x, y) as c, nullif(x, 0) as n from silver.s",
        "c: ~s.x ~s.y",
        "n: ~s.x",
    ),
    "aggregates": (
        "select k, count(*) as rows, count(x) as c, sum(x) / count(y) as r, collect_list(z) as l, try_sum(z) as t, "
        "count(distinct x, y) as d from silver.s group by k",
        "k: =s.k", "c: +s.x", "r: +s.x +s.y", "l: +s.z", "t: +s.z", "d: +s.x +s.y",
    ),
    "filter of an aggregate": (
        "select sum(x) filter (where y > 1) as f, count(*) filter (where z) as c from silver.s",
        "f: +s.x ?s.y", "c: ?s.z",
    ),
    "max_by and min_by": (
        "select max_by(x, y) as m, min_by(x, struct(y, z)) as n from silver.s",
        "m: +s.x ^s.y", "n: +s.x ^s.y ^s.z",
    ),
    "within group": (
        "select percentile_disc(0.5) within group (order by x) as p, listagg(x) within group (order by y) as l "
        "from silver.s",
        "p: +s.x", "l: +s.x ^s.y",
    ),
    "windows": (
        "select rank() over (partition by x order by y desc) as r, lag(z) over (order by y) as p, "
        "sum(z) over (partition by x) as t from silver.s",
        "r: #s.x #s.y", "p: ~s.z #s.y", "t: +s.z #s.x",
    ),
    "named window": (
        "select sum(x) over w as t, avg(x) over (w rows between 1 preceding and current row) as a from silver.s "
        "window w as (partition by y order by z)",
        "t: +s.x #s.y #s.z", "a: +s.x #s.y #s.z",
    ),
    "filter and window at once": (
        "select count_if(x > 0) filter (where y > 1) over (partition by z) as c from silver.s",
        "c: +s.x ?s.y #s.z",
    ),
    "struct comparison": (
        "select struct(x, y) is distinct from lag(struct(x, y)) over (partition by k order by z) as c from silver.s",
        "c: ~s.x ~s.y #s.k #s.z",
    ),
    "star": ("select * from silver.u", "k: =u.k", "v: =u.v", "w: =u.w"),
    "except": ("select x as c, y as d from silver.s except select v, w from silver.u", "c: =s.x", "d: =s.y"),
    "except of a part of a union": (
        "select x from silver.s union all (select v from silver.u except select w from silver.u)", "x: =s.x =u.v",
    ),
    "intersect": ("select x from silver.s intersect select v from silver.u", "x: =s.x =u.v"),
    "star except": ("select * except (k, x) from silver.s", "y: =s.y", "z: =s.z"),
    "star of one table": (
        "select u.*, s.x from silver.s s join silver.u u on s.k = u.k",
        "k: =u.k", "v: =u.v", "w: =u.w", "x: =s.x",
    ),
    "chain of CTEs": (
        "with a as (select k, x + y as xy from silver.s), b as (select *, xy * 2 as twice from a), "
        "unused as (select v from silver.u) select k, max(twice) as most from b group by k",
        "k: =s.k", "most: +s.x +s.y",
    ),
    "CTE with column names": ("with a(p, q) as (select x, y from silver.s) select q from a", "q: =s.y"),
    "CTE hides a name that a later one uses again": (
        "with a as (select x as c from silver.s), b as (select c from a) "
        "select b.c, a.c as d from a join b on a.c = b.c",
        "c: =s.x", "d: =s.x",
    ),
    "subquery in FROM": ("select t.m from (select k, max(x) as m from silver.s group by k) t", "m: +s.x"),
    "kinds add up along the way": (
        "select case when m > 1 then t else 0 end as c from "
        "(select max(x) as m, first_value(y) over (order by z) as t from silver.s)",
        "c: ?s.x ~s.y #s.z",
    ),
    "a column that goes in twice": ("select x + sum(x) over () as c from silver.s", "c: +s.x"),
    "scalar subquery": (
        "select k, (select max(v) from silver.u where u.k = s.k) as m from silver.s s",
        "k: =s.k", "m: +u.v",
    ),
    "scalar subquery in WHERE": ("select x from silver.s where y = (select max(v) from silver.u)", "x: =s.x"),
    "exists and in": (
        "select exists (select 1 from silver.u where u.k = s.x) as e, y in (select v from silver.u) as i "
        "from silver.s s",
        "e: ?u.k ?s.x", "i: ~s.y ~u.v",
    ),
    "join using": (
        "select * from silver.s join silver.u using (k)",
        "k: =s.k", "x: =s.x", "y: =s.y", "z: =s.z", "v: =u.v", "w: =u.w",
    ),
    "left join using": ("select k, v from silver.s left join silver.u using (k)", "k: =s.k", "v: =u.v"),
    "right join using": ("select k from silver.s right join silver.u using (k)", "k: =u.k"),
    "full join using": ("select k from silver.s full join silver.u using (k)", "k: =s.k =u.k"),
    "using, through three tables": (
        "select k from silver.s left join silver.u using (k) right join silver.n using (k)",
        "k: =n.k",
    ),
    "semi join": ("select * from silver.u left semi join silver.s on s.k = u.k", "k: =u.k", "v: =u.v", "w: =u.w"),
    "union by position": (
        "select k, x from silver.s union all select null as nothing, v from silver.u",
        "k: =s.k", "x: =s.x =u.v",
    ),
    "union with a star": (
        "select c, v from (select null as c, * from silver.u union all select x, y, z, 0 from silver.s)",
        "c: =s.x", "v: =u.v =s.z",
    ),
    "union of queries in parentheses": (
        "(select x from silver.s) union all ((select v from silver.u) union all (select b from silver.n))",
        "x: =s.x =u.v =n.b",
    ),
    "lateral view of structs": (
        "select dimension, member from silver.s lateral view inline(array(named_struct('dimension', 'a', 'member', x), "
        "named_struct('dimension', 'b', 'member', y))) as dimension, member",
        "member: ~s.x ~s.y",
    ),
    "lateral views of arrays and maps": (
        "select e, p, q, a, b from silver.s lateral view explode(array(x, y)) as e "
        "lateral view posexplode(array(z)) i as p, q lateral view outer explode(map(x, y)) m as a, b",
        "e: ~s.x ~s.y", "q: ~s.z", "a: ~s.x", "b: ~s.y",
    ),
    "stack": ("select a, b from silver.s lateral view stack(2, x, y, z, k) as a, b", "a: ~s.x ~s.z", "b: ~s.y ~s.k"),
    "lateral view of a lateral view": (
        "select f from silver.s lateral view explode(x) as e lateral view explode(array(e, y)) as f",
        "f: ~s.x ~s.y",
    ),
    "lateral subquery": (
        "select l.v from silver.s s, lateral (select v from silver.u u where u.k = s.k) l",
        "v: =u.v",
    ),
    "lambda of filter": ("select filter(x, e -> e > y) as f from silver.s", "f: ~s.x ?s.y"),
    "lambda of transform": ("select transform(x, e -> e + y) as t from silver.s", "t: ~s.x ~s.y"),
    "name of another output": ("select x + 1 as a, a * y as b from silver.s", "a: ~s.x", "b: ~s.x ~s.y"),
    "stored name of a gated table": ("select gold_next.t.a from gold_next.t", "a: =t.a"),
    "a version of a table": ("select x from silver.s version as of 3", "x: =s.x"),
    "merge": (
        "merge into gold_next.t as t using silver.n as n on t.k = n.k "
        "when matched then update set a = n.a, t.n = t.n + 1 "
        "when not matched then insert (k, a, b) values (n.k, upper(n.a), 0)",
        "a: ~n.a", "n: ~t.n", "k: =n.k",
    ),
    "merge with conditions": (
        "merge into gold.t t using silver.n n on t.k = n.k when matched and n.at > t.n then update set a = n.a "
        "when matched and t.b is null then delete when not matched and n.extra then insert (k) values (n.k) "
        "when not matched by source and t.n > 1 then update set b = null",
        "a: =n.a ?n.at ?t.n", "k: =n.k ?n.extra", "b: ?t.n",
    ),
    "merge of all columns": (
        "merge into gold.t t using silver.n n on t.k = n.k "
        "when matched then update set * when not matched then insert *",
        "k: =n.k", "a: =n.a", "b: =n.b",
    ),
    "merge of a query": (
        "merge into gold.t t using (select u.k, count(*) as rows, max(x) as most, "
        "row_number() over (order by u.v) as place from silver.u join silver.s using (k) group by u.k, u.v) c "
        "on t.k = c.k when matched then update set t.a = case when c.most > 1 then c.rows else t.a end, b = c.place "
        "when not matched then insert *",
        "k: =u.k", "a: ?s.x ~t.a", "b: #u.v",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", QUERIES)
def test_edges_of(name: str) -> None:
    query, *lines = QUERIES[name]
    found: dict[str, set[str]] = {}
    for edge in edges_of_query(query, "gold.made", COLUMNS):
        assert edge.table == "gold.made"
        assert (edge.kind == "direct") == (edge.transformation in DIRECT)
        source = f"{edge.source_table.partition('.')[2]}.{edge.source_column}"
        found.setdefault(edge.column, set()).add(SIGNS[edge.transformation] + source)
    assert found == {column: set(sources.split()) for column, _, sources in (line.partition(": ") for line in lines)}


def test_an_edge_says_what_is_made_and_what_it_is_made_from() -> None:
    assert edges_of_query("select max(x) as most from silver.s", "gold.made", COLUMNS) == [
        Edge("gold.made", "most", "silver.s", "x", "direct", "AGGREGATION")
    ]


def test_columns_come_in_the_order_of_the_query() -> None:
    found = lineage_of_query("select w, s.*, 1 as b from silver.s join silver.u using (k)", "gold.made", COLUMNS)
    assert found.columns == ("w", "k", "x", "y", "z", "b")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select k from silver.s", ""),
        ("select k from silver.s where x > y", "FILTER s.x, FILTER s.y"),
        ("select k, max(x) as m from silver.s group by k having max(y) > 1", "FILTER s.y, GROUP_BY s.k"),
        ("select x + y as a, max(z) as m from silver.s group by 1", "GROUP_BY s.x, GROUP_BY s.y"),
        ("select x, max(z) as m from silver.s group by all", "GROUP_BY s.x"),
        ("select x from silver.s s left join silver.u u on s.k = u.k and u.v > 1", "JOIN s.k, JOIN u.k, JOIN u.v"),
        ("select x from silver.s join silver.u using (k)", "JOIN s.k, JOIN u.k"),
        ("select x from silver.s left anti join silver.u on s.k = u.k", "JOIN s.k, JOIN u.k"),
        ("select x from silver.s order by y, x", "SORT s.x, SORT s.y"),
        ("select distinct x from silver.s", "GROUP_BY s.x"),
        ("select x from silver.s union select v from silver.u", "GROUP_BY s.x, GROUP_BY u.v"),
        ("select x from silver.s except select v from silver.u", "GROUP_BY s.x, GROUP_BY u.v"),
        (
            "select x from silver.s except (select v from silver.u except select w from silver.u)",
            "GROUP_BY s.x, GROUP_BY u.v, GROUP_BY u.w",
        ),
        ("select x from silver.s union all select v from silver.u where w", "FILTER u.w"),
        (
            "select x from silver.s where y = (select max(v) from silver.u where w)",
            "FILTER s.y, FILTER u.v, FILTER u.w",
        ),
        ("select x from silver.s where exists (select 1 from silver.u where u.k = s.k)", "FILTER s.k, FILTER u.k"),
        (
            "with a as (select * from silver.s where x), b as (select * from silver.s where y) select k from a",
            "FILTER s.x",
        ),
        (
            "merge into gold.t t using (select * from silver.n where at > 1) n on t.k = n.k "
            "when matched and t.b > 1 then delete when not matched then insert *",
            "FILTER n.at, FILTER t.b, JOIN n.k, JOIN t.k",
        ),
    ],
)
def test_conditions_decide_about_the_rows(query: str, expected: str) -> None:
    found = conditions_of_query(query, "gold.made", COLUMNS)
    shown = sorted(
        f"{each.transformation} {each.source_table.partition('.')[2]}.{each.source_column}" for each in found
    )
    assert ", ".join(shown) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select k frm silver.s where", "gold.made: the SQL cannot be understood: line 1, column 19:"),
        (
            "select k,\n  nothing from silver.s",
            "gold.made: the SQL cannot be understood: line 2, column 9: nothing is a column of none",
        ),
        ("select s.nothing from silver.s s", "nothing"),
        (
            "select k from silver.s join silver.u on true",
            "line 1, column 8: k is a column of none of the tables read here, or of several",
        ),
        ("select k\nfrom silver.nowhere", "gold.made: line 2, column 19: the columns of silver.nowhere are not known."),
        ("select k, k from silver.s", "gold.made: the query makes two columns of the name k."),
        ("select k from silver.s; select x from silver.s", "one query (select …) or one MERGE, and nothing else"),
        ("delete from silver.s", "one query (select …) or one MERGE, and nothing else"),
        ("with recursive r as (select 1 as a union all select a + 1 from r) select a from r", "recursive query"),
        (
            "select * from silver.s pivot (sum(x) for y in (1, 2))",
            "line 1, column 22: columns are not traced through PIVOT",
        ),
        ("select id from range(10)", "columns are not traced through a table function"),
        ("select sum(x) over missing as t from silver.s", "there is no window missing"),
        (
            "merge into gold.t t using silver.u u on t.k = u.k when matched then update set other = u.v",
            "the MERGE writes other, which gold.t does not have",
        ),
        (
            "merge into gold.t t using (select v from silver.u) u on t.k = u.v when not matched then insert *",
            "the MERGE copies all columns, but u has none of gold.t's",
        ),
        (
            "merge into gold.t t using silver.n n on t.k = n.k when matched then update set other = n.a",
            "the MERGE writes other, which gold.t does not have",
        ),
    ],
)
def test_what_cannot_be_understood_is_an_error_that_names_target_and_place(query: str, message: str) -> None:
    with pytest.raises(LineageError) as error:
        lineage_of_query(query, "gold.made", COLUMNS)
    assert message in str(error.value)
    assert str(error.value).startswith("gold.made: ")
