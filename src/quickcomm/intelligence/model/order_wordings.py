"""The expressions of `order_wordings.toml`, compiled."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: dict[str, str]
    kinds: dict[str, tuple[str, ...]]
    patterns: dict[str, str]


_data = msgspec.toml.decode(Path(__file__).with_suffix(".toml").read_bytes(), type=_Data)
_known = _data.parts | _data.patterns
_PART: Final = re.compile(r"@([A-Z_]+)@")


def _expanded(pattern: str) -> str:
    joined = re.sub(r"^ +|\n *", "", pattern)
    return _PART.sub(lambda found: _expanded(_known[found[1]]), joined)


def _compiled(name: str) -> re.Pattern[str]:
    return re.compile(_expanded(_data.patterns[name]))


KINDS: Final[Mapping[str, re.Pattern[str]]] = {
    kind: re.compile("|".join(rf"(?:\b|(?=\W))(?:{_expanded(each)})" for each in patterns))
    for kind, patterns in _data.kinds.items()
}
"""By the kind of an order, what is found in its clause."""
ADDRESSED: Final = _compiled("ADDRESSED")
LEAD_IN: Final = _compiled("LEAD_IN")
ONLY_PLACE: Final = _compiled("ONLY_PLACE")
MODEL_VERB: Final = _compiled("MODEL_VERB")
ANY_VERB: Final = _compiled("ANY_VERB")
ERRAND: Final = _compiled("ERRAND")
CONDITION: Final = _compiled("CONDITION")
VALUE_ONLY: Final = _compiled("VALUE_ONLY")
FRAGMENT: Final = _compiled("FRAGMENT")
FIELD_FIRST: Final = _compiled("FIELD_FIRST")
ROOM_ONLY: Final = _compiled("ROOM_ONLY")
ANSWER: Final = _compiled("ANSWER")
NEW_ROOM: Final = _compiled("NEW_ROOM")
ROOMS_OF_ONE: Final = _compiled("ROOMS_OF_ONE")
HAS_RELATION: Final = _compiled("HAS_RELATION")
LABEL_WORDS: Final = _compiled("LABEL_WORDS")
VALUE_AT_END: Final = _compiled("VALUE_AT_END")
ROOM_AT_END: Final = _compiled("ROOM_AT_END")
FIELD: Final = _compiled("FIELD")
TAG: Final = _compiled("TAG")
ROLE: Final = _compiled("ROLE")
