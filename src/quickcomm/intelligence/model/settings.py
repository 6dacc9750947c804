"""What can be set about the language model."""

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from quickcomm.kernel.errors import ConfigurationError

Positive = Annotated[float, msgspec.Meta(gt=0)]


class LlmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without a `url` there is no language model: the local classifier answers."""

    url: str = ""
    """Base address of an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1."""
    key: str = ""
    """Its key, if it wants one. Best given as QUICKCOMM_LLM_KEY; never logged."""
    model: str = ""
    """Name of the model; empty takes the only one that the endpoint offers."""
    budget_s: Positive = 3.0
    """How long an utterance may wait for the model, from its arrival; then the local classifier's answer stands."""
    connect_timeout_s: Positive = 1.0
    min_concurrency: Annotated[int, msgspec.Meta(ge=1)] = 2
    max_concurrency: Annotated[int, msgspec.Meta(ge=1)] = 64
    """Calls in flight at most; how many there are is found by latency and 429s."""
    hedge_after_s: float = 0.0
    """Ask a second time where there is no answer after so long, and take whichever comes first; 0: never."""
    renew_minutes: float = 15.0
    """Degraded insights that are younger are classified again once the model is back; 0: never."""

    def __repr__(self) -> str:
        """Without the key: settings end up in messages and logs."""
        return f"LlmSettings(url={self.url!r}, model={self.model!r}, key={'set' if self.key else 'none'})"


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where prompts, costs, results and the model's answers are kept."""

    database_url: str | None = None
    """PostgreSQL of intelligence as a service of its own, needed for several processes; None: the site's file."""
    shadow_share: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """While intelligence moves: the share of the other side's utterances that is understood here too, to be compared.
    None: a quarter where a language model is asked, else all."""

    def __repr__(self) -> str:
        """Without the address: it may hold a password."""
        return f"StoreSettings(database_url={'set' if self.database_url else 'none'}, shadow_share={self.shadow_share})"


def check(settings: LlmSettings) -> None:
    """Raises `ConfigurationError` for what no endpoint could be reached with."""
    if settings.url:
        check_url(settings.url)
    if not (settings.key.isascii() and settings.key.isprintable()):
        raise ConfigurationError("llm.key (QUICKCOMM_LLM_KEY) has characters that no key has: a line end, perhaps.")


def check_url(url: str) -> str:
    """The base address as the client wants it: with `/v1` where no path is given. Raises `ConfigurationError`."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            "llm.url (--llm-url) is no address of a language model. It looks like http://127.0.0.1:8000/v1."
        )
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/v1"
