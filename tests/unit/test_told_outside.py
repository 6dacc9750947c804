"""What clients are told of the site's own trouble: that it is retryable, and nothing of what is inside."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from quickcomm.audio.ingest.websocket import refuse
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.http.problems import problem_of
from quickcomm.kernel.keys.redis import StoreLostError
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError

INSIDE = "NOPERM no permissions to access the key 'quickcomm:audio:c:main:x', password in /srv/site/run/access/audio"


class Socket:
    def __init__(self) -> None:
        self.said: list[Any] = []

    async def send_str(self, text: str) -> None:
        self.said.append(json.loads(text))

    async def close(self, code: int) -> None:
        self.said.append(code)


@pytest.mark.parametrize("error", [BusRefusedError(INSIDE), StoreLostError(INSIDE)])
async def test_what_is_inside_stays_inside(error: BusRefusedError) -> None:
    answer = problem_of(error)
    assert answer.status == 503
    assert isinstance(answer.body, bytes)
    socket = Socket()
    with capture_logs() as logged:
        await refuse(socket, error)  # type: ignore[arg-type]
    event, code = socket.said
    assert (code, event["retryable"]) == (1013, True)
    for told in (answer.body.decode(), json.dumps(event)):
        assert "try again" in told
        assert not any(word in told for word in ("NOPERM", "quickcomm:audio", "/srv"))
    assert logged[0]["error"] == INSIDE


async def test_what_is_meant_for_clients_is_told() -> None:
    socket = Socket()
    await refuse(socket, BusyError("40 conversations are live; try again later."))  # type: ignore[arg-type]
    assert socket.said[0]["message"] == "40 conversations are live; try again later."
