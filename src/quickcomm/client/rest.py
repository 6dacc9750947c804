"""REST for Python: lists page by page, what has changed since, and edits of tasks, as typed structs.

Fields that a newer server adds do no harm; what is not here is in the server's `/openapi.json`.
"""

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from quickcomm.client.errors import NotAllowedError, ProtocolError, RefusedError, UnauthorizedError
from quickcomm.contracts.audio_socket import InsightSeen
from quickcomm.contracts.conversations import Ledger
from quickcomm.kernel.errors import BusyError, ConflictError, GoneError, NotFoundError, QuickCommError

RESET: Final = "cursor.reset"
PAGE: Final = 200
ANSWER_S: Final = 20.0
Edit = Literal["acknowledge", "complete", "reopen"]
T = TypeVar("T")


class TaskSeen(msgspec.Struct, frozen=True, kw_only=True):
    task_id: str
    utterance_id: str
    status: str
    channel: str
    intent: str
    department: str
    urgency: str
    rooms: tuple[str, ...]
    summary: str
    assignee: str | None
    created_at: str
    version: int


class UtteranceSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A card. `spoken_at`: when it was said, RFC 3339."""

    utterance_id: str
    conversation_id: str
    channel: str
    speaker: int
    text: str
    status: str
    spoken_at: str
    insights: tuple[InsightSeen, ...]
    tasks: tuple[TaskSeen, ...]
    change: int


class ConversationSeen(msgspec.Struct, frozen=True, kw_only=True):
    conversation_id: str
    channel: str
    state: str
    started_at: str
    ended_at: str | None
    utterances: int
    ledger: Ledger
    change: int


class ChangedTaskError(ConflictError):
    """Raised where the task has another version than `expected`; `task` is its present state."""

    code = "client.task_changed"

    def __init__(self, message: str, task: TaskSeen | None) -> None:
        super().__init__(message)
        self.task = task


class _List(msgspec.Struct, Generic[T], kw_only=True):
    items: list[T]
    next_cursor: str | None = None
    next_after: str | None = None
    more: bool = False


class Changes(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Changes in their order. `after`: cursor for the next request. `reset`: `items` is the whole list anew."""

    items: list[T]
    after: str
    reset: bool = False


class _Problem(msgspec.Struct, kw_only=True):
    detail: str = ""
    code: str = ""
    task: TaskSeen | None = None


class RestClient:
    """A server and a key. `async with RestClient(url, key) as rest: …`; each method raises `QuickCommError`."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=aiohttp.ClientTimeout(total=ANSWER_S), raise_for_status=False
        )
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def utterances(self, **query: str) -> AsyncIterator[UtteranceSeen]:
        """Yield utterances, newest first, page by page.

        `query`: `query`, `channel`, `department`, `conversation`, `since`.
        """
        return self._all("/v1/utterances", query, _List[UtteranceSeen])

    def tasks(self, **query: str) -> AsyncIterator[TaskSeen]:
        """Yield tasks, newest first. `query`: `status`, `department`."""
        return self._all("/v1/tasks", query, _List[TaskSeen])

    def conversations(self, **query: str) -> AsyncIterator[ConversationSeen]:
        """Yield conversations, newest first. `query`: `state`, `channel`."""
        return self._all("/v1/conversations", query, _List[ConversationSeen])

    async def changed_utterances(self, after: str = "0", **query: str) -> Changes[UtteranceSeen]:
        """Return what has changed after `after`, "0" for everything: poll with the `after` of the last answer."""
        return await self._changes("/v1/utterances", after, query, _List[UtteranceSeen])

    async def changed_tasks(self, after: str = "0") -> Changes[TaskSeen]:
        """Return the tasks that changed, as `changed_utterances` does."""
        return await self._changes("/v1/tasks", after, {}, _List[TaskSeen])

    async def utterance(self, utterance_id: str) -> UtteranceSeen:
        return await self._ask("GET", f"/v1/utterances/{_in_path(utterance_id)}", UtteranceSeen)

    async def conversation(self, conversation_id: str) -> ConversationSeen:
        return await self._ask("GET", f"/v1/conversations/{_in_path(conversation_id)}", ConversationSeen)

    async def edit(self, task_id: str, edit: Edit, expected: int | None = None) -> TaskSeen:
        """Edit a task. `expected`: the version that was seen; raises `ChangedTaskError` where it is another by now."""
        return await self._ask("POST", f"/v1/tasks/{_in_path(task_id)}/{edit}", TaskSeen, query=_expected(expected))

    async def assign(self, task_id: str, assignee: str | None, expected: int | None = None) -> TaskSeen:
        """Assign a task to a person; None removes the assignee. Raises as `edit` does."""
        body = {"assignee": assignee}
        return await self._ask(
            "POST", f"/v1/tasks/{_in_path(task_id)}/assign", TaskSeen, query=_expected(expected), body=body
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _all(self, path: str, query: Mapping[str, str], kind: type[_List[T]]) -> AsyncIterator[T]:
        asked = {"limit": str(PAGE), **query}
        while True:
            found = await self._ask("GET", path, kind, query=asked)
            for item in found.items:
                yield item
            if found.next_cursor is None:
                return
            asked["cursor"] = found.next_cursor

    async def _changes(self, path: str, after: str, query: Mapping[str, str], kind: type[_List[T]]) -> Changes[T]:
        items: list[T] = []
        reset = False
        while True:
            try:
                found = await self._ask("GET", path, kind, query={"limit": str(PAGE), **query, "after": after})
            except GoneError:  # another dashboard answers, which counts by itself
                if reset:
                    raise
                items, after, reset = [], "0", True
                continue
            items += found.items
            after = found.next_after or after
            if not found.more:
                return Changes(items=items, after=after, reset=reset)

    async def _ask(
        self, method: str, path: str, kind: type[T], *, query: Mapping[str, str] | None = None, body: object = None
    ) -> T:
        if self._session is None:
            raise ProtocolError("Use it as: async with RestClient(url, key) as rest.")
        try:
            async with self._session.request(method, f"{self._url}{path}", params=query, json=body) as answer:
                raw, status = await answer.read(), answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BusyError(f"{self._url} does not answer: {type(error).__name__}.") from error
        if status >= HTTPStatus.BAD_REQUEST:
            raise _error(status, raw)
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"{path} is answered with something else than is known here: {error}") from error


def _error(status: int, raw: bytes) -> QuickCommError:
    """Return the error that a problem document means."""
    try:
        problem = msgspec.json.decode(raw, type=_Problem)
    except msgspec.MsgspecError:
        problem = _Problem(detail=f"HTTP {status}")
    kinds: dict[int, type[QuickCommError]] = {
        401: UnauthorizedError,
        403: NotAllowedError,
        404: NotFoundError,
        409: ConflictError,
        410: GoneError,
        429: BusyError,
    }
    if status == HTTPStatus.CONFLICT and problem.task is not None:
        return ChangedTaskError(problem.detail, problem.task)
    if status in kinds:
        return kinds[status](problem.detail)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return BusyError(problem.detail)
    return RefusedError(problem.detail, server_code=problem.code)


def _expected(version: int | None) -> dict[str, str] | None:
    return None if version is None else {"expected": str(version)}


def _in_path(text: Any) -> str:
    return quote(str(text), safe="")
