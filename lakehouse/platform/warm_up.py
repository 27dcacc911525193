"""A first use of the engine through Spark Connect; the watchman runs it in a process of its own."""

from __future__ import annotations

from lakehouse.engine import spark
from lakehouse.platform import engine


def main() -> None:
    """Write and read a small Delta table by the way that the steps take."""
    session = spark()
    path = str(engine.folder() / "tmp" / "warm-up-connect")
    session.createDataFrame([(1, "a"), (2, "b")], "id int, name string").write.format("delta").mode("overwrite").save(
        path
    )
    session.read.format("delta").option("versionAsOf", 0).load(path).groupBy("name").count().toPandas()
    session.stop()


if __name__ == "__main__":
    main()
