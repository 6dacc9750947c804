"""Signs that a text should be cut in two at a place; the learnt cutter weighs them."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from quickcomm.intelligence.model.clauses import LINKS, Cut, starts_need
from quickcomm.intelligence.model.mentions import distinct
from quickcomm.intelligence.model.reading import Reading

Floats = npt.NDArray[np.float32]
_FEW, _MANY = 3, 6


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a cut: what rules read, and how probable each intent is."""

    reading: Reading
    intents: Floats


def cut_signs(cut: Cut, parts: tuple[Part, Part, Part], tasks: Sequence[bool]) -> list[float]:
    """`parts`: what is left and right of the cut, and both together; `tasks`: which intents open a task."""
    left, right, whole = parts
    a, b = int(left.intents.argmax()), int(right.intents.argmax())
    rooms_a, rooms_b = set(distinct(list(left.reading.rooms))), set(distinct(list(right.reading.rooms)))
    acts = np.asarray(tasks, np.float32)
    words = (len(left.reading.plain.split()), len(right.reading.plain.split()))
    both = float(acts @ left.intents) * float(acts @ right.intents)
    signs = [
        *(float(cut.link == link) for link in LINKS),
        float(left.intents.max()),
        float(right.intents.max()),
        float(whole.intents.max()),
        float(left.intents @ right.intents),
        float(a == b),
        both,
        both * float(left.intents.max()) * float(right.intents.max()) * (1.0 - float(left.intents @ right.intents)),
        float(bool(rooms_a)),
        float(bool(rooms_b)),
        float(bool(rooms_a) and bool(rooms_b) and not rooms_a & rooms_b),
        float(a == b and bool(rooms_b - rooms_a) and bool(rooms_a)),
        float(bool(left.reading.things)),
        float(bool(right.reading.things)),
        float(bool(left.reading.things) and bool(right.reading.things) and bool(rooms_a) and bool(rooms_b - rooms_a)),
        float(starts_need(right.reading.text)),
        float(bool(right.reading.places)),
        float(bool(right.reading.called)),
        float(words[0] <= _FEW),
        float(words[1] <= _FEW),
        float(min(words) >= _MANY),
        float(bool(left.reading.danger)),
        float(bool(right.reading.danger)),
    ]
    return [*signs, *_by_intent(left.intents, right.intents)]


def _by_intent(left: Floats, right: Floats) -> list[float]:
    return [*map(float, left), *map(float, right)]
