"""The local classifier: what understands when no language model does. Built by the assembly, used by the service.

Utterances → clauses (the learnt cutter) → rules and learnt heads for each → insights. No network, a few milliseconds.
"""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import structlog
from filelock import FileLock

from quickcomm.contracts.insight import Evidence, Insight
from quickcomm.intelligence.adapters import heads
from quickcomm.intelligence.adapters.embedding import Embedder
from quickcomm.intelligence.adapters.heads import Floats, Learnt, flags, join_features
from quickcomm.intelligence.adapters.training import Progress, Trainer, sides, whole_rows
from quickcomm.intelligence.model import deciding
from quickcomm.intelligence.model.clauses import Cut, asks_anew, candidates, contrasts, pieces
from quickcomm.intelligence.model.cutting import Part, cut_signs
from quickcomm.intelligence.model.deciding import Clause, Opinion, decide, insight
from quickcomm.intelligence.model.mention import Mention
from quickcomm.intelligence.model.orders import without_orders
from quickcomm.intelligence.model.reading import Reader, Reading
from quickcomm.intelligence.ports import Heard
from quickcomm.kernel.emergencies import tidy
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.site_pack import SitePack, load_phrases

ENGINE = "local-minilm-1"
_LEARNS = (
    "adapters/ngrams.py",
    "adapters/heads.py",
    "adapters/training.py",
    "model/clauses.py",
    "model/cutting.py",
    "model/items.py",
    "model/mentions.py",
    "model/reading.py",
    "../kernel/emergencies.py",
)
"""The code that decides what is learnt; when it changes, older caches are not used."""

MAX_WAITING = 16
"""Calls that may wait for the worker; later callers wait before that, which slows who sends and loses nothing."""

CUT = 0.8
"""How sure the cutter must be that a clause is a thing of its own."""
CUT_REQUEST = 0.5
"""The same, where the clause looks like a request or names another room (`python -m benchmarks.understanding`)."""

_BATCH = 64
_OTHERS = {"cut", "pairs"}
"""Heads that do not look at the features of a text."""

log = structlog.get_logger(__name__)


class LocalClassifier:
    """A `Classifier` over one pack. One worker thread does the arithmetic; `aclose` ends it."""

    def __init__(self, pack: SitePack, reader: Reader, embedder: Embedder, learnt: Learnt, *, cut: float = CUT) -> None:
        self._pack, self._reader, self._embedder, self._learnt = pack, reader, embedder, learnt
        self._cut = cut
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="classify")
        self._slots = asyncio.Semaphore(MAX_WAITING)
        self._closed = False
        self._tasks = [pack.intents[name].opens_task for name in sorted(pack.intents)]

    @property
    def model(self) -> str:
        return ENGINE

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        """What is said to a language model is left out, whether there is one or not: it was not said to people."""
        if self._closed:
            raise ConfigurationError("The local classifier is closed.")
        loop = asyncio.get_running_loop()
        found: list[tuple[Insight, ...]] = []
        for start in range(0, len(heard), _BATCH):
            texts = [without_orders(one.text) for one in heard[start : start + _BATCH]]
            async with self._slots:
                found += await loop.run_in_executor(self._worker, self.understand, texts)
        return found

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._worker.shutdown)
            self._embedder.close()

    def understand(self, texts: Sequence[str]) -> list[tuple[Insight, ...]]:
        """Do what `classify` does, now; for one thread at a time."""
        given, texts = texts, [tidy(text) for text in texts]
        known = _Known(self._reader, self._embedder, self._learnt)
        cuts = self._cuts(known, texts)
        spans = [pieces(text, own) for text, own in zip(texts, cuts, strict=True)]
        known.learn([text[a:b] for text, own in zip(texts, spans, strict=True) for a, b in own])
        found = []
        for text, own, cut, original in zip(texts, spans, cuts, given, strict=True):
            insights = self._insights(known, [text[a:b] for a, b in own], [contrasts(text, one) for one in cut])
            found.append(tuple(_cited(one, text, original) for one in insights))
        return found

    def _insights(self, known: "_Known", clauses: list[str], but: list[bool]) -> tuple[Insight, ...]:
        readings = [known.readings[clause] for clause in clauses]
        opinions = [known.opinion(clause) for clause in clauses]
        decided = [decide(self._pack, r, o) for r, o in zip(readings, opinions, strict=True)]
        for i, (taken_up, (first, second)) in enumerate(zip(but, pairwise(readings), strict=True)):
            if taken_up and same_rooms(first, second):
                decided[i] = deciding.doubted(self._pack, decided[i])
        acts = [self._pack.opens_task(one.intent) for one in decided]
        found = []
        for i, (reading, opinion, one) in enumerate(zip(readings, opinions, decided, strict=True)):
            rooms = _rooms(readings, acts, i, elsewhere=self._reader.elsewhere(reading))
            clause = Clause(reading=reading, opinion=opinion, rooms=rooms)
            made = insight(self._pack, clause, one, index=i, model=ENGINE)
            found.append(made)
        return deciding.combined(found)

    def _cuts(self, known: "_Known", texts: Sequence[str]) -> list[list[Cut]]:
        """Go through each text's candidate cuts from left to right; all texts take a step together, in one batch."""
        options = [candidates(text, self._reader) for text in texts]
        chosen: list[list[Cut]] = [[] for _ in texts]
        starts = [0] * len(texts)
        head = self._learnt.heads["cut"]
        yes = head.classes.index("cut")
        for step in range(max(map(len, options), default=0)):
            rows = [i for i, own in enumerate(options) if step < len(own)]
            parted = [sides(texts[i], starts[i], options[i][step]) for i in rows]
            known.learn([side for triple in parted for side in triple])
            signs = [
                cut_signs(
                    options[i][step], (known.part(triple[0]), known.part(triple[1]), known.part(triple[2])), self._tasks
                )
                for i, triple in zip(rows, parted, strict=True)
            ]
            chances = head.probabilities(np.asarray(signs, np.float32))[:, yes]
            for i, chance in zip(rows, chances, strict=True):
                if chance >= self._least(texts[i], starts[i], options[i], step):
                    chosen[i].append(options[i][step])
                    starts[i] = options[i][step].end
        return chosen

    def _least(self, text: str, start: int, options: Sequence[Cut], step: int) -> float:
        """Return how probable a cut must be; the clause behind it ends where the next one may."""
        cut = options[step]
        end = options[step + 1].start if step + 1 < len(options) else len(text)
        left = self._reader.read(text[start : cut.start], flags=False)
        right = self._reader.read(text[cut.end : end], flags=False)
        return min(CUT_REQUEST, self._cut) if asks_anew(left, right) else self._cut


