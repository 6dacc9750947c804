"""Makes the learnt part of the local classifier from a pack's phrases; runs once for each pack, then the cache has it.

Labelled phrases → examples (as written, and as speech-to-text may write them) → heads, temperatures by cross-fitting,
and the cutter that tells one need from two. Seconds on one core.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from quickcomm.intelligence.adapters.embedding import Embedder
from quickcomm.intelligence.adapters.heads import Features, Floats, Head, Learnt, flags, join_features, softmax
from quickcomm.intelligence.adapters.ngrams import Ngrams
from quickcomm.intelligence.model.clauses import Cut, candidates, pieces
from quickcomm.intelligence.model.cutting import Part, cut_signs
from quickcomm.intelligence.model.reading import Reader, Reading
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.site_pack import Phrase, PhraseInsight, SitePack

Progress = Callable[[str, float], None]
"""Told what is being done, and how much of the whole is behind (0 to 1)."""

HEADS = ("intent", "department", "urgency", "danger")
FOLDS = 3
STRENGTH = {"intent": 2.0, "department": 0.7, "urgency": 1.0, "danger": 1.0, "cut": 1.0}
"""Inverse penalty of each head, found by cross-validation."""

INTENT_SCALE, SIGN_SCALE = 4.0, 1.5
"""How much the intent, and the signs of the rules, may weigh more where the department is learnt; both found by
cross-validation."""

_INNER = re.compile(r"[,.;:!?-]\s")
_MIN_PHRASES = 20
_ROOM_BONUS = 3.0
_NEVER = 9.0
_USUAL = 6.0
_MAX_QUESTIONS = 500
"""Places to cut that are looked at, those of phrases with several insights first; more teach little."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A text with one insight; `fold` keeps all wordings of one phrase together."""

    text: str
    insight: PhraseInsight
    fold: int


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """Heads that were fitted on some folds."""

    ngrams: Ngrams
    heads: dict[str, Head]


