"""The very first start learns the pack, which takes a while; whoever stops the server then need not wait for it."""

import signal
import time
from pathlib import Path

import pytest
from tests.support.server import Server

LEARNING = "classifier.training"


def _learning(server: Server, deadline: float) -> None:
    """Wait until the log says that it learns."""
    while LEARNING not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_while_the_classifier_is_learnt_is_obeyed(tmp_path: Path, number: signal.Signals) -> None:
    cache = tmp_path / "cache"
    server = Server(tmp_path / "data", QUICKCOMM_CACHE_DIR=str(cache))
    server.launch()
    try:
        _learning(server, time.monotonic() + 60.0)
        server.terminate(number)
        assert server.wait() == 0
    finally:
        server.stop()
    assert "classifier.trained" not in server.log
    assert "Stopped while starting." in server.log
    assert "Traceback" not in server.log
    assert [path.name for path in (cache / "classifier").iterdir() if path.suffix != ".lock"] == []
    assert not (server.data_dir / "running.json").exists()
