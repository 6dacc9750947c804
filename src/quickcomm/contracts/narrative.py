"""Sentences about a shift: asked of intelligence, shown by the dashboard."""

from typing import Annotated, ClassVar, Final

import msgspec

from quickcomm.contracts.messaging import Request

MAX_FACTS: Final = 32_768


class Narrated(msgspec.Struct, frozen=True, kw_only=True):
    """`text` is None where no model can find the words now."""

    text: str | None = None


class Narrate(Request[Narrated], frozen=True, kw_only=True, tag="narrative"):
    """Ask for a few sentences about these facts."""

    module: ClassVar = "intelligence"
    callers: ClassVar = ("dashboard",)
    within_s: ClassVar = 8.0
    about: ClassVar = "words about a shift"

    site: str
    facts: Annotated[str, msgspec.Meta(max_length=MAX_FACTS)]
