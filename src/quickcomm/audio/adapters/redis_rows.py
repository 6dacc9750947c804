"""A conversation as it lies in Valkey: the names of its keys, its fields, and what they mean."""

import hashlib
from collections.abc import Sequence
from typing import Final, cast

import msgspec

from quickcomm.audio.adapters.tables import OPEN_STATES
from quickcomm.audio.model.checkpoint import Checkpoint, decode_checkpoints, encode_checkpoints
from quickcomm.audio.ports import OpenRequest, Stored
from quickcomm.contracts.audio_socket import AudioFormat, Encoding
from quickcomm.contracts.conversations import ConversationChanged, ConversationState, Ledger
from quickcomm.kernel.telemetry.side import stamp

_ledgers: Final = msgspec.json.Decoder(tuple[Ledger, ...])


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


class SessionNames:
    """Keys of the audio module. A name is `site:conversation`; neither part has a colon in it."""

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}:audio"
        self.open = f"{self._prefix}:open"
        self.closed = f"{self._prefix}:closed"
        self.mailboxes = f"{self._prefix}:mail:"

    def conversation(self, name: str) -> str:
        return f"{self._prefix}:conversation:{name}"

    def said(self, name: str) -> str:
        """Which utterances and insights are in the log, and where."""
        return f"{self._prefix}:said:{name}"

    def log(self, name: str) -> str:
        """Durable events; the one with `seq` n is the n-th."""
        return f"{self._prefix}:log:{name}"

    def owner(self, owner: str) -> str:
        """Which life of the owner is present."""
        return f"{self._prefix}:owner:{owner}"

    def mail(self, life: str) -> str:
        """What others have to tell one life of an owner: a stream that nobody keeps for long."""
        return f"{self.mailboxes}{life}"

    def turn(self, work: str) -> str:
        """Who does some work just now."""
        return f"{self._prefix}:turn:{work}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of a conversation. `version` counts every write."""

    site: str
    conversation_id: str
    channel: str
    format: AudioFormat
    token_hash: bytes
    epoch: int
    seq: int
    state: ConversationState
    checkpoints: bytes
    ledgers: tuple[Ledger, ...]
    updated_ns: int
    owner: str
    version: int

    @classmethod
    def of(cls, fields: dict[bytes, bytes]) -> "Row":
        text = {name.decode(): fields[name].decode() for name in fields if name not in _RAW}
        return cls(
            site=text["site"],
            conversation_id=text["conversation_id"],
            channel=text["channel"],
            format=AudioFormat(
                encoding=cast("Encoding", text["encoding"]),
                sample_rate=int(text["sample_rate"]),
                speakers=int(text["speakers"]),
            ),
            token_hash=fields[b"token_hash"],
            epoch=int(text["epoch"]),
            seq=int(text["seq"]),
            state=cast("ConversationState", text["state"]),
            checkpoints=fields[b"checkpoints"],
            ledgers=_ledgers.decode(fields[b"ledgers"]),
            updated_ns=int(text["updated_ns"]),
            owner=text["owner"],
            version=int(text["version"]),
        )

    @property
    def name(self) -> str:
        return f"{self.site}:{self.conversation_id}"

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    def change(self, state: ConversationState, at_ns: int, reason: str | None = None) -> ConversationChanged:
        return ConversationChanged(
            site=self.site,
            conversation_id=self.conversation_id,
            channel=self.channel,
            state=state,
            sample_rate=self.format.sample_rate,
            speakers=self.format.speakers,
            ledgers=self.ledgers,
            at_ns=at_ns,
            reason=reason,
            side=stamp(),
        )

    def stored(self, *, created: bool, state: str, unanswered: tuple[str, ...] = ()) -> Stored:
        return Stored(
            site=self.site,
            conversation_id=self.conversation_id,
            channel=self.channel,
            format=self.format,
            epoch=self.epoch,
            created=created,
            state=state,
            checkpoints=decode_checkpoints(self.checkpoints),
            ledgers=self.ledgers,
            last_seq=self.seq,
            unanswered=unanswered,
        )


_RAW: Final = frozenset({b"token_hash", b"checkpoints", b"ledgers"})


def offsets(checkpoints: Sequence[Checkpoint]) -> str:
    """Where each speaker is, for scripts, which do not read checkpoints."""
    return " ".join(str(checkpoint.offset) for checkpoint in checkpoints)


def at_rest(checkpoints: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """What is left of them when nothing more can come: they are kept for months."""
    return tuple(Checkpoint(offset=each.offset, gap=each.gap, silence=each.silence) for each in checkpoints)


def new_fields(stored: Stored, request: OpenRequest, token: str, owner: str) -> list[str | bytes | int]:
    """Fields and values of a new conversation, one after the other."""
    fields: dict[str, str | bytes | int] = {
        "site": request.site,
        "conversation_id": request.conversation_id,
        "channel": request.channel,
        "encoding": request.format.encoding,
        "sample_rate": request.format.sample_rate,
        "speakers": request.format.speakers,
        "token_hash": digest(token),
        "epoch": stored.epoch,
        "seq": stored.last_seq,
        "state": stored.state,
        "checkpoints": encode_checkpoints(stored.checkpoints),
        "ledgers": msgspec.json.encode(stored.ledgers),
        "owner": owner,
    }
    return [text for pair in fields.items() for text in pair]


def last_said(said: dict[bytes, bytes]) -> tuple[str, int]:
    """Return the newest utterance and its `seq`; empty and 0 where the log has none."""
    found = [(int(seq), name[2:].decode()) for name, seq in said.items() if name.startswith(b"u:")]
    seq, utterance_id = max(found, default=(0, ""))
    return utterance_id, seq


def unanswered(said: dict[bytes, bytes]) -> tuple[str, ...]:
    """Utterances without insights, in the order of their `seq`."""
    waiting = [
        (int(seq), name[2:].decode())
        for name, seq in said.items()
        if name.startswith(b"u:") and b"i:" + name[2:] not in said
    ]
    return tuple(identifier for _, identifier in sorted(waiting))
