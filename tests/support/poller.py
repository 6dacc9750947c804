"""A desk where things happen in any order, and a client that polls it: what it knows must be what there is."""

import contextlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from hypothesis import strategies as st
from tests.support.dashboard_site import START_NS, found, heard, insight

from quickcomm.contracts.conversations import ConversationChanged, ConversationState
from quickcomm.dashboard.adapters.changed import (
    Changing,
    changing_conversations,
    changing_tasks,
    changing_utterances,
)
from quickcomm.dashboard.adapters.queries import SqlQueries
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.model.edits import Action, Edit
from quickcomm.dashboard.model.places import After
from quickcomm.dashboard.ports import Listed, Page, UtteranceFilter
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.errors import ConflictError

SITE: Final = "main"
ALL: Final = UtteranceFilter()
BEGINNING: Final = After(change=0)


class Kind(NamedTuple):
    """What is polled: how its items are named, and which of them change."""

    name: Callable[[Any], str]
    changing: Callable[[str], Changing]


KINDS: Final = {
    "utterances": Kind(lambda card: card.utterance_id, lambda site: changing_utterances(site, ALL)),
    "tasks": Kind(lambda task: task.task_id, changing_tasks),
    "conversations": Kind(lambda each: each.conversation_id, lambda site: changing_conversations(site, None)),
}


class Said(msgspec.Struct, frozen=True):
    """The transcript of an utterance."""

    place: int


class Understood(msgspec.Struct, frozen=True):
    """Insights of it: the rooms that need something, and those where something is done."""

    place: int
    revision: int
    wanted: tuple[str, ...]
    done: tuple[str, ...]


class Edited(msgspec.Struct, frozen=True):
    """A person does something with one of the tasks there are."""

    task: int
    action: Action


class Turned(msgspec.Struct, frozen=True):
    """The conversation comes into another state."""

    state: ConversationState
    second: int


places = st.integers(0, 5)
rooms = st.lists(st.sampled_from(["411", "412"]), max_size=3).map(tuple)
deeds: st.SearchStrategy[Any] = (
    st.builds(Said, places)
    | st.builds(Understood, places, st.integers(1, 3), rooms, rooms)
    | st.builds(Edited, st.integers(0, 9), st.sampled_from(["acknowledge", "complete", "assign", "reopen"]))
    | st.builds(Turned, st.sampled_from(["live", "interrupted", "ended"]), st.integers(0, 9))
)


class Desk:
    """Does what is to be done in a transaction each."""

    def __init__(self, database: Any) -> None:
        self._database = database

    async def do(self, deed: Any) -> None:
        await self._database.write(lambda connection: self._do(SqlState(connection), deed))

    def _do(self, state: SqlState, deed: Any) -> None:
        projector = Projector(state)
        decider = Decider(projector, state, START_NS)
        if isinstance(deed, Said):
            projector.transcript(_spoken(deed.place))
        elif isinstance(deed, Understood):
            needs = [("request_item", room) for room in deed.wanted] + [("task_done", room) for room in deed.done]
            insights = [insight(intent, room, index=index) for index, (intent, room) in enumerate(needs)]
            opens = found(_spoken(deed.place), *insights[: len(deed.wanted)]).opens_tasks
            message = found(_spoken(deed.place), *insights, revision=deed.revision)
            projector.insights(msgspec.structs.replace(message, opens_tasks=opens))
        elif isinstance(deed, Turned):
            projector.conversation(_turned(deed))
        else:
            self._edit(state, decider, deed)
        decider.settle()
        projector.finish()

    def _edit(self, state: SqlState, decider: Decider, deed: Edited) -> None:
        tasks = [task for place in range(6) for task in state.tasks_of(SITE, _spoken(place).utterance_id)]
        if not tasks:
            return
        with contextlib.suppress(ConflictError):
            edit = Edit(action=deed.action, by="Ada", assignee="Bob")
            decider.edit(SITE, tasks[deed.task % len(tasks)].task_id, edit)


class Poller:
    """Asks for changes, and keeps what it is told."""

    def __init__(self, database: Any) -> None:
        self._queries = SqlQueries(database)
        self._after = dict.fromkeys(KINDS, BEGINNING)
        self._known: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}

    async def ask(self, kind: str, limit: int) -> bool:
        """Return whether there is more now."""
        answer = await self._list(kind, Page(limit=limit, after=self._after[kind]))
        assert len(answer.items) <= limit
        assert answer.after is not None
        assert answer.cursor is None
        self._after[kind] = answer.after
        self._known[kind] |= {KINDS[kind].name(item): item for item in answer.items}
        return answer.more

    async def check(self) -> None:
        """Compare it with the lists. A task is gone if its card does not have it any more."""
        standing = {task.task_id for card in self._known["utterances"].values() for task in card.tasks}
        for kind, known in self._known.items():
            there = {KINDS[kind].name(item): item for item in (await self._list(kind, Page(limit=200))).items}
            if kind == "tasks":
                known = {name: item for name, item in known.items() if name in standing}  # noqa: PLW2901
            assert known == there, kind

    async def _list(self, kind: str, page: Page) -> Listed[Any]:
        if kind == "utterances":
            return await self._queries.utterances(SITE, ALL, page)
        if kind == "tasks":
            return await self._queries.tasks(SITE, None, None, page)
        return await self._queries.conversations(SITE, None, None, page)


def _spoken(place: int) -> Any:
    """Return what two receivers hear, each on a channel of its own: one may be a copy of the other."""
    moment, receiver = divmod(place, 2)
    text = f"bring fresh towels to the room on floor {moment}"
    start = moment * 160_000 + receiver * 4_800
    return heard(start, text, conversation=f"c{receiver}", channel=f"channel-{receiver}")


def _turned(deed: Turned) -> ConversationChanged:
    return ConversationChanged(
        site=SITE,
        conversation_id="c0",
        channel="channel-0",
        state=deed.state,
        sample_rate=16_000,
        speakers=1,
        at_ns=START_NS + deed.second * 10**9,
        ledgers=(),
    )
