"""Writes the imperative summary of an insight: the pack's template, filled with what was found, at most 80 long."""

import re
from collections.abc import Sequence

from quickcomm.contracts.insight import Item
from quickcomm.intelligence.model.reading import Reading
from quickcomm.kernel.site_pack import SitePack

LIMIT = 80
_SHOWN_ROOMS, _SHOWN_ITEMS = 4, 4
_SOMEBODY = "(?:you|we|i|someone|somebody)(?: please)?"
_OPENERS = (
    "hi|hey|hello|ok|okay|so|um+|uh+|yeah|yes|please|attention|all|team|guys|copy|listen|would you|we need|i need"
    f"|i have|i've got|we have|we've got|there's|there is|there are|i think|can {_SOMEBODY}|could {_SOMEBODY}"
)
_POLITE = re.compile(rf"^(?:\W*(?:{_OPENERS})\b)+\W*", re.IGNORECASE)
_DANGLING = re.compile(r"(?:^|\s)(?:in|to|for|at|from|on|of|the|and|with|room|rooms|suite)\W*$", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_STRAY = re.compile(r"\s+(?=[,.;:!?])")
_EDGES = " \t\n,.;:!?-"


def summarise(pack: SitePack, intent: str, reading: Reading, rooms: Sequence[str], items: Sequence[Item]) -> str:
    """Say what to do, and where: "Bring 2 bath towels to 412". Never empty."""
    place = _place(rooms, reading)
    words = shortened(reading)
    listed = _listed(items)
    template = pack.intents[intent].summary
    if "{items}" in template and not listed:
        listed = words
    filled = template.format(
        items=listed or "what was asked for",
        place=place or "the area",
        to_place=f"to {place}" if place else "",
        at_place=f"in {place}" if place else "",
        words=words,
    )
    return clip(_SPACES.sub(" ", _STRAY.sub("", filled)).strip(_EDGES)) or clip(pack.intents[intent].description)


def clip(text: str) -> str:
    """At most 80 characters, cut at a word."""
    if len(text) <= LIMIT:
        return text
    head = text[: LIMIT - 1]
    return (head.rsplit(" ", 1)[0] if " " in head[LIMIT // 2 :] else head).rstrip(_EDGES) + "…"


def shortened(reading: Reading) -> str:
    """Give what was said without rooms, greetings and pleading: the gist in the speaker's own words."""
    text = reading.text
    parts, at = [], 0
    for room in reading.rooms:
        parts.append(_DANGLING.sub("", text[at : room.start].rstrip()))
        at = room.end
    gist = _STRAY.sub("", _SPACES.sub(" ", " ".join([*parts, text[at:]]))).strip(_EDGES)
    gist = _POLITE.sub("", gist).strip(_EDGES)
    printable = "".join(char for char in gist if char.isprintable())
    return printable or "".join(char for char in text if char.isprintable()).strip() or "nothing understood"


def _place(rooms: Sequence[str], reading: Reading) -> str:
    if rooms:
        shown = list(rooms[:_SHOWN_ROOMS])
        more = f" and {len(rooms) - len(shown)} more" if len(rooms) > len(shown) else ""
        return _series(shown) + more if not more else ", ".join(shown) + more
    return f"the {reading.places[0].value}" if reading.places else ""


def _listed(items: Sequence[Item]) -> str:
    return _series(
        [f"{item.quantity} {item.name}" if item.quantity > 1 else item.name for item in items[:_SHOWN_ITEMS]]
    )


def _series(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
