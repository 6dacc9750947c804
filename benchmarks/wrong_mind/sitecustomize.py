"""Plants a fault: the service of intelligence takes everything for lost property while a file exists.

Python imports this by itself where its folder is in `PYTHONPATH`. `BENCH_WRONG` names the file.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

WRONG = Path(os.environ.get("BENCH_WRONG", "/nowhere"))

if "intelligence" in sys.orig_argv:
    from quickcomm.contracts.insight import Insight
    from quickcomm.intelligence.adapters.local import LocalClassifier

    understand = LocalClassifier.understand

    def misunderstand(self: LocalClassifier, texts: Sequence[str]) -> list[tuple[Insight, ...]]:
        found = understand(self, texts)
        if not WRONG.exists():
            return found
        return [tuple(msgspec.structs.replace(each, intent="lost_found") for each in insights) for insights in found]

    LocalClassifier.understand = misunderstand  # type: ignore[method-assign]
