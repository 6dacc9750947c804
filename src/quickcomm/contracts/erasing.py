"""Erasure: what is to be erased, by ids, and what each module answers when it is told to erase.

A name or a time range becomes ids first (`Find…`). From then on only ids are kept: in the requests, in the tombstones,
in the receipt, and in the operation whose steps erase.
"""

from typing import Annotated, ClassVar, Final, Literal

import msgspec

from quickcomm.contracts.commands import Command, OfStore
from quickcomm.contracts.messaging import Request
from quickcomm.contracts.operations import MOST_SHOWN
from quickcomm.contracts.saga import OPERATIONS, StepRequest

MAX_IDS: Final = 1_000
"""Of one request to erase. What is more goes in several."""
ERASED: Final = "erased.present"
"""The code of a finding: something that was erased is there."""


def conversation_of(utterance_id: str) -> str:
    """Return the id of the conversation of an utterance."""
    return utterance_id.partition(":")[0]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be erased, in words: a conversation, a name, or what was said from `since_ns` until before `until_ns`.

    Just one of the three. A name stands for each utterance that has it as a word in its text, its channel or what it
    asks for, and for each whose task was given to a person of that name or done by one.
    """

    site: str = "main"
    conversation: str = ""
    name: str = ""
    since_ns: int = 0
    until_ns: int = 0

    @property
    def is_one(self) -> bool:
        """Return True if exactly one of the three is given."""
        return [bool(self.conversation), bool(self.name.strip()), self.until_ns > self.since_ns].count(True) == 1


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be erased, by ids: whole conversations, with all that is still said in them, and single utterances.

    `operations`: those whose records have a name that is to be erased.
    """

    site: str = "main"
    conversations: tuple[str, ...] = ()
    utterances: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.conversations or self.utterances or self.operations)

    def has(self, site: str, utterance_id: str) -> bool:
        """Return True if this utterance is to be erased."""
        is_whole = conversation_of(utterance_id) in self.conversations
        return site == self.site and (is_whole or utterance_id in self.utterances)

    def touched(self) -> list[str]:
        """Return the ids of all conversations of which something is to be erased."""
        return sorted({*self.conversations, *map(conversation_of, self.utterances)})

    def joined(self, other: "Scope") -> "Scope":
        """Return what either has. Utterances of a conversation that goes as a whole are not named."""
        conversations = {*self.conversations, *other.conversations}
        utterances = {
            each for each in (*self.utterances, *other.utterances) if conversation_of(each) not in conversations
        }
        return Scope(
            site=self.site,
            conversations=tuple(sorted(conversations)),
            utterances=tuple(sorted(utterances)),
            operations=tuple(sorted({*self.operations, *other.operations})),
        )

    def parts(self) -> list["Scope"]:
        """Return scopes of at most `MAX_IDS` ids that are together what this one is."""
        names = [(kind, each) for kind in _KINDS for each in getattr(self, kind)]
        found = []
        for start in range(0, len(names), MAX_IDS):
            part = names[start : start + MAX_IDS]
            ids = {kind: tuple(each for of, each in part if of == kind) for kind in _KINDS}
            found.append(Scope(site=self.site, **ids))
        return found


_KINDS: Final = ("conversations", "utterances", "operations")


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a receipt: how much of one kind was erased in one store. `gone`: by when, where that is not now."""

    store: str
    what: str
    count: int
    gone: str = ""


class Find(Command, frozen=True, kw_only=True):
    """Asks a module which utterances are meant. Gives a `Scope`.

    `utterances`: known from elsewhere, of which the module adds what belongs to them.
    """

    within_s: ClassVar = 600.0
    about: ClassVar = "what it has stored"

    wanted: Wanted
    utterances: tuple[str, ...] = ()


class FindDashboard(Find, frozen=True, kw_only=True, tag="erase.find.dashboard"):
    module: ClassVar = "dashboard"


class FindOperations(Find, frozen=True, kw_only=True, tag="erase.find.operations"):
    module: ClassVar = OPERATIONS


class FindMessages(OfStore, frozen=True, kw_only=True, tag="erase.find.messages"):
    """Asks for utterances in messages that wait, and in dead letters. Gives a `Scope`."""

    wanted: Wanted


class Erase(Command, frozen=True, kw_only=True):
    """Tells a module to erase what these ids stand for, and to take none of it again. Gives a list of `Erased`.

    Repeated, it finds nothing more, and answers likewise. `erasure`: the id under which the tombstones are kept.
    """

    within_s: ClassVar = 600.0
    about: ClassVar = "what it has stored"

    erasure: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    at_ns: int
    """When the erasure was asked for."""
    scope: Scope
    traces: bool = True
    """Also remove what deleted rows leave behind in files, which takes some seconds for each 100 MB."""


class EraseAudio(Erase, frozen=True, kw_only=True, tag="erase.audio"):
    module: ClassVar = "audio"


class EraseIntelligence(Erase, frozen=True, kw_only=True, tag="erase.intelligence"):
    module: ClassVar = "intelligence"


class EraseDashboard(Erase, frozen=True, kw_only=True, tag="erase.dashboard"):
    module: ClassVar = "dashboard"


class EraseOperations(Erase, frozen=True, kw_only=True, tag="erase.operations"):
    """Tells who executes operations to forget the names in those about these conversations. Busy while one goes on."""

    module: ClassVar = OPERATIONS


class EraseMessages(OfStore, frozen=True, kw_only=True, tag="erase.messages"):
    """Tells the bus to erase messages and dead letters. Gives a list of `Erased`, as `Erase` does."""

    within_s: ClassVar = 600.0

    scope: Scope
    traces: bool = True


# -- the operation ----------------------------------------------------------------------------------------------------

ERASE: Final = "erase"
"""The name of the operation."""
Part = Literal["audio", "intelligence", "dashboard", "operations", "messages", "again", "files"]


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What the operation is started with: the id of a receipt, which has the scope."""

    erasure: str


