"""What each module tells of its own data, so that a checker compares it with what the others have.

A range is of keys (site, id) in their order, an utterance's id or a conversation's: every store has an index in that
order, and an id begins with its conversation, so that a conversation is a range, too.
"""

from typing import Annotated, ClassVar, Final, TypeAlias

import msgspec

from quickcomm.contracts.commands import Command, OfStore

Key: TypeAlias = tuple[str, str]
"""Site and id, in the order of their code points."""
FIRST: Final[Key] = ("", "")
MAX_RANGE: Final = 10_000
MAX_FAULTS: Final = 1_000
"""Of one kind in one range."""

# -- kinds of data ----------------------------------------------------------------------------------------------------

TRANSCRIBED: Final = "transcripts"
ANSWERED: Final = "insights"
ENDED: Final = "ended"
"""Conversations that have ended, each with its ledgers."""
CONTENT: Final = ("cards", "tasks", "closings", "decisions", "conversations")
"""What two dashboards must have alike."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How many there are of a kind, and the sum of the digests of all, whatever their order."""

    count: int = 0
    digest: str = "0" * 16


class Item(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One of a kind. `at_ns`: when it came to be, 0 where the module does not know."""

    site: str
    id: str
    digest: str
    at_ns: int = 0


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong within the data of one module. `id`: of an utterance or a conversation."""

    code: str
    site: str
    id: str
    at_ns: int = 0
    detail: str = ""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a module has in a range. `until`: as far as this tells; None: to the end of all."""

    until: Key | None = None
    kinds: dict[str, Summary] = {}
    items: dict[str, list[Item]] = {}
    """Only in an answer to a request for items."""
    faults: list[Fault] = []


class Compare(Command, frozen=True, kw_only=True):
    """Asks a module what it has behind `after`, up to `until`, and of at most `limit` utterances. Gives `Contents`.

    `items`: each of them, not only sums. `content`: of the kinds in `CONTENT`, not of ids.
    """

    callers: ClassVar[tuple[str, ...]] = ("dashboard",)
    within_s: ClassVar = 30.0
    about: ClassVar = "what it has stored"

    after: Key = FIRST
    until: Key | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_RANGE)] = 1_000
    items: bool = False
    content: bool = False


class CompareAudio(Compare, frozen=True, kw_only=True, tag="check.audio"):
    module: ClassVar = "audio"


class CompareIntelligence(Compare, frozen=True, kw_only=True, tag="check.intelligence"):
    module: ClassVar = "intelligence"


class CompareDashboard(Compare, frozen=True, kw_only=True, tag="check.dashboard"):
    module: ClassVar = "dashboard"
    callers: ClassVar = ("dashboard", "traffic")


class Conversations(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[Key]


class Recent(Command, frozen=True, kw_only=True):
    """Asks a module for the conversations that changed since then: at most `limit`. Gives `Conversations`."""

    callers: ClassVar[tuple[str, ...]] = ("dashboard",)
    within_s: ClassVar = 30.0
    about: ClassVar = "its conversations"

    since_ns: int
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_RANGE)] = MAX_RANGE


class RecentAudio(Recent, frozen=True, kw_only=True, tag="recent.audio"):
    module: ClassVar = "audio"


class RecentDashboard(Recent, frozen=True, kw_only=True, tag="recent.dashboard"):
    module: ClassVar = "dashboard"
    callers: ClassVar = ("dashboard", "traffic")


class ListTranscripts(Command, frozen=True, kw_only=True, tag="check.transcripts"):
    """Asks the dashboard for the messages by which it knows these utterances: a row each, `Transcript`."""

    module: ClassVar = "dashboard"

    keys: Annotated[list[Key], msgspec.Meta(max_length=MAX_RANGE)]


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """`message`: an `UtteranceTranscribed` as JSON."""

    message: str


class PublishAgain(OfStore, frozen=True, kw_only=True, tag="transcripts.publish"):
    """Publishes a transcript again; a consumer that has handled it drops it by its id."""

    message: str


class ListBacklog(OfStore, frozen=True, tag="backlog"):
    """Asks for the messages that wait, a row a stream and group: `Waiting`."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """`oldest_ns`: when the first of them was published."""

    stream: str
    group: str
    count: int
    oldest_ns: int


class GetStanding(OfStore, frozen=True, kw_only=True, tag="standing"):
    """Asks how far each group is in the partitions of a conversation: a row a stream and group, `Standing`.

    `utterance_id`: of which it tells whether a message waits; empty: of any in the conversation.
    """

    conversation_id: str
    utterance_id: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A group in one partition of a stream. `oldest_ns`: when the first message that waits for it was published."""

    stream: str
    partition: int
    group: str
    count: int
    """Messages that wait for it there."""
    at_most: int = 0
    """So many make the partition full; 0: it takes any number."""
    oldest_ns: int = 0
    reader: str | None = None
    """The consumer that has the partition, `host-pid-…`; empty: none has it; None: they are not shared out."""
    waits_since_ns: int = 0
    """When the message that was asked for was published; 0: none waits."""
    side: str = ""
    """The side that is to answer it, while intelligence moves."""
