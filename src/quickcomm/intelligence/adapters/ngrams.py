"""TF-IDF over character and word n-grams; stands beside the sentence embedding, for wordings that it blurs.

Written out here, and not scikit-learn's, so that classifying needs neither it nor a pickle: arrays and a word list.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CHARACTERS = (2, 3, 4, 5)
WORDS = (1, 2)
MIN_COUNT = 2
MAX_TERMS = 6_000

Floats = npt.NDArray[np.float32]


def terms(text: str) -> Iterator[str]:
    """Word n-grams, then character n-grams inside words padded by a space; the two kinds cannot collide."""
    words = text.split()
    for size in WORDS:
        for at in range(len(words) - size + 1):
            yield "w:" + " ".join(words[at : at + size])
    for word in words:
        padded = f" {word} "
        for size in CHARACTERS:
            for at in range(len(padded) - size + 1):
                yield "c:" + padded[at : at + size]


class Rows(NamedTuple):
    """A sparse matrix by rows (row i is `ends[i]` to `ends[i + 1]`), without the import of SciPy at every start."""

    values: Floats
    columns: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    width: int

    def times(self, weights: Floats) -> Floats:
        """The product with float32[terms, classes]: float32[n, classes]."""
        out = np.zeros((len(self.ends) - 1, weights.shape[1]), np.float32)
        for row, (start, end) in enumerate(zip(self.ends[:-1], self.ends[1:], strict=True)):
            out[row] = self.values[start:end] @ weights[self.columns[start:end]]
        return out


class Ngrams:
    """A fitted vocabulary. Rows have length 1 in each of the two kinds (words, characters)."""

    def __init__(self, vocabulary: Sequence[str], idf: Floats) -> None:
        self.vocabulary = tuple(vocabulary)
        self.idf = idf
        self._index = {term: column for column, term in enumerate(self.vocabulary)}

    @classmethod
    def fit(cls, texts: Sequence[str]) -> "Ngrams":
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(set(terms(text)))
        kept = [(count, term) for term, count in counts.items() if count >= MIN_COUNT]
        chosen = sorted(term for _, term in sorted(kept, key=lambda pair: (-pair[0], pair[1]))[:MAX_TERMS])
        idf = [math.log((1 + len(texts)) / (1 + counts[term])) + 1 for term in chosen]
        return cls(chosen, np.asarray(idf, np.float32))

    def transform(self, texts: Sequence[str]) -> Rows:
        """Count and weigh: [n, terms]."""
        columns: list[int] = []
        values: list[float] = []
        ends = [0]
        for text in texts:
            row = self._row(text)
            columns += row.keys()
            values += row.values()
            ends.append(len(columns))
        return Rows(
            np.asarray(values, np.float32),
            np.asarray(columns, np.int32),
            np.asarray(ends, np.int32),
            len(self.vocabulary),
        )

    def _row(self, text: str) -> dict[int, float]:
        counts: Counter[int] = Counter()
        for term in terms(text):
            column = self._index.get(term)
            if column is not None:
                counts[column] += 1
        row = {column: (1 + math.log(count)) * float(self.idf[column]) for column, count in counts.items()}
        for kind in "wc":
            own = [column for column in row if self.vocabulary[column][0] == kind]
            norm = math.sqrt(sum(row[column] ** 2 for column in own)) or 1.0
            for column in own:
                row[column] /= norm
        return row
