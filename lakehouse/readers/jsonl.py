"""JSON lines: one object a line, in UTF-8. A blank line is no record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lakehouse.readers.batch import UNKNOWN_KEY, Batch, SourceError
from lakehouse.readers.drift import align
from lakehouse.readers.files import check_text, delivered, fingerprints, lines, readable, stamps, with_position

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

ENCODING = "UTF-8"
# NaN and Infinity are no JSON.
_OPTIONS = {"columnNameOfCorruptRecord": "_corrupt", "allowNonNumericNumbers": "false"}
# Without a format, Spark cuts microseconds off.
_WRITTEN = {
    "ignoreNullFields": "false",
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}
_INTEGERS = ("TINYINT", "SMALLINT", "INT", "BIGINT")


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the JSON-lines files of an interval.

    Args:
        contract: The source's contract.
        interval: The days to read.

    Raises:
        SourceError: A file is empty or is no text.
    """
    from pyspark.sql import functions as F

    paths = delivered(contract, interval)
    marks = stamps(paths)
    files = fingerprints(paths)
    for path in paths:
        check_text(path, ENCODING, quoted=False)
    local = readable(paths)
    numbered = lines(local, blank=True).select(
        F.regexp_replace("_line", "^\ufeff|\r$", "").alias("_raw"),
        F.lit(None).cast("array<string>").alias("_columns"),
        "_path",
        "_number",
    )
    records = with_position(numbered, paths, F.col("_number"), local).where(F.trim("_raw") != "")
    batch = reread(records.drop("_number"), contract)
    return Batch(batch.rows, files, batch.added, marks)


def reread(records: DataFrame, contract: Contract) -> Batch:
    """Take JSON objects apart; each value as text, as it stands there.

    Args:
        records: See :func:`lakehouse.readers.reread`.
        contract: The source's contract. A key that it does not declare makes the record malformed, unless its
            ``schemaDrift`` lets it in or has it ignored.
    """
    from pyspark.sql import functions as F

    added = _new_keys(records, contract) if contract.schema_drift == "evolve" else ()
    names = [*(column.name for column in contract.columns), *added]
    schema = ", ".join(f"`{name}` string" for name in (*names, "_corrupt"))
    text, keys = F.col("_raw"), F.json_object_keys("_raw")
    if contract.schema_drift != "reject":
        text, keys = _with_plain_keys(text, keys)
    # Spark takes the first value of a line and passes over whatever follows it.
    values = F.size(F.from_json(F.concat(F.lit("["), F.col("_raw"), F.lit("]")), F.lit("array<string>")))
    unknown = F.array_except(keys, F.array(*map(F.lit, names)))
    malformed = F.when(
        keys.isNull() | F.col("_record._corrupt").isNotNull() | ~values.eqNullSafe(F.lit(1)),
        _fault("not_json", F.lit("malformed record: it is not a JSON object")),
    ).when(
        F.size(keys) > F.size(F.array_distinct(keys)),
        _fault("duplicate_key", F.lit("malformed record: a key is there twice")),
    )
    texts = [column.name for column in contract.columns if column.spark_type == "STRING"]
    nested = [F.when(_is_nested(name), F.lit(name)) for name in (*texts, *added)]
    malformed = malformed.when(
        F.size(F.array_compact(F.array(*nested))) > 0,
        _fault(
            "nested",
            F.concat(
                F.lit("malformed record: an object or a list instead of a text: "),
                F.array_join(F.array_compact(F.array(*nested)), ", "),
            ),
        ),
    )
    if contract.schema_drift != "ignore":
        malformed = malformed.when(
            F.size(unknown) > 0,
            _fault(
                UNKNOWN_KEY, F.concat(F.lit("malformed record: not in the contract: "), F.array_join(unknown, ", "))
            ),
        )
    rows = records.withColumn("_record", F.from_json(text, F.lit(schema), _OPTIONS)).select(
        *(F.col(f"_record.`{name}`").alias(name) for name in names), *records.columns, malformed.alias("_malformed")
    )
    return Batch(rows, added=dict.fromkeys(added, "STRING"))


