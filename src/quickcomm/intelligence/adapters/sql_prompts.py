"""The prompt store in SQL: a version, what it is deployed to and who did that are written in one transaction."""

from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

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


MAX_FOLLOWED: Final = 1_000
OVERLAP_NS: Final = 60 * 10**9
"""Before the newest entry that a side knows, another one may come: an evaluation was on its way while sides changed."""


class PromptChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What one side knows of prompts, for the other one."""

    prompts: tuple[StoredPrompt, ...] = ()
    deployments: tuple[PromptDeployment, ...] = ()
    records: tuple[PromptRecord, ...] = ()


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

    async def changes_since(self, at_ns: int) -> PromptChanges:
        """Return what the other side lacks that knows all until then: all deployments, for it may know others."""
        put = sa.select(deployments).order_by(deployments.c.revision.desc()).limit(MAX_FOLLOWED)
        added = sa.select(prompts).where(prompts.c.added_ns >= at_ns).order_by(prompts.c.added_ns).limit(MAX_FOLLOWED)
        noted = sa.select(audit).where(audit.c.at_ns >= at_ns).order_by(audit.c.id).limit(MAX_FOLLOWED)
        return PromptChanges(
            prompts=tuple(await self._all(added, _prompt)),
            deployments=tuple(await self._all(put, _deployment)),
            records=tuple(await self._all(noted, _record)),
        )

    async def followed_until(self) -> int:
        """Return from when on changes of the other side may be missing here."""
        newest = await self._database.read(
            lambda connection: connection.execute(sa.select(sa.func.max(audit.c.at_ns))).scalar()
        )
        return max(0, (newest or 0) - OVERLAP_NS)

    async def follow(self, found: PromptChanges) -> None:
        """Have what the side that decides has; where both know a revision, its own one counts."""
        await self._database.write(lambda connection: _follow(connection, found))

    async def _one(self, query: sa.Select[tuple[object, ...]], make: Callable[[RowMapping], T]) -> T | None:
        found = await self._all(query, make)
        return found[0] if found else None

    async def _all(self, query: sa.Select[tuple[object, ...]], make: Callable[[RowMapping], T]) -> list[T]:
        return await self._database.read(
            lambda connection: [make(row) for row in connection.execute(query).mappings()],
        )


def _follow(connection: Connection, found: PromptChanges) -> None:
    known = set(connection.execute(sa.select(prompts.c.id)).scalars())
    for prompt in found.prompts:
        if prompt.id not in known:
            connection.execute(prompts.insert().values(msgspec.structs.asdict(prompt)))
    there = {row["revision"]: _deployment(row) for row in connection.execute(sa.select(deployments)).mappings()}
    newest = max((each.revision for each in found.deployments), default=0)
    fresh = [each for each in found.deployments if there.get(each.revision) != each]
    gone = [each.revision for each in fresh] + [revision for revision in there if newest and revision > newest]
    connection.execute(deployments.delete().where(deployments.c.revision.in_(gone)))
    if fresh:
        connection.execute(deployments.insert(), [msgspec.structs.asdict(each) for each in fresh])
    for record in found.records:
        same = (audit.c.at_ns == record.at_ns, audit.c.prompt_id == record.prompt_id, audit.c.action == record.action)
        if connection.execute(sa.select(audit.c.id).where(*same)).first() is None:
            _note(connection, record)


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
