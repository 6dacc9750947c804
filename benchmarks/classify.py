"""How well and how fast the local classifier understands: `python -m benchmarks.classify [--json FILE]`.

Measures phrases that nobody trained on (tests/data/phrases/PACK.jsonl by default); prints a table, and writes JSON.
Of PACK_blind.jsonl only sums are shown: who reads its single errors tunes to them, and the set is blind no more.
`--cross-validate` measures on the pack's own phrases instead, each fold by what was learnt from the others.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from quickcomm.contracts.insight import Insight, Item
from quickcomm.intelligence.adapters.embedding import Embedder
from quickcomm.intelligence.adapters.local import LocalClassifier, build_local_classifier
from quickcomm.intelligence.adapters.training import FOLDS, Trainer, fold_of
from quickcomm.intelligence.model.reading import Reader
from quickcomm.kernel.site_pack import Phrase, PhraseInsight, SitePack, load_pack, load_phrases

HELD_BACK = Path(__file__).resolve().parent.parent / "tests" / "data" / "phrases"
DECILES = 10

Found = Sequence[tuple[Insight, ...]]


@dataclasses.dataclass(slots=True)
class Score:
    """Counts over one set of phrases; rates are worked out at the end."""

    pack: SitePack
    rows: list[tuple[str, PhraseInsight | None, Insight | None]] = dataclasses.field(default_factory=list)
    counts: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    danger: list[tuple[str, bool, bool]] = dataclasses.field(default_factory=list)

    def add(self, phrase: Phrase, found: tuple[Insight, ...]) -> None:
        self.rows += [(phrase.text, want, got) for want, got in zip_longest(phrase.insights, found)]
        self.counts.append((len(phrase.insights), len(found)))
        emergency = self.pack.emergency.intent
        want = any(i.intent == emergency for i in phrase.insights)
        self.danger.append((phrase.text, want, any(i.intent == emergency for i in found)))

    def rate(self, field: str) -> float:
        pairs = [(getattr(w, field), getattr(g, field) if g else None) for _, w, g in self.rows if w is not None]
        return _mean(w == g for w, g in pairs)

    def rooms(self) -> float:
        return _mean(set(w.rooms) == set(g.rooms if g else ()) for _, w, g in self.rows if w is not None)

    def invented_rooms(self) -> float:
        return _mean(bool(set(g.rooms) - set(w.rooms if w else ())) for _, w, g in self.rows if g is not None)

    def items_f1(self) -> float:
        hits = wanted = given = 0
        for _, want, got in self.rows:
            a, b = _items(want.items if want else ()), _items(got.items if got else ())
            hits, wanted, given = hits + (a & b).total(), wanted + a.total(), given + b.total()
        return 2 * hits / (wanted + given) if wanted + given else 1.0

    def calibration(self) -> tuple[float, list[tuple[float, float, int]]]:
        """Work out the expected error, and (mean confidence, accuracy, count) for each tenth of the answers."""
        pairs = sorted((g.confidence, g.intent == (w.intent if w else None)) for _, w, g in self.rows if g is not None)
        tenths = [part for part in np.array_split(np.asarray(pairs, np.float64), DECILES) if len(part)]
        table = [(float(p[:, 0].mean()), float(p[:, 1].mean()), len(p)) for p in tenths]
        return sum(abs(c - a) * n for c, a, n in table) / max(len(pairs), 1), table

    def confusions(self, field: str, most: int = 12) -> list[tuple[str, str, int]]:
        pairs = Counter((getattr(w, field), getattr(g, field) if g else "-") for _, w, g in self.rows if w is not None)
        return [(a, b, n) for (a, b), n in pairs.most_common() if a != b][:most]

    def summary(self) -> dict[str, float]:
        found = [got for _, want, got in self.danger if want]
        alarms = [got for _, want, got in self.danger if not want]
        return {
            "phrases": len(self.counts),
            "intent": self.rate("intent"),
            "department": self.rate("department"),
            "urgency": self.rate("urgency"),
            "rooms_exact": self.rooms(),
            "rooms_invented": self.invented_rooms(),
            "items_f1": self.items_f1(),
            "insight_count_right": _mean(a == b for a, b in self.counts),
            "several_found": _mean(a == b for a, b in self.counts if a > 1),
            "one_kept_whole": _mean(a == b for a, b in self.counts if a == 1),
            "emergencies_found": _mean(found),
            "emergencies": len(found),
            "false_alarms": _mean(alarms),
            "calibration_error": self.calibration()[0],
        }


def _mean(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 1.0


def _items(items: Sequence[Item]) -> Counter[tuple[str, int]]:
    """Names without regard to number of the noun: "towels" is "towel"."""
    return Counter((" ".join(_singular(word) for word in i.name.lower().split()), i.quantity) for i in items)


def _singular(word: str) -> str:
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss"):
            return word.removesuffix(ending) + instead
    return word


def measure(pack: SitePack, classifier: LocalClassifier, phrases: Sequence[Phrase]) -> Score:
    score = Score(pack)
    for phrase, found in zip(phrases, classifier.understand([p.text for p in phrases]), strict=True):
        score.add(phrase, found)
    return score


def cross_validate(pack: SitePack, cache_dir: Path) -> Score:
    """Learn from all folds but one, and measure that one, in turn."""
    phrases, score = load_phrases(pack), Score(pack)
    for fold in range(FOLDS):
        reader, embedder = Reader(pack), Embedder(cache_dir)
        inside = [p for p in phrases if fold_of(p.text) != fold]
        outside = [p for p in phrases if fold_of(p.text) == fold]
        learnt = Trainer(pack, reader, embedder, lambda _step, _done: None).train(inside)
        part = measure(pack, LocalClassifier(pack, reader, embedder, learnt), outside)
        score.rows, score.counts, score.danger = (
            score.rows + part.rows, score.counts + part.counts, score.danger + part.danger,
        )  # fmt: skip
    return score


def speed(classifier: LocalClassifier, texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds an utterance: one by one (median, 95th), and in batches of 32."""
    alone = []
    for text in texts:
        began = time.perf_counter()
        classifier.understand([text])
        alone.append(time.perf_counter() - began)
    began = time.perf_counter()
    for start in range(0, len(texts), 32):
        classifier.understand(texts[start : start + 32])
    batched = (time.perf_counter() - began) / len(texts)
    p50, p95 = np.percentile(alone, [50, 95])
    return {"ms_alone_p50": 1e3 * float(p50), "ms_alone_p95": 1e3 * float(p95), "ms_batched": 1e3 * batched}


