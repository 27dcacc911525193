"""Deliveries that are wrong in every way that was thought of, made by a script so that none is stored.

Each case says what must come of it: refused as a whole with a reason code, or landed, with the codes of the rows that
go to quarantine; see ``docs/reference/reason-codes.md``. Run as a script, it writes the files into a folder to look at.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

NAMES = ["id", "person", "amount", "pieces", "day"]
HEADER = ",".join(NAMES)
GOOD = [[str(i), f"Ann {i}", str(i / 2), str(i), "2020-01-05"] for i in range(1, 5)]
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Case:
    """A delivery.

    Attributes:
        name: What is wrong with it.
        suffix: How the file's name ends.
        make: Its content.
        refused: Code with which the whole delivery is refused.
        bad: Codes of the rows that go to quarantine, in the order of the rows; the others land.
    """

    name: str
    suffix: str
    make: Callable[[], bytes]
    refused: str | None = None
    bad: tuple[tuple[str, ...], ...] = ()


def csv(*rows: str, header: str = HEADER, end: str = "\n") -> bytes:
    """The good rows and some more, as CSV."""
    return "".join(line + end for line in [header, *map(",".join, GOOD), *rows]).encode()


def objects() -> list[dict[str, Any]]:
    return [
        {"id": int(i), "person": who, "amount": float(a), "pieces": int(p), "day": day} for i, who, a, p, day in GOOD
    ]


def jsonl(*lines: str, end: str = "\n") -> bytes:
    """The good rows and some more lines, as JSON lines."""
    return "".join(line + end for line in [*map(json.dumps, objects()), *lines]).encode()


def parquet(columns: dict[str, pa.Array] | None = None, drop: tuple[str, ...] = (), **options: Any) -> bytes:
    """The good rows as Parquet, with columns changed, added or left out."""
    table = pa.table(
        {
            "id": pa.array([1, 2, 3, 4], pa.int64()),
            "person": pa.array(["Ann 1", "Ann 2", "Ann 3", "Ann 4"]),
            "amount": pa.array([0.5, 1.0, 1.5, 2.0]),
            "pieces": pa.array([1, 2, 3, 4], pa.int32()),
            "day": pa.array([18266] * 4, pa.int32()).cast(pa.date32()),
        }
        | (columns or {})
    ).drop_columns(list(drop))
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


AVRO = {"id": "long", "person": ["null", "string"], "amount": ["null", "double"], "pieces": ["null", "int"],
        "day": {"type": "int", "logicalType": "date"}}  # fmt: skip


def avro(
    records: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    codec: str = "null",
    sync: bytes = b"sixteen bytes ok",
    repeat: int = 1,
    **types: Any,
) -> bytes:
    """The good rows as Avro, with types changed, added, or left out (None)."""
    fields = [{"name": name, "type": type_} for name, type_ in (AVRO | types).items() if type_ is not None]
    schema = fastavro.parse_schema({"type": "record", "name": "parcel", "fields": fields})
    rows = [records(row | {"day": 18266}) for row in objects()] * repeat
    sink = io.BytesIO()
    fastavro.writer(sink, schema, rows, codec=codec, sync_marker=sync)
    return sink.getvalue()


def noise(size: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(size)


def bomb(line: bytes, size: int) -> bytes:
    """A small compressed file that grows to ``size`` bytes."""
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", mtime=0) as file:
        file.write(HEADER.encode() + b"\n")
        block = line * (MEGABYTE // len(line))
        for _ in range(size // len(block)):
            file.write(block)
    return sink.getvalue()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def cases() -> Iterator[Case]:
    """All of them."""
    yield from text_cases()
    yield from csv_header_cases()
    yield from csv_row_cases()
    yield from compressed_cases()
    yield from jsonl_cases()
    yield from parquet_cases()
    yield from avro_cases()


def text_cases() -> Iterator[Case]:
    for suffix, good in (("csv", csv), ("jsonl", jsonl)):

        def case(name: str, make: Callable[[], bytes], refused: str | None = None, *, _suffix: str = suffix) -> Case:
            return Case(f"{_suffix}_{name}", _suffix, make, refused)

        text = good().decode()
        yield case("zero_bytes", lambda: b"", "empty_file")
        yield case("latin_1", lambda t=text: t.replace("Ann", "Zoë").encode("latin-1"), "encoding")
        yield case("utf_16", lambda t=text: t.encode("utf-16"), "encoding")
        yield case("utf_16_without_mark", lambda t=text: t.encode("utf-16-le"), "nul")
        yield case("cut_within_a_character", lambda t=text: t.encode() + "é".encode()[:1], "encoding")
        yield case("nul_byte", lambda t=text: t.replace("Ann 3", "A\0nn").encode(), "nul")
        yield case("noise", lambda: noise(4096), "encoding")
        yield case("overlong_utf_8", lambda t=text: t.encode().replace(b"Ann 2", b"\xc0\xafnn"), "encoding")
        yield case("surrogate_in_utf_8", lambda t=text: t.encode().replace(b"Ann 2", b"\xed\xa0\x80"), "encoding")
        yield case("byte_order_mark", lambda t=text: b"\xef\xbb\xbf" + t.encode())
        yield case("carriage_returns", lambda t=text: t.replace("\n", "\r\n").encode())
        yield case("mixed_line_ends", lambda t=text: t.replace("\n", "\r\n", 2).encode())
        yield case("no_end_of_line_at_the_end", lambda t=text: t.rstrip("\n").encode())
        yield case("emoji_and_right_to_left", lambda t=text: t.replace("Ann 2", "👩‍🚀 שלום").encode())
        yield case("formula", lambda t=text: t.replace("Ann 2", "=cmd|' /C calc'!A0").encode())
        yield case("cell_of_a_megabyte", lambda t=text: t.replace("Ann 2", "x" * MEGABYTE).encode())
        yield case(
            "cell_of_50_megabytes", lambda t=text: t.replace("Ann 2", "x" * (50 * MEGABYTE)).encode(), "record_too_long"
        )


def csv_header_cases() -> Iterator[Case]:
    def case(name: str, header: str, refused: str | None) -> Case:
        return Case(f"header_{name}", "csv", lambda: csv(header=header), refused)

    yield Case("only_a_byte_order_mark", "csv", lambda: b"\xef\xbb\xbf", "header_missing")
    yield Case("only_blank_lines", "csv", lambda: b"\n\n\n", "header_missing")
    yield Case("only_a_header", "csv", lambda: HEADER.encode() + b"\n", "no_rows")
    yield Case("no_header", "csv", lambda: csv().split(b"\n", 1)[1], "header_missing")
    yield Case("json_in_csv", "csv", jsonl, "header_missing")
    yield Case("page_of_html", "csv", lambda: b"<html><body>502 Bad Gateway</body></html>\n", "header_missing")
    yield Case("carriage_returns_alone", "csv", lambda: csv(end="\r"), "header_missing")
    yield Case("semicolons", "csv", lambda: csv().replace(b",", b";"), "header_missing")
    yield Case("tabs", "csv", lambda: csv().replace(b",", b"\t"), "header_missing")
    yield case("in_capitals", HEADER.upper(), "header_missing")
    yield case("twice", HEADER.replace("pieces", "amount"), "column_duplicate")
    yield case("renamed", HEADER.replace("pieces", "count"), "column_missing")
    yield case("with_spaces", HEADER.replace(",", ", "), "column_missing")
    yield case("look_alike", HEADER.replace("person", "pers\u043en"), "column_missing")
    yield case("zero_width_space", HEADER.replace("person", "per\u200bson"), "column_missing")
    yield case("unclosed_quote", '"' + HEADER, "header_missing")
    yield case("one_more", HEADER + ",extra", "column_unexpected")
    yield case("unnamed", HEADER + ",", "column_unnamed")
    yield case("of_a_technical_column", HEADER + ",_interval", "column_unexpected")
    yield case("one_less", HEADER.rpartition(",")[0], "column_missing")
    yield case("of_10000_columns", HEADER + "," + ",".join(f"c{i}" for i in range(10_000)), "column_unexpected")
    yield case("of_25000_columns", HEADER + "," + ",".join(f"c{i}" for i in range(25_000)), "too_many_columns")


def csv_row_cases() -> Iterator[Case]:
    def case(name: str, row: str, *codes: str) -> Case:
        return Case(f"row_{name}", "csv", lambda: csv(row), bad=(codes,) if codes else ())

    yield case("short", "9,Ann,1", "field_count")
    yield case("long", "9,Ann,1,1,2020-01-05,more", "field_count")
    yield case("unclosed_quote", '9,"Ann,1,1,2020-01-05', "unclosed_quote")
    yield case("quoted_newline", '9,"Ann\nBo",1,1,2020-01-05')
    yield case("quoted_quotes", '9,"Ann ""the quick""",1,1,2020-01-05')
    yield case("text_for_a_number", "9,Ann,much,1,2020-01-05", "type")
    yield case("fraction_for_an_integer", "9,Ann,1,1.5,2020-01-05", "type")
    yield case("integer_too_big", "9,Ann,1,99999999999,2020-01-05", "type")
    yield case("integer_much_too_big", f"{10**30},Ann,1,1,2020-01-05", "type")
    yield case("hexadecimal", "9,Ann,1,0x1F,2020-01-05", "type")
    yield case("decimal_comma", '9,Ann,"1,5",1,2020-01-05', "type")
    yield case("not_a_number", "9,Ann,NaN,1,2020-01-05", "not_finite")
    yield case("infinity", "9,Ann,-Infinity,1,2020-01-05", "not_finite")
    yield case("too_big_for_a_double", "9,Ann,1e400,1,2020-01-05", "not_finite")
    yield case("day_that_is_none", "9,Ann,1,1,2021-02-29", "type")
    yield case("american_date", "9,Ann,1,1,01/05/2020", "type")
    yield case("no_key", ",Ann,1,1,2020-01-05", "required")
    yield case("out_of_bounds", "9,Ann,101,1,2020-01-05", "rule")
    yield case("several_faults", "x,Ann,101,y,2020-13-01", "type", "type", "type", "rule")
    yield Case("row_with_the_key_of_another", "csv", lambda: csv("4,Ann,1,1,2020-01-05"), bad=(("rule",), ("rule",)))
    yield Case(
        "quote_left_open_for_megabytes", "csv", lambda: csv('9,"Ann' + "\n,x" * (8 * MEGABYTE)), "record_too_long"
    )
    yield Case("every_row_short", "csv", lambda: f"{HEADER}\n1\n2\n".encode(), "all_rows_bad")
    yield Case(
        "most_rows_out_of_bounds",
        "csv",
        lambda: csv(*(f"{i},Ann,500,1,2020-01-05" for i in range(10, 20))),
        "below_mostly",
    )


