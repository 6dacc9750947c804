"""What the dashboard asks of intelligence over HTTP, where the two are processes of their own."""

from typing import Annotated, Final

import msgspec

PROMPTS: Final = "/internal/v1/prompts"
USAGE: Final = "/internal/v1/usage"
NARRATIVE: Final = "/internal/v1/narrative"
MAX_FACTS: Final = 32_768


class ToNarrate(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that a few sentences are wanted about."""

    site: str
    facts: Annotated[str, msgspec.Meta(max_length=MAX_FACTS)]


class Narrated(msgspec.Struct, frozen=True, kw_only=True):
    """`text` is None where no model can find the words now."""

    text: str | None = None