class PartErased(msgspec.Struct, frozen=True, kw_only=True):
    erased: tuple[Erased, ...]


class ErasePart(StepRequest[PartErased], frozen=True, kw_only=True, tag="erasures.part"):
    """Erases in all processes of a module, and in each of its databases, also where no process has it open.

    `again` goes through all of them once more; `files` removes what deleted rows leave behind in files.
    """

    module: ClassVar = OPERATIONS
    callers: ClassVar = ()
    within_s: ClassVar = None

    erasure: str
    part: Part


class ReceiptKept(msgspec.Struct, frozen=True, kw_only=True):
    done_ns: int


class KeepReceipt(StepRequest[ReceiptKept], frozen=True, kw_only=True, tag="erasures.keep"):
    """Writes into the receipt what was erased, and that it is done."""

    module: ClassVar = OPERATIONS
    callers: ClassVar = ()

    erasure: str
    erased: tuple[Erased, ...]


# -- for programs -----------------------------------------------------------------------------------------------------

ErasureKind = Literal["conversation", "name", "time", "again"]
ErasureStatus = Literal["found", "running", "compensating", "done", "compensated", "parked"]


class KeptCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A backup or the data from before a restore, which an erasure does not change."""

    where: str
    taken_at: str
    kept_until: str = ""
    """By the site's retention; empty: until it is deleted by hand."""


class ErasureView(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure as it stands. `id` is empty, and `status` "found", where nothing was started."""

    id: str = ""
    kind: ErasureKind
    site: str
    by: str
    asked_ns: int
    done_ns: int = 0
    status: ErasureStatus
    conversations: tuple[str, ...] = ()
    """Ids of those that go as a whole."""
    utterances: int = 0
    """That go one by one."""
    touched: int = 0
    """Conversations of which something goes."""
    operation: str = ""
    step: str = ""
    """The step that is next, or at which it is parked."""
    why: str = ""
    """The last error."""
    erased: tuple[Erased, ...] = ()
    copies: tuple[KeptCopy, ...] = ()


class StartErasure(Request[ErasureView], frozen=True, kw_only=True, tag="erasures.start"):
    """Finds what is wanted, and starts the operation; the reply is how it stands after `wait_s` seconds at most.

    `dry_run`: only finds. Nothing is started either where nothing was found.
    """

    module: ClassVar = OPERATIONS
    callers: ClassVar = ("dashboard",)
    within_s: ClassVar = 60.0
    about: ClassVar = "what was erased"

    wanted: Wanted
    by: str
    dry_run: bool = False
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=25)] = 5.0


class ErasureList(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[ErasureView, ...]


class ListErasures(Request[ErasureList], frozen=True, kw_only=True, tag="erasures.list"):
    """The newest first."""

    module: ClassVar = OPERATIONS
    callers: ClassVar = ("dashboard",)
    within_s: ClassVar = 10.0
    about: ClassVar = "what was erased"

    site: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_SHOWN)] = 50


class GetErasure(Request[ErasureView], frozen=True, kw_only=True, tag="erasures.get"):
    module: ClassVar = OPERATIONS
    callers: ClassVar = ("dashboard",)
    within_s: ClassVar = 10.0
    about: ClassVar = "what was erased"

    site: str
    id: str