def compressed_cases() -> Iterator[Case]:
    def packed(content: bytes) -> bytes:
        return gzip.compress(content, mtime=0)

    for suffix, good in (("csv.gz", csv), ("jsonl.gz", jsonl)):

        def case(name: str, make: Callable[[], bytes], refused: str | None = None, *, _suffix: str = suffix) -> Case:
            return Case(f"{_suffix.replace('.', '_')}_{name}", _suffix, make, refused)

        yield case("good", lambda g=good: packed(g()))
        yield case("truncated", lambda g=good: packed(g() + noise(9000).hex().encode())[:-2000], "compression")
        yield case("not_compressed", lambda g=good: g(), "compression")
        yield case("wrong_checksum", lambda g=good: flipped(packed(g()), -6), "compression")
        yield case("followed_by_noise", lambda g=good: packed(g()) + b"PK" + noise(64), "compression")
        yield case("zero_bytes", lambda: b"", "empty_file")
        yield case("packed_twice", lambda g=good: packed(packed(g())), "encoding")
    yield Case("csv_gz_bomb", "csv.gz", lambda: bomb(b"1,Ann,1,1,2020-01-05\n", 300 * MEGABYTE), "decompression_bomb")


def jsonl_cases() -> Iterator[Case]:
    good = {"id": 9, "person": "Ann", "amount": 1.0, "pieces": 1, "day": "2020-01-05"}

    def case(name: str, line: str, *codes: str) -> Case:
        return Case(f"json_{name}", "jsonl", lambda: jsonl(line), bad=(codes,) if codes else ())

    def changed(**values: Any) -> str:
        return json.dumps({k: v for k, v in (good | values).items() if v is not ...})

    yield Case("json_only_blank_lines", "jsonl", lambda: b"\n\n", "no_rows")
    yield Case("json_csv_inside", "jsonl", csv, "all_rows_bad")
    yield case("half_an_upload", changed()[:30], "not_json")
    yield case("list", "[1, 2]", "not_json")
    yield case("scalar", "7", "not_json")
    yield case("two_objects_in_a_line", changed() + changed(id=10), "not_json")
    yield case("not_a_number", changed(amount=float("nan")), "not_json")
    yield case("infinity", changed(amount=float("inf")), "not_json")
    yield case("comment", "// " + changed(), "not_json")
    yield case("key_twice", changed()[:-1] + ', "id": 10}', "duplicate_key")
    yield case("unknown_key", changed(extra=1), "unknown_key")
    yield case("unknown_key_and_more", changed(extra=1, amount="much", pieces=None), "unknown_key", "type")
    yield case("object_for_a_text_and_unknown_key", changed(person={"first": "Ann"}, extra=1), "nested")
    yield case("key_in_capitals", changed(id=...)[:-1] + ', "ID": 9}', "unknown_key", "required")
    yield case("key_missing", changed(id=...), "required")
    yield case("null_for_a_key", changed(id=None), "required")
    yield case("object_for_a_text", changed(person={"first": "Ann"}), "nested")
    yield case("list_for_a_text", changed(person=["Ann"]), "nested")
    yield case("list_for_a_number", changed(amount=[1.0]), "type")
    yield case("text_for_a_number", changed(amount="much"), "type")
    yield case("true_for_an_integer", changed(pieces=True), "type")
    yield case("big_integer", changed(id=10**30), "type")
    yield case("fraction_for_an_integer", changed(pieces=1.5), "type")
    yield case("too_big_for_a_double", changed(amount=...)[:-1] + ', "amount": 1e400}', "type")
    yield case("depth_of_10000", '{"id": ' + "[" * 10_000 + "]" * 10_000 + "}", "not_json")