class _Known:
    """Readings and probabilities of the texts of one call, each worked out once."""

    def __init__(self, reader: Reader, embedder: Embedder, learnt: Learnt) -> None:
        self._reader, self._embedder, self._learnt = reader, embedder, learnt
        self._intents = sorted(reader.pack.intents)
        pairs = learnt.heads["pairs"]
        self._usual = {
            intent: dict(zip(pairs.classes, map(float, row), strict=True))
            for intent, row in zip(self._intents, np.exp(pairs.weights), strict=True)
        }
        self.readings: dict[str, Reading] = {}
        self._chances: dict[str, dict[str, Floats]] = {}

    def learn(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self.readings]
        if not new:
            return
        readings = [self._reader.read(text) for text in new]
        plain = [reading.plain for reading in readings]
        grams = self._learnt.ngrams.transform(plain)
        features = join_features(self._embedder.embed(plain), grams, flags(readings))
        said = {name: head.probabilities(features) for name, head in self._learnt.heads.items() if name not in _OTHERS}
        said["intents"] = whole_rows(self._learnt.heads["intent"], said["intent"], self._intents)
        for row, text in enumerate(new):
            self.readings[text] = readings[row]
            self._chances[text] = {name: rows[row] for name, rows in said.items()}

    def part(self, text: str) -> Part:
        return Part(reading=self.readings[text], intents=self._chances[text]["intents"])

    def opinion(self, text: str) -> Opinion:
        own = self._chances[text]

        def named(head: str) -> dict[str, float]:
            return dict(zip(self._learnt.heads[head].classes, map(float, own[head]), strict=True))

        return Opinion(
            intent=named("intent"),
            department=named("department"),
            urgency=named("urgency"),
            danger=named("danger").get("yes", 0.0),
            usual=self._usual,
        )


def _cited(found: Insight, text: str, original: str) -> Insight:
    """Evidence in the words of the original: `text` is the same, place by place, but for quotes and dashes."""
    if text == original[: len(text)]:
        return found

    def cite(words: tuple[str, ...]) -> tuple[str, ...]:
        places = [(text.find(word), len(word)) for word in words]
        return tuple(original[at : at + length] for at, length in places if at >= 0)

    kept = found.evidence
    evidence = Evidence(rooms=cite(kept.rooms), items=cite(kept.items), urgency=cite(kept.urgency))
    return msgspec.structs.replace(found, evidence=evidence)


def same_rooms(first: Reading, second: Reading) -> bool:
    """Return True unless the second clause names a room that the first does not."""
    return {room.value for room in second.rooms} <= {room.value for room in first.rooms}


def _rooms(readings: Sequence[Reading], acts: Sequence[bool], index: int, *, elsewhere: bool) -> tuple[Mention, ...]:
    """Take a clause's own rooms; without any, nor a place elsewhere, those last named before it, or asked after it."""
    own = readings[index]
    if own.rooms or elsewhere or not acts[index]:
        return own.rooms
    near = sorted((i > index, abs(i - index), i) for i, r in enumerate(readings) if r.rooms and (acts[i] or i < index))
    return readings[near[0][2]].rooms if near else ()


def build_local_classifier(
    pack: SitePack,
    cache_dir: Path,
    *,
    weights: Path | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    cut: float = CUT,
) -> LocalClassifier:
    """Load what was learnt from this pack, or learn it now (seconds). Raises `ConfigurationError` where it cannot."""
    reader = Reader(pack)
    embedder = Embedder(cache_dir, weights=weights, threads=threads)
    learnt = _learnt(pack, reader, embedder, cache_dir, progress or _logged)
    return LocalClassifier(pack, reader, embedder, learnt, cut=cut)


def _learnt(pack: SitePack, reader: Reader, embedder: Embedder, cache_dir: Path, progress: Progress) -> Learnt:
    identity = f"{pack.digest}|{embedder.identity}|{ENGINE}|{_code_version()}"
    target = cache_dir / "classifier" / f"{pack.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if (target / heads.NAMES).is_file():
        return heads.load(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not (target / heads.NAMES).is_file():
            began = time.monotonic()
            made = Trainer(pack, reader, embedder, progress).train(load_phrases(pack))
            _keep(made, target)
            log.info("classifier.trained", pack=pack.name, seconds=round(time.monotonic() - began, 1), **made.report)
    return heads.load(target)


def _code_version() -> str:
    root = Path(__file__).resolve().parent.parent
    return hashlib.sha256(b"".join((root / name).read_bytes() for name in _LEARNS)).hexdigest()


def _keep(made: Learnt, target: Path) -> None:
    scratch = target.with_suffix(".unfinished")  # ours alone, under the lock; one of a killed process goes now
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        heads.save(made, scratch)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _logged(step: str, done: float) -> None:
    log.info("classifier.training", step=step, done=round(done, 2))