def _with_plain_keys(text: Column, keys: Column) -> tuple[Column, Column]:
    """An object whose keys are small letters without spaces around them, as those of the contract are, and these keys.

    Where two keys become the same, the object is left as it is.
    """
    from pyspark.sql import functions as F

    plain = F.transform(keys, lambda key: F.lower(F.trim(key)))
    values = F.from_json(text, F.lit("map<string,string>"), _OPTIONS)
    renamed = F.to_json(F.transform_keys(values, lambda key, _: F.lower(F.trim(key))))
    differ = (plain != keys) & (F.size(plain) == F.size(F.array_distinct(plain)))
    return F.when(differ, renamed).otherwise(text), plain


def record(fields: Mapping[str, tuple[Column, str]], contract: Contract) -> Column:
    """A record of typed values as a struct, whose JSON :func:`reread` reads as the same values.

    Args:
        fields: Name to value and its type.
        contract: The source's contract.
    """
    from pyspark.sql import functions as F

    declared = {column.name: column.spark_type for column in contract.columns}
    values = [kept(value, found, declared.get(name)).alias(name) for name, (value, found) in fields.items()]
    return F.struct(*values)


def as_text(records: DataFrame) -> DataFrame:
    """Records whose ``_raw`` is text, as :func:`lakehouse.readers.reread` takes them.

    Args:
        records: With ``_raw`` as a reader gives it.
    """
    from pyspark.sql import functions as F

    is_text = dict(records.dtypes)["_raw"] == "string"
    return records if is_text else records.withColumn("_raw", written(F.col("_raw")))


def written(values: Column) -> Column:
    """A record of typed values as JSON.

    Args:
        values: Outcome of :func:`record`.
    """
    from pyspark.sql import functions as F

    return F.to_json(values, _WRITTEN)


def kept(value: Column, found: str, declared: str | None) -> Column:
    """A typed value, made so that the contract's type makes the same of its text as of itself.

    Args:
        value: The value.
        found: Its type.
        declared: That of the contract; None for a column that it does not have.
    """
    from pyspark.sql import functions as F

    if declared == "STRING" or (declared and found == "binary"):
        return value.cast("string")
    if declared == "DOUBLE" and found == "float":
        # 0.1 of 32 bits is 0.10000000149011612.
        return value.cast("double")
    if declared in _INTEGERS and found.startswith(("double", "float", "decimal")):
        # 12.0 is an integer as a number, and is none as a text.
        whole = value.try_cast("bigint")
        return F.when(value == whole, whole.cast("string")).otherwise(value.cast("string"))
    return value


def _fault(code: str, text: Column) -> Column:
    from pyspark.sql import functions as F

    return F.struct(F.lit(code).alias("code"), text.alias("text"))


def _is_nested(name: str) -> Column:
    """Whether a text is that of an object or list; looked at closely only where it can be."""
    from pyspark.sql import functions as F

    text = F.col(f"_record.`{name}`")
    kind = F.schema_of_variant(F.try_variant_get(F.try_parse_json("_raw"), f"$.{name}", "variant"))
    # Under another key, by case or spaces, it is not found: then it counts as what it looks like.
    return F.when(text.rlike(r"^[\[{]"), F.coalesce(kind.rlike("^(ARRAY|OBJECT)"), F.lit(True)))


def _new_keys(records: DataFrame, contract: Contract) -> tuple[str, ...]:
    from pyspark.sql import functions as F

    found = records.select(F.explode(F.json_object_keys("_raw")).alias("key")).distinct().collect()
    known = [column.name for column in contract.columns]
    keys = sorted({row["key"].strip().lower() for row in found})
    new = [key for key in keys if key not in known]
    if not new:
        return ()
    try:
        # Which keys are missing is a matter of each record.
        return align([*known, *new], contract, contract.name).added
    except SourceError as error:
        raise SourceError(
            f"{contract.name}: its JSON has keys that cannot become columns. {error}", error.code
        ) from error
