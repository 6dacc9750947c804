"""Plants a fault while a file exists: intelligence as a service takes everything for lost property; audio mishears.

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

if "audio" in sys.orig_argv:
    from quickcomm.audio.adapters.whisper import Whisper
    from quickcomm.audio.ports import Clip, Transcript

    transcribe = Whisper.transcribe

    def mishear(self: Whisper, clips: Sequence[Clip]) -> list[Transcript]:
        found = transcribe(self, clips)
        if not WRONG.exists():
            return found
        return [
            msgspec.structs.replace(each, text=" ".join(reversed(each.text.split()))) if each.text else each
            for each in found
        ]

    Whisper.transcribe = mishear  # type: ignore[method-assign]
