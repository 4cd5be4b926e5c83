"""MLflow's store: opened, or refused in one line that says what is wrong. MLflow itself would retry for minutes.

A store is an SQLite file, a PostgreSQL or MySQL database, or a tracking server, told apart by the tracking URI. MLflow
is imported inside functions only.
"""

import contextlib
import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness.errors import BadCommand, Unavailable
from harness.runs import writable

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

PREFIX = "ssl-harness/"  # of experiments, so that a shared server keeps ours apart
WAIT_S = 10.0  # for a locked database or a server's answer
ANEW = "move it away, and `harness sync` makes it anew"
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")


def default_uri(runs: Path) -> str:
    return f"sqlite:///{(runs / 'mlflow.db').absolute()}"


def sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def shown(uri: str) -> str:
    """A tracking URI without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", uri)


def where_to_look(uri: str) -> str:
    """How a person opens it."""
    return shown(uri) if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


@contextlib.contextmanager
def opened(uri: str, *, write: bool) -> "Iterator[MlflowClient]":
    """A client of a store that answers.

    Errors: Unavailable (no database or server, locked for long, damaged, of another version), NotWritable; BadCommand
    for what is no tracking URI, or needs a driver that is not installed.
    """
    fresh = write and (file := sqlite_file(uri)) is not None and not file.exists()
    _check(uri, write)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # of a request to a server, with a growing pause
    with warnings.catch_warnings(), _hurried() if fresh else contextlib.nullcontext():
        # MLflow's models on SQLAlchemy 2.1; nothing a user can act on
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        for name in ("mlflow", "alembic"):  # not the migrations of a new database
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what is raised anyway
        try:
            yield mlflow.MlflowClient(uri)
        except (MlflowException, SQLAlchemyError) as error:
            raise Unavailable(_explained(uri, error)) from error


@contextlib.contextmanager
def _hurried() -> Iterator[None]:
    """SQLite does not wait for the disk, as it else does ten times for each run: a new database has nothing to lose."""
    from sqlalchemy import Engine, event

    def connected(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


def experiments(client: "MlflowClient") -> "list[Experiment]":
    """Ours that are not deleted."""
    return pages(lambda token: client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'", page_token=token))


def pages(ask: Callable[[str | None], Any]) -> list[Any]:
    found, token = [], None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found


# ------------------------------------------------------------------------------------------ what may be wrong


def _check(uri: str, write: bool) -> None:
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme not in SCHEMES:
        raise BadCommand(
            f"{shown(uri)!r} is no tracking URI; expected http://host:port, postgresql+psycopg://user@host/database "
            "or sqlite:///file"
        )
    if scheme in ("http", "https"):
        _check_server(uri)
    elif scheme == "sqlite":
        _check_file(Path(uri.removeprefix("sqlite:///")), write)
    else:
        _check_database(uri)


def _check_server(uri: str) -> None:
    """It is a server if it answers in time, whatever it answers: /health may be behind somebody's proxy."""
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=WAIT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"no MLflow server at {shown(uri)}: {reason}; start it, or leave --mlflow out to use a file"
        ) from error


def _check_file(file: Path, write: bool) -> None:
    if not write and not file.exists():
        raise Unavailable(f"no MLflow database at {file}; `harness sync` makes it from the run directories")
    if write:
        with writable(file):
            file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=WAIT_S)) as database:
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
            versions = (
                database.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else []
            )
            found = [version for (version,) in versions]
            database.rollback()
    except sqlite3.Error as error:
        fix = "wait for the process that holds it" if "locked" in str(error) else ANEW
        raise Unavailable(f"MLflow database {file}: {error}; {fix}") from error
    if tables and "experiments" not in tables:
        raise Unavailable(f"{file} is a database, but not MLflow's; {ANEW}")
    _check_version(f"MLflow database {file}", f"sqlite:///{file}", found)


def _check_database(uri: str) -> None:
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    limit = {"connect_timeout": int(WAIT_S)} if uri.startswith(("postgresql", "mysql")) else {}
    try:
        engine = sqlalchemy.create_engine(uri, connect_args=limit, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as database:
            known = sqlalchemy.inspect(database).has_table("alembic_version")
            versions = sqlalchemy.text("SELECT version_num FROM alembic_version")
            found = [row[0] for row in database.execute(versions)] if known else []
    except ModuleNotFoundError as error:
        raise BadCommand(
            f"{shown(uri)} needs a driver: {error}; for PostgreSQL pip install -c constraints.txt 'psycopg[binary]' "
            "and write postgresql+psycopg://"
        ) from error
    except SQLAlchemyError as error:
        raise Unavailable(
            f"MLflow database {shown(uri)} does not answer: {_line(error)}; the run directories are untouched"
        ) from error
    _check_version(f"MLflow database {shown(uri)}", shown(uri), found)


def _check_version(what: str, uri: str, found: list[str]) -> None:
    """Refuse another schema than the installed MLflow's, before MLflow migrates it under a server of that version."""
    import mlflow
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    for version in set(found) - set(scripts.get_heads()):
        try:
            scripts.get_revision(version)
        except CommandError as error:
            raise Unavailable(
                f"{what} was made by a newer MLflow than {mlflow.__version__} (its schema is {version}); install that "
                "one, or name another place with --mlflow: `harness sync` fills it from the run directories"
            ) from error
        raise Unavailable(
            f"{what} was made by an older MLflow than {mlflow.__version__} (its schema is {version}); keep a copy and "
            f"`mlflow db upgrade {uri}`, or {ANEW.replace('it away', 'the old one away')}"
        )


def _explained(uri: str, error: Exception) -> str:
    """One line of what MLflow said while it was at work."""
    reason, file = _line(error), sqlite_file(uri)
    if file and "locked" in reason:
        return f"MLflow database {file}: database is locked; wait for the process that holds it"
    if file and ("malformed" in reason or "not a database" in reason):
        return f"MLflow database {file}: {reason}; {ANEW}"
    return f"MLflow at {shown(uri)} answered: {reason}; the run directories are untouched"


def _line(error: Exception) -> str:
    """The first line, without the name of a class in brackets."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\([\w.]+\) ", "", text)
