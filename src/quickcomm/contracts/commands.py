"""Operators' commands: requests that come over the administration socket of a process, from the command line.

`module` says who knows the answer; STORE is the process that keeps keys and messages: `up`, or a monolith. A reply is a
struct, or a list of them: the rows that are printed.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from quickcomm.contracts.messaging import Request

Role = Literal["ingest", "read", "admin"]
STORE: Final = "store"


class Command(Request[Any], frozen=True):
    module: ClassVar[str] = "up"
    within_s: ClassVar[float | None] = None
    """The caller hangs up where it does not want to wait any more."""


class GetStatus(Command, frozen=True, tag="status"):
    """Of the process itself."""


class GetMetrics(Command, frozen=True, tag="metrics"):
    """Of the process itself, in Prometheus' text format: a row with `text`."""


class StopModule(Command, frozen=True, kw_only=True, tag="stop-module"):
    """Of a process of several modules: drain one, and free its memory; the others go on."""

    name: str


class StartModule(Command, frozen=True, kw_only=True, tag="start-module"):
    """Of a process of several modules: load one that was stopped, and begin its work."""

    name: str


# -- a running topology -----------------------------------------------------------------------------------------------


class AwaitReady(Command, frozen=True, tag="ready"): ...


class GetOptions(Command, frozen=True, tag="options"): ...


class GetWhereabouts(Command, frozen=True, tag="whereabouts"): ...


class Scale(Command, frozen=True, kw_only=True, tag="scale"):
    process: str = msgspec.field(name="module")
    replicas: int


class InstallRelease(Command, frozen=True, kw_only=True, tag="releases.install"):
    """Have the site know another release of a service. Gives a row with its `side`, `release` and `digest`.

    `directory`: of its files; `python`: the interpreter that has what it needs. Refused where its messages do not fit.
    """

    name: str
    directory: str
    python: str


class GoOnWith(Command, frozen=True, kw_only=True, tag="releases.go-on"):
    """Have the site go on with one side of a service alone, and delete what another one has kept."""

    name: str
    side: str
    without: str


class Restart(Command, frozen=True, kw_only=True, tag="restart"):
    process: str = msgspec.field(name="module")


class RotateKeys(Command, frozen=True, kw_only=True, tag="rotate-keys"):
    at_once: bool = False


class Stop(Command, frozen=True, tag="down"): ...


# -- what is in the store ---------------------------------------------------------------------------------------------


class OfStore(Command, frozen=True):
    module: ClassVar = STORE


class CreateKey(OfStore, frozen=True, kw_only=True, tag="keys.create"):
    role: Role
    holder: str = msgspec.field(default="", name="name")
    site: str = "main"


class ListKeys(OfStore, frozen=True, tag="keys.list"): ...


class RevokeKey(OfStore, frozen=True, kw_only=True, tag="keys.revoke"):
    id: str


class ListDeadLetters(OfStore, frozen=True, tag="dead-letters.list"): ...


class ReplayDeadLetter(OfStore, frozen=True, kw_only=True, tag="dead-letters.replay"):
    id: int


class DropDeadLetter(OfStore, frozen=True, kw_only=True, tag="dead-letters.drop"):
    id: int


# -- audio and dashboard ----------------------------------------------------------------------------------------------


class GetLedgers(Command, frozen=True, kw_only=True, tag="ledger"):
    module: ClassVar = "audio"

    conversation_id: str | None = None


class ShareOut(Command, frozen=True, kw_only=True, tag="audio.share-out"):
    """Asks a process of audio to give so many conversations to other ones, those in which somebody speaks."""

    module: ClassVar = "audio"

    conversations: Annotated[int, msgspec.Meta(ge=1)]


class GetReport(Command, frozen=True, kw_only=True, tag="report"):
    module: ClassVar = "dashboard"

    site: str = "main"
    since_ns: int | None = None


class GetTrace(Command, frozen=True, kw_only=True, tag="trace"):
    module: ClassVar = "dashboard"

    utterance_id: str
    site: str | None = None


# -- prompt versions --------------------------------------------------------------------------------------------------


class OfPrompts(Command, frozen=True):
    module: ClassVar = "intelligence"


class ListPrompts(OfPrompts, frozen=True, tag="prompts.list"): ...


class ShowPrompt(OfPrompts, frozen=True, kw_only=True, tag="prompts.show"):
    prompt: str = msgspec.field(name="name")


class AuditPrompts(OfPrompts, frozen=True, kw_only=True, tag="prompts.audit"):
    limit: int


class EvaluatePrompt(OfPrompts, frozen=True, kw_only=True, tag="prompts.evaluate"):
    """Answered when it is done; meanwhile `GetProgress` with the same `ticket` says how far it is.

    `source`: of a new version, kept under the name `prompt`. `labels`: path of a file with labelled phrases; None:
    `limit` phrases of the pack.
    """

    prompt: str = msgspec.field(name="name")
    source: str | None = None
    labels: str | None = msgspec.field(default=None, name="set")
    limit: int = 200
    concurrency: int = 4
    by: str
    ticket: str = ""


class GetProgress(OfPrompts, frozen=True, kw_only=True, tag="prompts.progress"):
    ticket: str


class DeployPrompt(OfPrompts, frozen=True, kw_only=True, tag="prompts.deploy"):
    prompt: str = msgspec.field(name="name")
    source: str | None = None
    weight: int = 100
    force: bool = False
    by: str


class RollBackPrompt(OfPrompts, frozen=True, kw_only=True, tag="prompts.rollback"):
    by: str
