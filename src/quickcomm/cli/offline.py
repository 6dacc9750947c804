"""`classify` and `transcribe`: the same engines as live, on text or files, without a server."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import click
import msgspec
import numpy as np

from quickcomm.audio.engine import load_engine
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.module import ENGINE_RATE, Int16, cut_offline
from quickcomm.cli.logs import set_up_logs
from quickcomm.cli.options import data_dir_option, json_option
from quickcomm.intelligence.module import Heard, build_classifier
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.site_pack import load_pack
from quickcomm.operate.settings import load_settings

BATCH = 64
MAX_LINE = 10_000
"""Bytes; what is longer is taken as several lines, so that a stream without line ends is bounded too."""


@click.command("classify")
@click.option("--pack", help="Site pack: a name or a folder [default: hospitality].")
@data_dir_option
@json_option
def classify_command(pack: str | None, data_dir: Path, *, as_json: bool) -> None:
    """Utterances on standard input, one a line, to one JSON object a line: {"text","insights":[…]}."""
    del as_json  # always JSON
    set_up_logs("warning", as_json=False)
    settings = load_settings(data_dir, {"pack": pack})
    classifier = build_classifier(load_pack(settings.pack), settings.cache)

    async def answer(texts: list[str]) -> None:
        heard = [Heard(text=text) for text in texts]
        for text, insights in zip(texts, await classifier.classify(heard), strict=True):
            click.echo(msgspec.json.encode({"text": text, "insights": insights}).decode())

    for lines in _batches():
        asyncio.run(answer(lines))


def _batches() -> Iterator[list[str]]:
    """Lines in batches when they come from a file; one by one from a terminal or a pipe that waits for answers."""
    batch: list[str] = []
    size = BATCH if sys.stdin.seekable() else 1
    while line := sys.stdin.buffer.readline(MAX_LINE):
        batch.append(line.decode(errors="replace").rstrip("\r\n"))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@click.command("transcribe")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--pack", help="Site pack, for its vocabulary [default: hospitality].")
@click.option("--stt-model", help="Whisper model: tiny.en, base, or a folder [default: tiny.en].")
@data_dir_option
@json_option
def transcribe_command(
    files: tuple[Path, ...], pack: str | None, stt_model: str | None, data_dir: Path, *, as_json: bool
) -> None:
    """Audio FILES of any format to text, with the engine and the settings that live sound gets."""
    set_up_logs("warning", as_json=False)
    flags: dict[str, object] = {"pack": pack}
    if stt_model:
        flags["stt.model_path" if Path(stt_model).is_dir() else "stt.model"] = stt_model
    settings = load_settings(data_dir, flags)
    engine = load_engine(settings, load_pack(settings.pack))
    for file in files:
        utterances: list[dict[str, Any]] = []
        for start, end, transcript in cut_offline(_read(file), engine, settings.of(AudioSettings)):
            row = {"start_s": round(start, 2), "end_s": round(end, 2), "text": transcript.text}
            utterances.append({**row, "confidence": round(transcript.confidence, 3)})
            if not as_json:
                click.echo(f"{file.name} {start:7.2f} {end:7.2f}  {transcript.text}")
        if as_json:
            text = " ".join(row["text"] for row in utterances)
            click.echo(msgspec.json.encode({"file": str(file), "text": text, "utterances": utterances}).decode())
    engine.close()


def _read(file: Path) -> Int16:
    """Any audio file as int16[n], 16 kHz mono."""
    try:
        with av.open(str(file), metadata_errors="replace") as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=ENGINE_RATE)
            frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            frames += resampler.resample(None)
    except (av.FFmpegError, IndexError) as error:
        raise InvalidInputError(f"{file} cannot be read as audio: {error}") from error
    parts = [frame.to_ndarray().reshape(-1) for frame in frames]
    return np.concatenate(parts) if parts else np.empty(0, np.int16)
