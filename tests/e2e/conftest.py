"""One real server for all tests that do it no harm, and one of their own for those that do."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.server import Server
from tests.support.shapes import running, server_class
from tests.support.site import Site
from tests.support.talk import Talk, shift_talk
from tests.support.talk import talk as real_talk
from tests.support.wire import converse

NewServer = Callable[..., Server]
NewSite = Callable[..., Site]
THEIRS: Final = "the neighbours"
UNLIMITED: Final = {
    "QUICKCOMM_KEYS_REQUESTS_PER_SECOND": "1000000",
    "QUICKCOMM_KEYS_REQUESTS_BURST": "1000000",
    "QUICKCOMM_KEYS_FAILURES_PER_MINUTE": "1000000",
    "QUICKCOMM_KEYS_FAILURES_BURST": "1000000",
    "QUICKCOMM_STORAGE_RECORDINGS": "true",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("shared") / "data") as shared:
        yield shared


@pytest.fixture(scope="session")
def patient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that does not slow down who asks a lot, or with wrong keys; and that keeps the sound of what is said."""
    with running(tmp_path_factory.mktemp("patient") / "data", **UNLIMITED) as shared:
        yield shared


@pytest.fixture(scope="session")
def things(patient_server: Server) -> dict[str, str]:
    """Ids of what is there, on the channel `THEIRS` of the patient server."""

    async def shift() -> dict[str, str]:
        wire = await converse(patient_server.url, patient_server.key(), shift_talk().wire, channel=THEIRS)
        tasks = await patient_server.until(
            "/v1/tasks", lambda body: any(task["channel"] == THEIRS for task in body["items"])
        )
        [task, *_] = [task for task in tasks["items"] if task["channel"] == THEIRS]
        path = f"/v1/conversations/{wire.conversation_id}/close"
        closed = await asyncio.to_thread(patient_server.ask, "POST", path, patient_server.key("admin"), {})
        silent = await converse(patient_server.url, patient_server.key(), bytes(2 * 16_000))
        path, whole = "/v1/erasures", {"conversation": silent.conversation_id}
        erased = await asyncio.to_thread(patient_server.ask, "POST", path, patient_server.key("admin"), whole)
        return {
            "erasure_id": erased.json()["erasure_id"],
            "operation_id": closed.json()["operation_id"],
            "conversation_id": wire.conversation_id,
            "utterance_id": task["utterance_id"],
            "task_id": task["task_id"],
        }

    return asyncio.run(shift())


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    """Makes servers that a test may kill; settings are environment variables."""
    made: list[Server] = []

    def make(*flags: str, **settings: str) -> Server:
        made.append(server_class()(tmp_path / f"data-{len(made)}", *flags, **settings))
        made[-1].start()
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.stop()


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[NewSite]:
    made: list[Site] = []

    def make(*flags: str, **settings: str) -> Site:
        """Not started yet."""
        made.append(Site(tmp_path / f"data-{len(made)}", *flags, **settings))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.make_sure()


@pytest.fixture(scope="session")
def talk() -> Talk:
    return real_talk()
