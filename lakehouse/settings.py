"""The platform's settings: one typed file, ``lake.toml``, and environment variables.

An environment variable wins over the file, the file over the default. Names that are not
declared here are refused, so that a typing error never falls back to a default in silence.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from lakehouse.errors import LakeError
from lakehouse.wording import did_you_mean

PROJECT_DIR = Path(os.environ.get("LAKE_PROJECT", Path(__file__).resolve().parent.parent))

MLFLOW_USER = "lake"

# Read before any settings exist: where the project is, and what the wrapper script passes on.
BOOTSTRAP_VARIABLES = frozenset({"LAKE_PROJECT"})


class Ports(BaseModel):
    """TCP ports on the loopback interface."""

    model_config = ConfigDict(extra="forbid")

    postgres: int = Field(15432, description="PostgreSQL.")
    connect: int = Field(15002, description="Spark Connect (sc://).")
    thrift: int = Field(10000, description="Hive Thrift server (jdbc:hive2://).")
    mlflow: int = Field(15000, description="MLflow tracking server.")
    airflow: int = Field(8080, description="Airflow web UI and REST API.")


class AlertRoute(BaseModel):
    """Who is told of which alerts, how and when."""

    model_config = ConfigDict(extra="forbid")

    notifier: str = Field(
        pattern=r"^\w+(\.\w+)+$",
        description="Class of an Airflow notifier, such as `airflow.providers.smtp.notifications.smtp.SmtpNotifier`.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="What it is made with; templates know `alert.subject`, `alert.text` and `alert.html`.",
    )
    severities: tuple[Literal["critical", "warning", "info"], ...] = Field(
        ("critical", "warning"), description="The alerts that it is sent."
    )
    after_minutes: float = Field(
        0, ge=0, description="Only those that nobody has acknowledged for so long: an escalation."
    )


class Settings(BaseSettings):
    """Every setting of the platform, with its default."""

    model_config = SettingsConfigDict(
        env_prefix="LAKE_",
        env_nested_delimiter="__",
        toml_file=PROJECT_DIR / "lake.toml",
        extra="forbid",
        populate_by_name=True,
    )

    home: Path = Field(
        PROJECT_DIR / ".lake",
        description="The one folder that holds all state: data, databases, logs, secrets.",
    )
    drop: str | None = Field(
        None,
        description=(
            "Folder or object-store URL that upstream systems drop files into. Default: `<home>/drop`. A relative path "
            "starts at the checkout."
        ),
    )
    warehouse: str | None = Field(
        None,
        description=(
            "Folder or object-store URL of the Delta tables. Default: `<home>/warehouse`. A relative path starts at "
            "the checkout."
        ),
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description=(
            "A PostgreSQL server to use instead of the embedded one, as `postgresql://user:password@host:port`. "
            "The user needs the right to create databases."
        ),
    )
    spark_remote: str | None = Field(
        None,
        validation_alias=AliasChoices("SPARK_REMOTE", "spark_remote"),
        description="A Spark Connect endpoint (`sc://…`) to use instead of the embedded engine.",
    )
    thrift_host: str | None = Field(
        None,
        description=(
            "Where dbt reaches the Thrift server of that engine, on the port `ports.thrift`. Default: the host of "
            "`spark_remote`."
        ),
    )
    spark_master: str = Field(
        "local[*]", description="Master of the embedded engine: `local[*]`, `spark://…`, `k8s://…`."
    )
    spark_memory: str = Field("3g", description="Heap of the engine's driver, in Java's notation.")
    spark_conf: dict[str, str] = Field(
        default_factory=dict, description="More Spark properties, which win over the platform's own."
    )
    java_home: Path | None = Field(
        None,
        validation_alias=AliasChoices("JAVA_HOME", "java_home"),
        description="A Java 17 or 21 to use instead of the one that comes with the Python environment.",
    )
    jars: Path | None = Field(
        None,
        description=(
            "Folder of the JARs and of an archive of the classes in them, for all state folders. Default: `jars` in "
            "the Python environment."
        ),
    )
    mlflow_tracking_uri: str | None = Field(
        None,
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "mlflow_tracking_uri"),
        description="An MLflow server to use instead of the embedded one.",
    )
    airflow_url: str | None = Field(None, description="Base URL of an Airflow to talk to instead of the embedded one.")
    airflow_user: str = Field("admin", description="Who `lake demo` and the Python client log in as at Airflow.")
    airflow_password: SecretStr | None = Field(
        None, description="The password of that user. Default: the generated one of the embedded Airflow."
    )
    override_approvers: tuple[str, ...] = Field(
        ("role:Admin", "role:Op"),
        description=(
            "Who may approve in Airflow that a gate's verdict is overridden: `role:NAME`, or ids of users. An Airflow "
            "of your own knows roles here when its `auth_manager` is `lakehouse.airflow.auth.LakeFabAuthManager`."
        ),
    )
    promotion_approvers: tuple[str, ...] = Field(
        ("role:Admin", "role:Op"),
        description="Who may decide in Airflow that a version becomes champion, written like `override_approvers`.",
    )
    promotion_hours: float = Field(
        72, gt=0, description="How long such a question waits; the version goes on waiting after that."
    )
    alerts: dict[str, AlertRoute] = Field(
        default_factory=dict,
        description="Who is told of failed gates, warnings and late sources: routes by names of your own.",
    )
    keep_days: int = Field(
        30,
        ge=0,
        description=(
            "How many days `lake maintain` keeps what a release has replaced, so that one can go back to it. What "
            "readers see, and what models and predictions were made from, is kept anyway."
        ),
    )
    cost_per_cpu_hour: float = Field(
        0,
        ge=0,
        description="What an hour of one core costs, for `lake cost`: of the steps' processes and the engine's.",
    )
    cost_per_gib: float = Field(
        0, ge=0, description="What it costs to read a GiB of a source's files, for `lake cost`."
    )
    currency: str = Field("EUR", description="What those two are in; `lake cost` prints it behind amounts.")
    budgets: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="What each owner may spend in 30 days; `lake cost` warns of more, and so does an alert.",
    )
    openlineage: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            'Transport of OpenLineage\'s events, as its clients take it, such as `{type = "http", url = '
            '"http://marquez:5000"}`; without it they go to the file `openlineage/events.jsonl` in `home`.'
        ),
    )
    openlineage_namespace: str = Field(
        "lake", description="Namespace of the platform's jobs and tables in OpenLineage."
    )
    ports: Ports = Field(default_factory=Ports)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings are read from, the first that has one winning."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("drop", "warehouse")
    @classmethod
    def _at_the_checkout(cls, place: str | None) -> str | None:
        # Not at the present folder: each part has another one.
        return place and (place if urlsplit(place).scheme else str(PROJECT_DIR / Path(place).expanduser()))

    @model_validator(mode="after")
    def _one_engine(self) -> Self:
        if self.thrift_host and not self.spark_remote:
            raise ValueError("thrift_host is about the engine that spark_remote names: set that, too")
        return self

    @property
    def jars_folder(self) -> Path:
        """Where the JARs are, and the archive of the classes in them."""
        return self.jars.expanduser().absolute() if self.jars else Path(sys.prefix) / "jars"

    @property
    def drop_url(self) -> str:
        """Where upstream systems drop their files."""
        return self.drop or str(self.home / "drop")

    @property
    def warehouse_url(self) -> str:
        """Root of the Delta tables."""
        return self.warehouse or str(self.home / "warehouse")

    @property
    def spark_url(self) -> str:
        """Spark Connect endpoint that every Python step attaches to, with its token."""
        # The client sends a token without TLS to the host named localhost alone.
        return self.spark_remote or (f"sc://localhost:{self.ports.connect}/;token={self.secret('spark_connect_token')}")

    @property
    def thrift_server(self) -> str:
        """Host of the Thrift server that dbt's statements go to."""
        return self.thrift_host or urlsplit(self.spark_remote or "").hostname or "127.0.0.1"

    @property
    def openlineage_transport(self) -> dict[str, Any]:
        """Configuration of OpenLineage's transport; a backend that does not answer does not hold up the steps."""
        if not self.openlineage:
            path = self.home / "openlineage" / "events.jsonl"
            return {"type": "file", "log_file_path": str(path), "append": True}
        if self.openlineage.get("type") == "http":
            return {"timeout": 2, "retry": {"total": 0, "read": 0, "connect": 0}, **self.openlineage}
        return self.openlineage

    @property
    def mlflow_uri(self) -> str:
        """Tracking and registry URI."""
        return self.mlflow_tracking_uri or f"http://127.0.0.1:{self.ports.mlflow}"

    @property
    def mlflow_login(self) -> tuple[str, str]:
        """User and password of the embedded MLflow."""
        return MLFLOW_USER, self.secret("mlflow_password")

    @property
    def airflow_base_url(self) -> str:
        """Base URL of Airflow's web UI and REST API, without a trailing slash."""
        return (self.airflow_url or f"http://127.0.0.1:{self.ports.airflow}").rstrip("/")

    def postgres_url(self, database: str) -> str:
        """URL of one database on the PostgreSQL server, as libpq takes it.

        Args:
            database: Name of the database.
        """
        if self.database_url:
            server = urlsplit(self.database_url.get_secret_value())
            return urlunsplit(server._replace(path=f"/{database}"))
        return f"postgresql://lake:{self.secret('postgres_password')}@127.0.0.1:{self.ports.postgres}/{database}"

    def secret(self, name: str) -> str:
        """A generated password or key, made on first use and kept in ``<home>/secrets.json`` (mode 600).

        Args:
            name: What the secret is for, such as ``airflow_admin_password``.

        Raises:
            SecretsError: The file cannot be read as what it is.
        """
        path = self.home / "secrets.json"
        self.home.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read()
            try:
                known: dict[str, str] = json.loads(text) if text else {}
            except json.JSONDecodeError as error:
                raise SecretsError(f"{path} is broken: {error}. Take it from a backup, or `lake reset`.") from error
            if name not in known:
                known[name] = secrets.token_urlsafe(24)
                file.seek(0)
                file.write(json.dumps(known, indent=2) + "\n")
                file.truncate()
            return known[name]


