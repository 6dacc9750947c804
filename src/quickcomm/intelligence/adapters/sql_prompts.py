"""The prompt store in SQL: a version, what it is deployed to and who did that are written in one transaction."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from quickcomm.contracts.prompts import PromptAction
from quickcomm.intelligence.ports import PromptDeployment, PromptRecord, StoredPrompt
from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.storage import Database

T = TypeVar("T", bound=msgspec.Struct)

_metadata = sa.MetaData()
prompts = sa.Table(
    "intelligence_prompts",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String),
    sa.Column("note", sa.Text),
    sa.Column("source", sa.Text),
    sa.Column("added_ns", sa.BigInteger),
    sa.Column("added_by", sa.String),
)
deployments = sa.Table(
    "intelligence_prompt_deployments",
    _metadata,
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("live_id", sa.String),
    sa.Column("canary_id", sa.String),
    sa.Column("weight", sa.Integer),
    sa.Column("back_to", sa.Integer),
)
audit = sa.Table(
    "intelligence_prompt_audit",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at_ns", sa.BigInteger),
    sa.Column("by", sa.String),
    sa.Column("action", sa.String),
    sa.Column("prompt_id", sa.String),
    sa.Column("against_id", sa.String),
    sa.Column("weight", sa.Integer),
    sa.Column("forced", sa.Boolean),
    sa.Column("note", sa.Text),
    sa.Column("evidence", sa.Text),
)


class SqlPrompts:
    """Implements `ports.PromptStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def deployment(self) -> PromptDeployment | None:
        query = sa.select(deployments).order_by(deployments.c.revision.desc()).limit(1)
        return await self._one(query, _deployment)

    async def deployment_at(self, revision: int) -> PromptDeployment | None:
        return await self._one(sa.select(deployments).where(deployments.c.revision == revision), _deployment)

    async def prompts(self) -> list[StoredPrompt]:
        return await self._all(sa.select(prompts).order_by(prompts.c.added_ns.desc(), prompts.c.id), _prompt)

    async def add(self, prompt: StoredPrompt, record: PromptRecord) -> bool:
        def run(connection: Connection) -> bool:
            if connection.execute(sa.select(prompts.c.id).where(prompts.c.id == prompt.id)).first():
                return False
            connection.execute(prompts.insert().values(msgspec.structs.asdict(prompt)))
            _note(connection, record)
            return True

        return await self._database.write(run)

    async def deploy(self, deployment: PromptDeployment, record: PromptRecord) -> None:
        def run(connection: Connection) -> None:
            try:
                connection.execute(deployments.insert().values(msgspec.structs.asdict(deployment)))
            except IntegrityError:
                message = "Somebody else deployed a prompt at this moment. Look at `quickcomm prompts list`, try again."
                raise ConflictError(message) from None
            _note(connection, record)

        await self._database.write(run)

    async def record(self, record: PromptRecord) -> None:
        await self._database.write(lambda connection: _note(connection, record))

    async def records(self, limit: int) -> list[PromptRecord]:
        return await self._all(sa.select(audit).order_by(audit.c.id.desc()).limit(limit), _record)

    async def newest(self, prompt_id: str, actions: Collection[PromptAction]) -> PromptRecord | None:
        query = (
            sa.select(audit)
            .where(audit.c.prompt_id == prompt_id, audit.c.action.in_(actions))
            .order_by(audit.c.id.desc())
            .limit(1)
        )
        return await self._one(query, _record)

    async def _one(self, query: sa.Select[tuple[object, ...]], make: Callable[[RowMapping], T]) -> T | None:
        found = await self._all(query, make)
        return found[0] if found else None

    async def _all(self, query: sa.Select[tuple[object, ...]], make: Callable[[RowMapping], T]) -> list[T]:
        return await self._database.read(
            lambda connection: [make(row) for row in connection.execute(query).mappings()],
        )


def _note(connection: Connection, record: PromptRecord) -> None:
    row = msgspec.structs.asdict(record)
    row["evidence"] = msgspec.json.encode(record.evidence).decode() if record.evidence is not None else None
    connection.execute(audit.insert().values(row))


def _deployment(row: RowMapping) -> PromptDeployment:
    return msgspec.convert(_fields(row), PromptDeployment)


def _prompt(row: RowMapping) -> StoredPrompt:
    return msgspec.convert(_fields(row), StoredPrompt)


def _record(row: RowMapping) -> PromptRecord:
    fields = _fields(row)
    del fields["id"]
    if fields["evidence"] is not None:
        fields["evidence"] = msgspec.json.decode(fields["evidence"])
    return msgspec.convert(fields, PromptRecord)


def _fields(row: RowMapping) -> dict[str, Any]:
    """Under plain names: SQLAlchemy's own are a kind of string that is not taken for one."""
    return {str(name): value for name, value in row.items()}
