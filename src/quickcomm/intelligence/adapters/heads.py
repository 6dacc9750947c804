"""The learnt part of the local classifier: linear heads over embedding, n-grams and rule signs, kept as plain arrays.

Using them needs numpy only; `training` makes them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from quickcomm.intelligence.adapters.ngrams import Ngrams, Rows
from quickcomm.intelligence.model.reading import Reading

Floats = npt.NDArray[np.float32]

EMBEDDING_SCALE, NGRAM_SCALE, FLAG_SCALE = 3.0, 2.0, 0.8
"""How much each kind of feature may weigh against the others under one penalty; found by cross-validation."""

ARRAYS, NAMES = "heads.npz", "heads.json"


class Features(NamedTuple):
    """Of some texts: the dense columns, then the n-grams; already scaled."""

    dense: Floats
    grams: Rows

    def times(self, weights: Floats) -> Floats:
        columns = self.dense.shape[1]
        return np.asarray(self.dense @ weights[:columns], np.float32) + self.grams.times(weights[columns:])


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Multinomial logistic regression: `weights` float32[features, classes]; `temperature` from held-out folds."""

    classes: tuple[str, ...]
    weights: Floats
    bias: Floats
    temperature: float = 1.0

    def logits(self, features: Features | Floats) -> Floats:
        found = features.times(self.weights) if isinstance(features, Features) else features @ self.weights
        return np.asarray(found, np.float32) + self.bias

    def probabilities(self, features: Features | Floats) -> Floats:
        return softmax(self.logits(features) / self.temperature)


def softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was learnt from a pack's phrases. `heads`: intent, department, urgency, danger, cut."""

    ngrams: Ngrams
    heads: Mapping[str, Head]
    report: Mapping[str, float]
    """What cross-validation said when it was trained."""

    def features(self, readings: Sequence[Reading], vectors: Floats) -> Features:
        return join_features(vectors, self.ngrams.transform([r.plain for r in readings]), flags(readings))


def flags(readings: Sequence[Reading]) -> Floats:
    return np.asarray([reading.flags for reading in readings], np.float32)


def join_features(vectors: Floats, grams: Rows, signs: Floats) -> Features:
    dense = np.hstack([vectors * np.float32(EMBEDDING_SCALE), signs * np.float32(FLAG_SCALE)])
    return Features(dense, grams._replace(values=grams.values * np.float32(NGRAM_SCALE)))


def save(learnt: Learnt, folder: Path) -> None:
    arrays: dict[str, npt.NDArray[np.generic]] = {"idf": learnt.ngrams.idf}
    names = {
        "terms": learnt.ngrams.vocabulary,
        "report": dict(learnt.report),
        "heads": {name: {"classes": h.classes, "temperature": h.temperature} for name, h in learnt.heads.items()},
    }
    for name, head in learnt.heads.items():
        arrays[f"{name}.weights"], arrays[f"{name}.bias"] = head.weights, head.bias
    with (folder / ARRAYS).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub takes the names for its own options
    (folder / NAMES).write_text(json.dumps(names, ensure_ascii=False))


def load(folder: Path) -> Learnt:
    names = json.loads((folder / NAMES).read_text())
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        heads = {
            name: Head(
                classes=tuple(entry["classes"]),
                weights=arrays[f"{name}.weights"],
                bias=arrays[f"{name}.bias"],
                temperature=float(entry["temperature"]),
            )
            for name, entry in names["heads"].items()
        }
        return Learnt(ngrams=Ngrams(names["terms"], arrays["idf"]), heads=heads, report=names["report"])
