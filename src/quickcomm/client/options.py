"""How a client connects, and how patient it is."""

import secrets
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from quickcomm.contracts.audio_socket import CONVERSATION_ID, LEAST_TOKEN_CHARS, PATH, AudioFormat
from quickcomm.kernel.errors import InvalidInputError

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_CONTINUED: Final = "~"
_ROOT_LENGTH: Final = 100
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def new_token() -> str:
    """A resume token that nobody guesses: 256 bit."""
    return secrets.token_urlsafe(32)


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. Attempts back off from `first` to `longest`, each shortened by up to half at random."""

    first: float = 0.25
    longest: float = 10.0
    connect: float = 10.0
    give_up_after: float | None = 300.0
    """Without any connection for so long, the client gives up; None: never. With a live source it never does."""
    heartbeat: float = 30.0

    def delay(self, failures: int, chance: float) -> float:
        """Before the attempt that follows `failures` failed ones; `chance` is random in 0 … 1."""
        full = min(self.longest, self.first * 2.0 ** min(failures, 30))
        return full * (1.0 - chance / 2.0)


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation. The token is chosen here, so that it holds even where the server's `ready` is lost."""

    url: str
    key: str
    conversation_id: str
    channel: str | None = None
    resume_token: str = msgspec.field(default_factory=new_token)
    after_seq: int = 0
    message_ms: int = 100
    memory_ms: int | None = None
    """Unacked audio kept, at least 2 s; None: as much as the server allows to be unacked, of a live source 10 min."""
    patience: Patience = Patience()
    continues: str | None = None
    """The conversation that this one goes on with."""
    started_at: float | None = None
    """When the sound was recorded, in seconds since the epoch; None: it is sent as it is spoken."""

    def __post_init__(self) -> None:
        if not CONVERSATION_ID.fullmatch(self.conversation_id):
            raise InvalidInputError(
                f"{self.conversation_id!r} is no conversation id: 1 to 128 of the characters A-Z a-z 0-9 . _ ~ -"
            )
        if len(self.resume_token) < LEAST_TOKEN_CHARS:
            raise InvalidInputError(f"A resume token has at least {LEAST_TOKEN_CHARS} characters (128 bit).")

    def continued(self) -> "StreamOptions":
        """The same for the next conversation of this source."""
        root = self.conversation_id.partition(_CONTINUED)[0][:_ROOT_LENGTH]
        return msgspec.structs.replace(
            self,
            conversation_id=f"{root}{_CONTINUED}{secrets.token_hex(6)}",
            resume_token=new_token(),
            after_seq=0,
            continues=self.conversation_id,
        )

    def address(self, fmt: AudioFormat, after_seq: int) -> str:
        query = {
            "encoding": fmt.encoding,
            "sample_rate": fmt.sample_rate,
            "channels": fmt.speakers,  # the older name: servers of the last release know no other
            "resume_token": self.resume_token,
            "after_seq": after_seq,
        }
        if self.channel is not None:
            query["channel"] = self.channel
        if self.continues is not None:
            query["continues"] = self.continues
        if self.started_at is not None:
            query["started_at"] = datetime.fromtimestamp(self.started_at, UTC).isoformat()
        return f"{socket_url(self.url)}{PATH.format(conversation_id=self.conversation_id)}?{urlencode(query)}"


def socket_url(url: str) -> str:
    """`http://host:8080/` → `ws://host:8080`; a path before `/v1` is kept. Raises `InvalidInputError`."""
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise InvalidInputError(f"{url!r} is no address of a server; it looks like http://127.0.0.1:8080.")
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