class Trainer:
    """Fits everything for one pack. `embed` and `reader` must be those that will be used to classify."""

    def __init__(self, pack: SitePack, reader: Reader, embedder: Embedder, progress: Progress) -> None:
        self._pack, self._reader, self._embedder, self._progress = pack, reader, embedder, progress
        self._known: dict[str, tuple[Reading, Floats]] = {}
        self._vectors: dict[str, Floats] = {}
        self._intents = sorted(pack.intents)
        self._tasks = [pack.intents[name].opens_task for name in self._intents]

    def train(self, phrases: Sequence[Phrase]) -> Learnt:
        if len(phrases) < _MIN_PHRASES:
            raise ConfigurationError(f"{self._pack.name}: {len(phrases)} phrases are too few to learn from.")
        singles = [example for phrase in phrases for example in _examples(phrase)]
        several = [phrase for phrase in phrases if len(phrase.insights) > 1]
        self._progress("read", 0.05)
        self.learn_texts([e.text for e in singles] + [p.text for p in several])
        self._progress("cross-fit", 0.4)
        fitted, report, temperature = self._cross_fit(singles)
        self._progress("cut", 0.7)
        cut = self._fit_cutter(phrases, fitted)
        self._progress("fit", 0.8)
        examples = singles + [e for p in several for e in self._aligned(p, fitted[fold_of(p.text)])]
        final = self._fit(examples)
        intent = msgspec.structs.replace(final.heads["intent"], temperature=temperature)
        self._progress("done", 1.0)
        heads = {**final.heads, "intent": intent, "cut": cut}
        return Learnt(ngrams=final.ngrams, heads=heads, report=report | {"temperature": temperature})

    def learn_texts(self, texts: Iterable[str]) -> None:
        """Read and embed texts that are not known yet."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        readings = [self._reader.read(text) for text in new]
        if not new:
            return
        plain = [p for p in dict.fromkeys(reading.plain for reading in readings) if p not in self._vectors]
        self._vectors.update(zip(plain, self._embedder.embed(plain), strict=True))
        self._known.update((text, (r, self._vectors[r.plain])) for text, r in zip(new, readings, strict=True))

    def _label(self, example: Example, head: str) -> str:
        if head == "danger":
            return "yes" if example.insight.intent == self._pack.emergency.intent else "no"
        return str(getattr(example.insight, head))

    def _different(self, examples: Sequence[Example]) -> list[Example]:
        """Without those that look to the heads like one that is there already."""
        seen = {(self._known[e.text][0].plain, self._known[e.text][0].flags, e.insight): e for e in reversed(examples)}
        return list(seen.values())

    def _features(self, ngrams: Ngrams, texts: Sequence[str]) -> Features:
        self.learn_texts(texts)
        readings = [self._known[text][0] for text in texts]
        vectors: Floats = np.stack([self._known[text][1] for text in texts])
        return join_features(vectors, ngrams.transform([r.plain for r in readings]), flags(readings))

    def _fit(self, examples: Sequence[Example], names: Sequence[str] = HEADS) -> Fitted:
        self.learn_texts([e.text for e in examples])
        examples = self._different(examples)
        ngrams = Ngrams.fit([self._known[e.text][0].plain for e in examples])
        features = self._features(ngrams, [e.text for e in examples])
        plain = [name for name in names if name != "department"]
        heads = {name: fit_head(features, [self._label(e, name) for e in examples], STRENGTH[name]) for name in plain}
        if "department" in names:
            heads["department"], heads["pairs"] = self._fit_department(features, examples)
        return Fitted(ngrams=ngrams, heads=heads)

    def _fit_department(self, features: Features, examples: Sequence[Example]) -> tuple[Head, Head]:
        """Fit what the words say of the department, and beside them the intent: float32[intents, departments].

        Both together, since each alone would count again what the other knows.
        """
        rows = [self._intents.index(e.insight.intent) for e in examples]
        given = np.eye(len(self._intents), dtype=np.float32)[rows] * INTENT_SCALE
        vector = self._embedder.size
        scale = np.ones(features.dense.shape[1], np.float32)
        scale[vector:] = SIGN_SCALE
        joined = features._replace(dense=np.hstack([given, features.dense * scale]))
        both = fit_head(joined, [self._label(e, "department") for e in examples], STRENGTH["department"])
        by_intent, by_words = both.weights[: len(self._intents)], both.weights[len(self._intents) :]
        by_words[: len(scale)] *= scale[:, None]
        pairs = np.ascontiguousarray(by_intent * np.float32(INTENT_SCALE))
        for row in set(range(len(self._intents))) - set(rows):  # an intent without a phrase has its usual department
            usual = self._pack.intents[self._intents[row]].department
            pairs[row] = [_USUAL if name == usual else 0.0 for name in both.classes]
        words = msgspec.structs.replace(both, weights=np.ascontiguousarray(by_words))
        return words, Head(classes=both.classes, weights=pairs, bias=np.zeros(len(both.classes), np.float32))

    def _cross_fit(self, examples: Sequence[Example]) -> tuple[list[Fitted], dict[str, float], float]:
        """Intent heads that have not seen one fold each, how right they are about it, and the temperature that fits."""
        fitted: list[Fitted] = []
        rows: Rows = []
        for fold in range(FOLDS):
            made = self._fit([e for e in examples if e.fold != fold], ("intent",))
            fitted.append(made)
            outside = [e for e in examples if e.fold == fold]
            if outside:
                head = made.heads["intent"]
                features = self._features(made.ngrams, [e.text for e in outside])
                rows.append((head.logits(features), head.classes, [self._label(e, "intent") for e in outside]))
            self._progress("cross-fit", 0.4 + 0.3 * (fold + 1) / FOLDS)
        return fitted, {"accuracy": _accuracy(rows)}, _temperature(rows)

    def _aligned(self, phrase: Phrase, fitted: Fitted) -> list[Example]:
        """Cut a phrase that asks several things into clauses, each with its insight; none if that cannot be done."""
        cuts = self._best_cuts(phrase, fitted)
        if cuts is None:
            return []
        spans = pieces(phrase.text, list(cuts))
        return [
            Example(text=phrase.text[a:b], insight=insight, fold=fold_of(phrase.text))
            for (a, b), insight in zip(spans, phrase.insights, strict=True)
        ]

    def _best_cuts(self, phrase: Phrase, fitted: Fitted) -> tuple[Cut, ...] | None:
        options = list(itertools.combinations(candidates(phrase.text, self._reader), len(phrase.insights) - 1))
        if not options:
            return None
        spans = [pieces(phrase.text, list(option)) for option in options]
        texts = list(dict.fromkeys(phrase.text[a:b] for option in spans for a, b in option))
        head = fitted.heads["intent"]
        logs = dict(zip(texts, np.log(head.probabilities(self._features(fitted.ngrams, texts)) + 1e-6), strict=True))

        def score(option: list[tuple[int, int]]) -> float:
            total = 0.0
            for (a, b), insight in zip(option, phrase.insights, strict=True):
                text = phrase.text[a:b]
                rooms = {m.value for m in self._known[text][0].rooms}
                total += float(logs[text][head.classes.index(insight.intent)]) if insight.intent in head.classes else 0
                total += _ROOM_BONUS * (rooms == set(insight.rooms))
            return total

        return options[max(range(len(options)), key=lambda i: score(spans[i]))]

    def _fit_cutter(self, phrases: Sequence[Phrase], fitted: Sequence[Fitted]) -> Head:
        asked = self._questions(phrases, fitted)
        self.learn_texts(side for _, text, start, cut, _ in asked for side in sides(text, start, cut))
        rows = [self._signs(fitted[fold], text, start, cut) for fold, text, start, cut, _ in asked]
        labels = ["cut" if yes else "keep" for *_, yes in asked]
        if len(set(labels)) < 2:  # noqa: PLR2004 - nothing to tell apart
            weights = np.zeros((len(rows[0]) if rows else 1, 2), np.float32)
            return Head(classes=("cut", "keep"), weights=weights, bias=np.array([-_NEVER, _NEVER], np.float32))
        return fit_head(np.asarray(rows, np.float32), labels, STRENGTH["cut"])

    def _questions(self, phrases: Sequence[Phrase], fitted: Sequence[Fitted]) -> list[tuple[int, str, int, Cut, bool]]:
        """Where to cut, and where not: fold, text, start of the clause, cut, and whether it is one."""
        asked: list[tuple[int, str, int, Cut, bool]] = []
        for phrase in sorted(phrases, key=lambda p: (len(p.insights) == 1, hashlib.sha256(p.text.encode()).digest())):
            if len(asked) >= _MAX_QUESTIONS:
                break
            fold = fold_of(phrase.text)
            options = candidates(phrase.text, self._reader)
            gold = self._best_cuts(phrase, fitted[fold]) if len(phrase.insights) > 1 else ()
            if gold is None:
                continue
            start = 0
            for cut in options:
                asked.append((fold, phrase.text, start, cut, cut in gold))
                start = cut.end if cut in gold else start
        return asked

    def _signs(self, fitted: Fitted, text: str, start: int, cut: Cut) -> list[float]:
        texts = sides(text, start, cut)
        head = fitted.heads["intent"]
        rows = whole_rows(head, head.probabilities(self._features(fitted.ngrams, texts)), self._intents)
        parts = [Part(reading=self._known[t][0], intents=row) for t, row in zip(texts, rows, strict=True)]
        return cut_signs(cut, (parts[0], parts[1], parts[2]), self._tasks)


def sides(text: str, start: int, cut: Cut) -> tuple[str, str, str]:
    """Give what is left and right of a cut, and both together."""
    return text[start : cut.start], text[cut.end :], text[start:]


def whole_rows(head: Head, rows: Floats, names: Sequence[str]) -> Floats:
    """Probabilities for all names, 0 for those that the head never saw: float32[n, names]."""
    out = np.zeros((len(rows), len(names)), np.float32)
    out[:, [names.index(name) for name in head.classes]] = rows
    return out


def fit_head(features: Features | Floats, labels: Sequence[str], strength: float) -> Head:
    """Multinomial logistic regression (SciPy and scikit-learn, imported here because only training needs them)."""
    from scipy import sparse  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    matrix: sparse.csr_array | Floats
    if isinstance(features, Features):
        dense, grams = features
        terms = sparse.csr_array((grams.values, grams.columns, grams.ends), shape=(len(dense), grams.width))
        matrix = sparse.csr_array(sparse.hstack([sparse.csr_array(dense), terms]))
    else:
        matrix = features
    classes = sorted(set(labels))
    if len(classes) == 1:
        zeros = np.zeros((int(matrix.shape[1]), 1), np.float32)
        return Head(classes=tuple(classes), weights=zeros, bias=np.zeros(1, np.float32))
    model = LogisticRegression(C=strength, max_iter=300, tol=3e-3)
    model.fit(matrix, np.asarray(labels))
    weights, bias = np.asarray(model.coef_, np.float32), np.asarray(model.intercept_, np.float32)
    if len(classes) == 2:  # noqa: PLR2004 - scikit-learn keeps one row for two classes
        weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    return Head(classes=tuple(map(str, model.classes_)), weights=np.ascontiguousarray(weights.T), bias=bias)


def _examples(phrase: Phrase) -> list[Example]:
    if len(phrase.insights) != 1:
        return []
    texts = dict.fromkeys([phrase.text, heard(phrase.text)] if _INNER.search(phrase.text) else [phrase.text])
    return [Example(text=text, insight=phrase.insights[0], fold=fold_of(phrase.text)) for text in texts if text.strip()]


def heard(text: str) -> str:
    """As speech-to-text writes it on a bad day: no capitals, no punctuation."""
    return " ".join(re.sub(r"[^\w\s']", " ", text).lower().split())


def fold_of(text: str) -> int:
    return hashlib.sha256(heard(text).encode()).digest()[0] % FOLDS


Rows = list[tuple[Floats, tuple[str, ...], list[str]]]


def _accuracy(rows: Rows) -> float:
    right = [classes[int(i)] == y for logits, classes, ys in rows for i, y in zip(logits.argmax(1), ys, strict=True)]
    return float(np.mean(right))


def _temperature(rows: Rows) -> float:
    """Find the temperature under which held-out labels are most probable (Guo et al., 2017)."""

    def loss(log_t: float) -> float:
        total: list[npt.NDArray[np.float32]] = []
        for logits, classes, ys in rows:
            known = [(i, classes.index(y)) for i, y in enumerate(ys) if y in classes]
            p = softmax(logits / np.float32(np.exp(log_t)))
            total.append(np.asarray([-np.log(p[i, j] + 1e-9) for i, j in known], np.float32))
        return float(np.concatenate(total).mean())

    from scipy import optimize  # noqa: PLC0415 - not needed where nothing is learnt

    found = optimize.minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded")
    return float(np.exp(found.x))
