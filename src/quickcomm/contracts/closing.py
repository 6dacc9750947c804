"""The steps of closing a conversation: audio finishes it, intelligence sums it up, the dashboard archives it."""

from typing import ClassVar, Literal

import msgspec

from quickcomm.contracts.conversations import ConversationState, Ledger
from quickcomm.contracts.insight import Source
from quickcomm.contracts.saga import StepRequest, Undone
from quickcomm.contracts.usage import ConversationUsage

OpenTasks = Literal["keep", "close", "hand_over"]


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """What the operation is started with. `assignee`: to whom open tasks are handed over."""

    conversation_id: str
    tasks: OpenTasks = "keep"
    assignee: str | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """`last_utterance`, `last_seq`: of the newest utterance that the log still has; empty and 0 where it has none."""

    state: ConversationState
    ledgers: tuple[Ledger, ...]
    last_utterance: str = ""
    last_seq: int = 0


class FinishConversation(StepRequest[Finished], frozen=True, kw_only=True, tag="conversations.finish"):
    """No more sound; what was said is published, and the ledger is final."""

    module: ClassVar = "audio"
    to: ClassVar = "owner"
    within_s: ClassVar = 60.0
    about: ClassVar = "whether a conversation is over"

    site: str
    conversation_id: str
    by: str


class Summarized(msgspec.Struct, frozen=True, kw_only=True):
    """`revision`: of the summary that covers everything; 0 where nothing was said. No text: the stream has it."""

    revision: int = 0
    source: Source = "local"
    utterances: int = 0
    usage: ConversationUsage | None = None
    """What the language model cost."""


class SummarizeConversation(StepRequest[Summarized], frozen=True, kw_only=True, tag="conversations.summarize"):
    """The final summary. Refused as busy until everything up to `last_seq` is known."""

    module: ClassVar = "intelligence"
    to: ClassVar = "owner"
    within_s: ClassVar = 30.0
    about: ClassVar = "what a conversation was about"

    site: str
    conversation_id: str
    last_seq: int = 0


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """`tasks`: how many were closed or handed over. No names: replies are kept, and are not erased."""

    at_ns: int
    tasks: int = 0


class ArchiveConversation(StepRequest[Archived], frozen=True, kw_only=True, tag="conversations.archive"):
    """Off the page of what goes on; its open tasks closed, handed over, or kept. One decision for all of it.

    Refused as busy until the card of `last_utterance` is complete.
    """

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    about: ClassVar = "the tasks of a conversation"

    site: str
    conversation_id: str
    by: str
    tasks: OpenTasks = "keep"
    assignee: str | None = None
    last_utterance: str = ""
    usage: ConversationUsage | None = None


class ReopenConversation(StepRequest[Undone], frozen=True, kw_only=True, tag="conversations.reopen"):
    """Takes the archiving back, with what it did to tasks that were not changed since."""

    module: ClassVar = "dashboard"
    to: ClassVar = "owner"
    about: ClassVar = "the tasks of a conversation"

    site: str
    conversation_id: str
    by: str