def report(score: Score, times: dict[str, float], *, errors: bool) -> None:
    for name, value in (score.summary() | times).items():
        print(f"{name:22} {value:8.3f}" if value < 1.0 or "ms" in name else f"{name:22} {value:8.2f}")
    print("\nconfidence → accuracy, by tenth:")
    print("  " + "  ".join(f"{c:.2f}→{a:.2f}" for c, a, _ in score.calibration()[1]))
    for field in ("intent", "department", "urgency"):
        print(f"\nmost confused, {field}: " + ", ".join(f"{a}→{b} {n}" for a, b, n in score.confusions(field)))
    if errors:
        _print_errors(score)


def _print_errors(score: Score) -> None:
    for text, want, got in score.rows:
        said = [(w.intent, w.department, w.urgency, sorted(w.rooms), w.items) if w else None for w in (want, got)]
        if said[0] != said[1]:
            print(json.dumps({"text": text, "want": str(said[0]), "got": str(said[1])}, ensure_ascii=False))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", default="hospitality", help="name or folder of a site pack")
    parser.add_argument("--phrases", type=Path, help="labelled phrases to measure on")
    parser.add_argument("--cross-validate", action="store_true", help="measure on the pack's own phrases, fold by fold")
    parser.add_argument("--cache-dir", type=Path, default=Path(tempfile.gettempdir()) / "quickcomm-bench")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--errors", action="store_true", help="list what was not understood as labelled")
    options = parser.parse_args(arguments)
    pack = load_pack(options.pack)
    times: dict[str, float] = {}
    blind: dict[str, float] = {}
    if options.cross_validate:
        score = cross_validate(pack, options.cache_dir)
    else:
        began = time.perf_counter()
        classifier = build_local_classifier(pack, options.cache_dir)
        times["load_s"] = time.perf_counter() - began
        phrases = load_phrases(pack, options.phrases or HELD_BACK / f"{pack.name}.jsonl")
        score = measure(pack, classifier, phrases)
        times |= speed(classifier, [p.text for p in phrases])
        unseen = HELD_BACK / f"{pack.name}_blind.jsonl"
        if options.phrases is None and unseen.is_file():
            blind = measure(pack, classifier, load_phrases(pack, unseen)).summary()
    report(score, times, errors=options.errors)
    if blind:
        print("\nblind set: " + ", ".join(f"{name} {value:.3f}" for name, value in blind.items()))
    if options.json:
        tenths = [{"confidence": c, "accuracy": a, "answers": n} for c, a, n in score.calibration()[1]]
        figures = {
            "pack": pack.name, "cpus": os.cpu_count(), **score.summary(), **times, "tenths": tenths,
            "blind": blind,
            "confusions": {field: score.confusions(field) for field in ("intent", "department", "urgency")},
        }  # fmt: skip
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