def parquet_cases() -> Iterator[Case]:
    def case(name: str, make: Callable[[], bytes], refused: str) -> Case:
        return Case(f"parquet_{name}", "parquet", make, refused)

    def column(values: list[Any], type_: pa.DataType | None = None) -> pa.Array:
        return pa.array(values, type_)

    yield case("zero_bytes", lambda: b"", "empty_file")
    yield case("wrong_magic", lambda: b"PAR2" + parquet()[4:-4] + b"PAR2", "not_parquet")
    yield case("truncated_footer", lambda: parquet()[:-12], "not_parquet")
    yield case("only_magic", lambda: b"PAR1", "not_parquet")
    yield case("footer_of_noise", lambda: b"PAR1" + noise(512) + b"PAR1", "not_parquet")
    yield case("csv_inside", csv, "not_parquet")
    yield case("flipped_byte", lambda: flipped(parquet(write_page_checksum=True, compression="none"), 60), "damaged")
    yield case("column_missing", lambda: parquet(drop=("pieces",)), "column_missing")
    yield case("column_more", lambda: parquet({"extra": column([1, 2, 3, 4])}), "column_unexpected")
    yield case("list", lambda: parquet({"person": column([["a"]] * 4)}), "nested")
    yield case("struct", lambda: parquet({"person": column([{"a": 1}] * 4)}), "nested")
    yield case("text_for_a_number", lambda: parquet({"amount": column(["1"] * 4)}), "column_type")
    yield case("wide_integer", lambda: parquet({"pieces": column([1] * 4, pa.int64())}), "column_type")
    yield case("text_for_a_date", lambda: parquet({"day": column(["2020-01-05"] * 4)}), "column_type")
    yield case("floats_of_16_bits", lambda: parquet({"amount": column([1.0] * 4).cast(pa.float16())}), "column_type")
    yield case("nanoseconds", lambda: parquet({"day": column([0] * 4, pa.timestamp("ns"))}), "column_type")
    yield case("no_rows", lambda: pq_empty(), "no_rows")
    yield case("bomb_of_rows", lambda: _parquet_of_equal_rows(4_000_000), "decompression_bomb")
    yield Case(
        "parquet_not_a_number",
        "parquet",
        lambda: parquet({"amount": column([1.0, float("nan"), float("-inf"), 2.0])}),
        bad=(("not_finite",), ("not_finite",)),
    )
    yield Case(
        "parquet_null_for_a_key",
        "parquet",
        lambda: parquet({"id": column([1, None, 3, 4], pa.int64())}),
        bad=(("required",),),
    )


