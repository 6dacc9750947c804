"""A database on a PostgreSQL server, by URL, through psycopg.

Whoever writes first takes an advisory lock that ends with the transaction, so that writers of several processes follow
each other as they do in a SQLite file: what one reads before it writes cannot change under it. The transactions are
`READ COMMITTED`, because the snapshot of a stricter one would be older than the lock. A process that hangs within a
transaction is cut off by the server.
"""

from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.storage.errors import StorageAwayError, StorageError
from quickcomm.kernel.storage.turnstile import Turnstile

SCHEMES: Final = ("postgresql://", "postgres://", "postgresql+psycopg://")
LOCK: Final = "SELECT pg_advisory_xact_lock(20834, 1)"
SESSION: Final = "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '30s'"
SAYS_VALUES: Final = ("22", "23")
"""Classes of errors whose text may repeat what was to be stored."""
AWAY: Final = ("08", "25006", "25P03", "53", "55P03", "57P")
"""Connection lost, a standby, cut off as idle, no room, a lock that somebody hangs on to, shut down or starting."""
DEFAULTS: Final[dict[str, str | int]] = {
    "application_name": "quickcomm",
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""For what the URL leaves open; libpq knows them all, and those for TLS (`sslmode`, `sslrootcert`, …)."""


class Postgres:
    """Implements `Backend`. A connection that was lost is made again by the next transaction."""

    def __init__(self, url: str) -> None:
        """Raises `ConfigurationError` for a URL that is none."""
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):  # its text would repeat the password
            raise ConfigurationError(
                "Not the address of a PostgreSQL database. It looks like postgresql://user:password@host/name."
            ) from None
        self._url = parsed.set(drivername="postgresql+psycopg")
        self._secrets = [str(secret) for secret in (parsed.password, *_passwords(parsed.query)) if secret]
        self.name = parsed.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
        self.shared = True

    def writer(self) -> Engine:
        engine = self._engine(pool_size=1, max_overflow=3)

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: object) -> None:
            connection.autocommit = True
            connection.execute(SESSION)
            connection.autocommit = False

        @event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            connection.exec_driver_sql(LOCK)

        return engine

    def reader(self, connections: int) -> Engine:
        engine = self._engine(pool_size=connections, max_overflow=0)

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: object) -> None:
            from psycopg import IsolationLevel  # noqa: PLC0415 - only where there is a server

            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            connection.read_only = True

        return engine

    def turnstile(self) -> Turnstile:
        """On a connection of its own, which is made when it is needed first."""
        return Turnstile(self._engine(pool_size=1, max_overflow=0))

    def in_transaction(self, connection: Connection) -> bool:
        """False once the connection is lost."""
        from psycopg.pq import TransactionStatus  # noqa: PLC0415 - only where there is a server

        if connection.invalidated:
            return False
        driver: Any = connection.connection.driver_connection
        return driver is not None and driver.info.transaction_status == TransactionStatus.INTRANS

    def failure(self, what: str, error: SQLAlchemyError, *, starting: bool = False) -> StorageError:
        """Without the driver's error as its cause: PostgreSQL repeats values in its details."""
        kind = StorageAwayError if _is_away(error) else StorageError
        return kind(f"{what}: {self._reason(error, starting=starting)}")

    def _reason(self, error: SQLAlchemyError, *, starting: bool) -> str:
        original: Any = getattr(error, "orig", None)
        state = getattr(original, "sqlstate", None)
        if original is None:
            text = type(error).__name__
        elif state is None and not starting:
            lost = isinstance(error, OperationalError)
            text = "the server does not answer, or has closed the connection" if lost else type(original).__name__
        elif state is None:
            text = " ".join(str(original).split())
        elif state.startswith(SAYS_VALUES):
            text = f"{type(original).__name__} ({state})"
        else:
            text = f"{original.diag.message_primary} ({state})"
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _engine(self, **pool: int) -> Engine:
        given = {name: value for name, value in DEFAULTS.items() if name not in self._url.query}
        return create_engine(self._url, hide_parameters=True, pool_pre_ping=True, connect_args=given, **pool)


def _is_away(error: SQLAlchemyError) -> bool:
    """No connection, or one that the server ends, or will not have now."""
    original: Any = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None)
    return isinstance(error, OperationalError) if state is None else str(state).startswith(AWAY)


def _passwords(query: Any) -> list[Any]:
    return [value for name, value in query.items() if "password" in name]
