"""How many utterances get exactly their cards, and what closes a task: `python -m benchmarks.understanding`.

A card counts by intent, department and rooms; an utterance is exact when its set of cards is. Per 100 utterances:
extra cards, missing cards, and tasks that nobody asked for. `--cut` tries other certainties for a cut between clauses.
Of *_check.jsonl and *_blind.jsonl only sums are shown, `--errors` or not: who reads their errors tunes to them.
"""

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.classify import HELD_BACK
from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.adapters.local import CUT, LocalClassifier, build_local_classifier
from quickcomm.kernel.site_pack import Phrase, PhraseInsight, SitePack, load_pack, load_phrases

SETS = ("", "_blind", "_relations", "_relations_check")
CLOSINGS = ("_closings", "_closings_check")
CLOSES = "task_done"
LEVELS = (0.0, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9)
SEALED = ("_blind", "_check")

Found = Sequence[tuple[Insight, ...]]


def cards(insights: Sequence[Insight | PhraseInsight]) -> Counter[tuple[str, str, frozenset[str]]]:
    return Counter((one.intent, one.department, frozenset(one.rooms)) for one in insights)


def exact(pack: SitePack, phrases: Sequence[Phrase], found: Found) -> dict[str, dict[str, float]]:
    """Return the figures of each kind of phrase, and of "all": `exact` as a share, the others per 100 utterances."""
    rows: dict[str, list[tuple[bool, int, int, int]]] = defaultdict(list)
    for phrase, got in zip(phrases, found, strict=True):
        asked = sum(pack.opens_task(one.intent) for one in phrase.insights)
        opened = sum(pack.opens_task(one.intent) for one in got)
        more = len(got) - len(phrase.insights)
        row = (cards(phrase.insights) == cards(got), max(more, 0), max(-more, 0), max(opened - asked, 0))
        for kind in ("all", phrase.kind or "any"):
            rows[kind].append(row)
    return {
        kind: {
            "utterances": len(own),
            "exact": sum(row[0] for row in own) / len(own),
            "extra": 100 * sum(row[1] for row in own) / len(own),
            "missing": 100 * sum(row[2] for row in own) / len(own),
            "tasks_unasked": 100 * sum(row[3] for row in own) / len(own),
        }
        for kind, own in rows.items()
    }


def closing_confidences(found: Found) -> list[float]:
    """Return how sure each utterance is that a job is finished; 0 where it does not say so."""
    return [max((one.confidence for one in got if one.intent == CLOSES), default=0.0) for got in found]


def closings(phrases: Sequence[Phrase], found: Found, level: float) -> tuple[float, float]:
    """Return the shares of finished jobs that close nothing, and of live work that closes something."""
    missed, wrong = [], []
    for phrase, sure in zip(phrases, closing_confidences(found), strict=True):
        closes = sure > 0.0 and sure >= level
        if any(one.intent == CLOSES for one in phrase.insights):
            missed.append(not closes)
        else:
            wrong.append(closes)
    return sum(missed) / max(len(missed), 1), sum(wrong) / max(len(wrong), 1)


def measured(pack: SitePack, classifier: LocalClassifier, *, errors: bool) -> dict[str, object]:
    figures: dict[str, object] = {}
    for suffix in (*SETS, *CLOSINGS):
        path = HELD_BACK / f"{pack.name}{suffix}.jsonl"
        if not path.is_file():
            continue
        phrases = load_phrases(pack, path)
        found = classifier.understand([phrase.text for phrase in phrases])
        if suffix in CLOSINGS:
            figures[path.stem] = {str(level): closings(phrases, found, level) for level in LEVELS}
        else:
            figures[path.stem] = exact(pack, phrases, found)
        if errors and not path.stem.endswith(SEALED):
            _print_errors(phrases, found, only_closings=suffix in CLOSINGS)
    return figures


def _print_errors(phrases: Sequence[Phrase], found: Found, *, only_closings: bool) -> None:
    for phrase, got, sure in zip(phrases, found, closing_confidences(found), strict=True):
        closes = any(one.intent == CLOSES for one in phrase.insights)
        if only_closings and closes == (sure > 0.0):
            continue
        if cards(phrase.insights) != cards(got):
            said = [f"{one.intent} {one.department} {list(one.rooms)} {one.confidence:.2f}" for one in got]
            want = [f"{one.intent} {one.department} {list(one.rooms)}" for one in phrase.insights]
            print(json.dumps({"text": phrase.text, "want": want, "got": said}))


def _print(cut: float, figures: dict[str, object]) -> None:
    print(f"\ncut {cut:.2f}")
    for name, own in figures.items():
        assert isinstance(own, dict)
        for key, row in own.items():
            if isinstance(row, tuple):
                print(f"  {name:32} from {key}: missed {row[0]:6.1%}  wrongly closed {row[1]:6.1%}")
            else:
                numbers = "  ".join(f"{field} {row[field]:5.1f}" for field in ("extra", "missing", "tasks_unasked"))
                print(f"  {name:32} {key:10} {row['utterances']:4}  exact {row['exact']:6.1%}  {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", default="hospitality", help="name or folder of a site pack")
    parser.add_argument("--cache-dir", type=Path, default=Path(tempfile.gettempdir()) / "quickcomm-bench")
    parser.add_argument("--cut", type=float, nargs="+", default=[CUT], help="certainties of a cut to try")
    parser.add_argument("--errors", action="store_true", help="list wrong utterances of the sets that are not sealed")
    options = parser.parse_args()
    pack = load_pack(options.pack)
    last: dict[str, object] = {}
    for cut in options.cut:
        classifier = build_local_classifier(pack, options.cache_dir, cut=cut)
        last = measured(pack, classifier, errors=options.errors)
        _print(cut, last)
    print(json.dumps({"pack": pack.name, "cut": options.cut[-1], **last}))


if __name__ == "__main__":
    main()
