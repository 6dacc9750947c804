"""Which local sockets a command of the operator goes to: the one that knows first, and none that cannot."""

from pathlib import Path

import pytest

from quickcomm.contracts.commands import (
    Command,
    CreateKey,
    DeployPrompt,
    GetLedgers,
    GetReport,
    GetTrace,
    ListDeadLetters,
    ListKeys,
    ListPrompts,
)
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate import administration
from quickcomm.operate.up.layout import Layout


class Site:
    """Services, as far as their sockets go."""

    def __init__(self, root: Path) -> None:
        self.directory = DataDirectory(root / "d")
        self.layout = Layout(self.directory)
        self.layout.create()
        self.directory.dashboard.create()
        self.directory.dashboard.socket.touch()
        self.layout.control.touch()
        for name in ("audio-1", "audio-2", "intelligence-1"):
            self.layout.administration(name).touch()

    def asked(self, request: Command) -> list[str]:
        own = administration._own(self.directory, request)
        found = administration._answering(self.directory, own, request)
        return [str(path.relative_to(self.directory.path)) for path in found]


@pytest.mark.parametrize(
    ("request_", "sockets"),
    [
        (GetReport(), ["dashboard/admin.sock"]),
        (GetTrace(utterance_id="u"), ["dashboard/admin.sock"]),
        (GetLedgers(), ["run/audio-1.admin.sock", "run/audio-2.admin.sock"]),
        (DeployPrompt(prompt="p", by="ada"), ["run/intelligence-1.admin.sock"]),
        (CreateKey(role="read"), ["run/up.sock", "dashboard/admin.sock"]),
        (ListDeadLetters(), ["run/up.sock", "dashboard/admin.sock"]),
    ],
)
def test_where_there_are_services_the_one_is_asked_that_knows(
    tmp_path_factory: pytest.TempPathFactory, request_: Command, sockets: list[str]
) -> None:
    # A short name: with a longer one the sockets would be elsewhere.
    assert Site(tmp_path_factory.mktemp("s")).asked(request_) == sockets


def test_a_monolith_knows_everything(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.socket.touch()
    for request in (GetReport(), GetLedgers(), ListPrompts(), ListKeys(), ListDeadLetters()):
        own = administration._own(directory, request)
        assert administration._answering(directory, own, request) == [directory.socket]


def test_prompts_of_services_that_do_not_run_are_where_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICKCOMM_INTELLIGENCE_DATABASE_URL", "postgresql://db/q")
    directory = DataDirectory(tmp_path)
    assert administration._database(directory, tmp_path, ListPrompts()) == directory.database
    directory.dashboard.create()
    assert administration._database(directory, tmp_path, ListPrompts()) == "postgresql://db/q"
    assert administration._database(directory, tmp_path, ListKeys()) == directory.database