def setting_variables() -> set[str]:
    """Names of the environment variables that are settings."""
    prefix = str(Settings.model_config["env_prefix"])
    names = set(BOOTSTRAP_VARIABLES)
    for name, field in Settings.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices):
            # Known by the name that other tools use for the same thing, without our prefix.
            names |= {str(alias).upper() for alias in field.validation_alias.choices}
        else:
            names.add(f"{prefix}{name}".upper())
        if field.annotation is Ports:
            names |= {f"{prefix}{name}__{port}".upper() for port in Ports.model_fields}
    return names


class InvalidSettingError(LakeError, ValueError):
    """What was set cannot be read."""


class UnknownSettingError(InvalidSettingError):
    """A ``LAKE_…`` variable that no setting declares."""


class SecretsError(LakeError):
    """The file of the generated passwords is broken."""


@cache
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        UnknownSettingError: An environment variable with the platform's prefix is not a setting.
        InvalidSettingError: ``lake.toml`` is not valid TOML, or a variable of a list or a table is not valid JSON.
        pydantic.ValidationError: A value has the wrong type, or ``lake.toml`` has an unknown key.
    """
    known = setting_variables()
    for variable in sorted(os.environ):
        name = variable if variable.upper() in BOOTSTRAP_VARIABLES else variable.upper()
        if variable.upper().startswith("LAKE_") and name not in known:
            hint = did_you_mean(variable.upper(), sorted(known))
            raise UnknownSettingError(f"Environment variable {variable} is not a setting of the platform.{hint}")
    try:
        return Settings()
    except SettingsError as error:
        raise InvalidSettingError(f"{error}: {error.__cause__}. docs/reference/settings.md has an example.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettingError(f"{Settings.model_config['toml_file']} is not valid TOML: {error}.") from error
