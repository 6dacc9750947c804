"""What a site may know of its prompt versions: intelligence makes it; the page and the command line show it."""

from typing import ClassVar, Literal

import msgspec

from quickcomm.contracts.messaging import Request

PromptAction = Literal["added", "evaluated", "canary", "deployed", "rolled_back"]


class PromptNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """How one version did on a labelled set. Shares are 0 to 1; `score` is the mean of the five fields."""

    cases: int
    failed: int
    """Cases without a usable answer; they count as wrong in every field."""
    score: float
    intent: float
    department: float
    urgency: float
    rooms: float
    items: float
    """F1 over the things asked for, names and quantities."""
    dangers: int
    """Cases with danger to people."""
    dangers_missed: int
    calibration_error: float
    """Expected calibration error of `confidence` for the intent, ten bins (Naeini et al., 2015)."""
    latency_p50_ms: float
    latency_p95_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost: float
    """In the currency of the settings; 0 where no price is set."""


class PromptComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A version against the one that was live, on the same set, through the same model."""

    against_id: str
    set_id: str
    set_name: str
    model: str
    candidate: PromptNumbers
    live: PromptNumbers
    falls_below: tuple[str, ...] = ()
    """Why the candidate is worse; empty where it is not."""


class PromptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is made from the content: the same file always has the same one."""

    id: str
    name: str
    note: str = ""
    added_at: str | None = None
    added_by: str = ""


class PromptEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, when, on what evidence. `weight`: per cent of the conversations that then had the version."""

    at: str
    by: str
    action: PromptAction
    prompt_id: str
    name: str = ""
    against_id: str | None = None
    """The version that was live just before."""
    weight: int = 0
    forced: bool = False
    note: str = ""
    evidence: PromptComparison | None = None


class PromptInForce(msgspec.Struct, frozen=True, kw_only=True):
    """A version that conversations have now; `event` put it there (None: it came with QuickComm)."""

    prompt: PromptInfo
    weight: int
    event: PromptEvent | None = None


class PromptsView(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment. `connected`: whether a language model is there to be asked at all."""

    connected: bool = False
    model: str = ""
    problem: str = ""
    """Why what was deployed is not in force, in words for the operator; empty where it is."""
    live: PromptInForce | None = None
    canary: PromptInForce | None = None
    versions: tuple[PromptInfo, ...] = ()
    events: tuple[PromptEvent, ...] = ()
    """Newest first."""


class GetPrompts(Request[PromptsView], frozen=True, kw_only=True, tag="prompts"):
    module: ClassVar = "intelligence"
    callers: ClassVar = ("dashboard",)
    about: ClassVar = "which prompt versions are in force"