def _parquet_of_equal_rows(rows: int) -> bytes:
    """A small file of a great many rows, which its own account calls small too."""
    first = pq.read_table(io.BytesIO(parquet())).slice(0, 1)
    columns = {name: pa.repeat(first.column(name)[0], rows) for name in first.column_names}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def avro_cases() -> Iterator[Case]:
    def case(name: str, make: Callable[[], bytes], refused: str | None = None) -> Case:
        return Case(f"avro_{name}", "avro", make, refused)

    def changed(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda row: row | values

    mark = b"sixteen bytes ok"
    yield case("deflated", lambda: avro(codec="deflate"))
    yield case("zero_bytes", lambda: b"", "empty_file")
    yield case("wrong_magic", lambda: b"Obj\2" + avro()[4:], "not_avro")
    yield case("only_magic", lambda: b"Obj\1", "not_avro")
    yield case("csv_inside", csv, "not_avro")
    yield case("parquet_inside", parquet, "not_avro")
    yield case("header_of_noise", lambda: b"Obj\1" + noise(512), "not_avro")
    yield case("schema_that_is_no_schema", lambda: avro().replace(b'"long"', b'"lung"'), "not_avro")
    yield case("schema_of_numbers", lambda: _avro_of("long", [1, 2]), "not_avro")
    yield case("truncated", lambda: avro()[:-20], "damaged")
    yield case("half_a_block", lambda: avro(repeat=100)[:900], "damaged")
    yield case("wrong_mark_at_the_end", lambda: avro()[:-16] + noise(16), "damaged")
    yield case("flipped_length", lambda: avro().replace(mark, mark[:15] + b"!", 1), "damaged")
    yield case("followed_by_noise", lambda: avro() + b"\x80" * 12, "damaged")
    yield case("deflated_noise", lambda: _avro_deflated_noise(mark), "damaged")
    yield case("foreign_schema", lambda: _avro_of(
        {"type": "record", "name": "song", "fields": [{"name": "title", "type": "string"}]}, [{"title": "x"}]
    ), "header_missing")  # fmt: skip
    yield case("column_missing", lambda: avro(pieces=None), "column_missing")
    yield case("column_more", lambda: avro(changed(extra=1), extra="int"), "column_unexpected")
    yield case("text_for_a_number", lambda: avro(changed(amount="1"), amount="string"), "column_type")
    yield case("bytes_for_a_text", lambda: avro(changed(person=b"Ann"), person="bytes"), "column_type")
    yield case("wide_integer", lambda: avro(pieces="long"), "column_type")
    yield case("of_several_types", lambda: avro(person=["null", "string", "long"]), "nested")
    yield case("list", lambda: avro(changed(person=["a"]), person={"type": "array", "items": "string"}), "nested")
    yield case("record", lambda: avro(changed(person={"a": 1}), person={
        "type": "record", "name": "who", "fields": [{"name": "a", "type": "int"}]
    }), "nested")  # fmt: skip
    yield case("map", lambda: avro(changed(person={"a": 1}), person={"type": "map", "values": "int"}), "nested")
    yield case("other_compression", lambda: avro(codec="bzip2"), "compression")
    yield case("no_rows", lambda: avro(repeat=0), "no_rows")
    yield case("bomb", lambda: avro(changed(person="x" * (120 * MEGABYTE)), codec="deflate"), "decompression_bomb")
    yield case("millions_of_nothing", _avro_of_nothing, "header_missing")
    yield Case(
        "avro_not_a_number",
        "avro",
        lambda: avro(lambda row: row | {"amount": float("nan") if row["id"] == 2 else row["amount"]}),
        bad=(("not_finite",),),
    )
    yield Case(
        "avro_null_for_a_key",
        "avro",
        lambda: avro(lambda row: row | {"id": None if row["id"] == 3 else row["id"]}, id=["null", "long"]),
        bad=(("required",),),
    )


def _avro_of(schema: Any, records: list[Any]) -> bytes:
    sink = io.BytesIO()
    fastavro.writer(sink, fastavro.parse_schema(schema), records)
    return sink.getvalue()


def _avro_deflated_noise(mark: bytes) -> bytes:
    header, block, _ = avro(codec="deflate").split(mark)
    lengths = 3  # a byte for the number of records, two for that of bytes
    return header + mark + block[:lengths] + noise(len(block) - lengths) + mark


def _avro_of_nothing() -> bytes:
    """A block that says it holds a great many records of no bytes."""
    sink = io.BytesIO()
    schema = {"type": "record", "name": "none", "fields": [{"name": "nothing", "type": "null"}]}
    fastavro.writer(sink, fastavro.parse_schema(schema), [], sync_marker=b"sixteen bytes ok")
    return sink.getvalue() + b"\xfe" + b"\xff" * 7 + b"\x7f" + b"\0" + b"sixteen bytes ok"


def pq_empty() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(parquet())).slice(0, 0), sink)
    return sink.getvalue()


def main(folder: str) -> None:
    """Write all files into a folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for case in cases():
        (target / f"{case.name}.{case.suffix}").write_bytes(case.make())


if __name__ == "__main__":
    main(sys.argv[1])
