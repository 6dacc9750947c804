"""Erasure: what is to be erased, by ids, and what each module answers when it is told to erase.

A name or a time range becomes ids first (`Find…`). From then on only ids are kept: in the requests, in the tombstones,
and in the receipt.
"""

from typing import Annotated, ClassVar, Final

import msgspec

from quickcomm.contracts.commands import Command, OfStore

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
    """What is to be erased, by ids: whole conversations, with all that is still said in them, and single utterances."""

    site: str = "main"
    conversations: tuple[str, ...] = ()
    utterances: tuple[str, ...] = ()

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
        return Scope(site=self.site, conversations=tuple(sorted(conversations)), utterances=tuple(sorted(utterances)))

    def parts(self) -> list["Scope"]:
        """Return scopes of at most `MAX_IDS` ids that are together what this one is."""
        names = [*((each, True) for each in self.conversations), *((each, False) for each in self.utterances)]
        found = []
        for start in range(0, len(names), MAX_IDS):
            part = names[start : start + MAX_IDS]
            conversations = tuple(name for name, is_whole in part if is_whole)
            utterances = tuple(name for name, is_whole in part if not is_whole)
            found.append(Scope(site=self.site, conversations=conversations, utterances=utterances))
        return found


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


class EraseMessages(OfStore, frozen=True, kw_only=True, tag="erase.messages"):
    """Tells the bus to erase messages and dead letters. Gives a list of `Erased`, as `Erase` does."""

    within_s: ClassVar = 600.0

    scope: Scope
    traces: bool = True
