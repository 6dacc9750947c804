"""`quickcomm prompts` as an operator has it: the real command, the real socket, a model that follows a script."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from tests.support.prompting import PHRASES, ScriptedModel, failing, named, oracle, write

from quickcomm.cli.main import main
from quickcomm.contracts.commands import GetProgress, ListPrompts
from quickcomm.intelligence.adapters.prompt_commands import PromptCommands
from quickcomm.intelligence.module import Examined, Intelligence, Prompting
from quickcomm.intelligence.ports import ModelNotAllowedError, ModelRequest
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.rpc import LocalRpc, NotOwnerError
from quickcomm.kernel.runtime.admin_socket import admin_socket
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.storage import Database

BETTER = named("better", system="Label this for $site.")
WORSE = named("worse", system="be brief")


class Running:
    """What a server has around prompts."""

    def __init__(self, directory: DataDirectory, prompting: Prompting, model: ScriptedModel) -> None:
        self.directory = directory
        self.prompting = prompting
        self.model = model
        self.labelled = write(
            directory.path, "set.jsonl", "\n".join(msgspec.json.encode(each).decode() for each in PHRASES)
        )

    async def prompts(self, *arguments: str | Path) -> Result:
        return await asyncio.to_thread(prompts, self.directory.path, *arguments)

    async def rows(self, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        result = await self.prompts(*arguments, "--json")
        assert result.exit_code == code, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]


def prompts(data_dir: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["prompts", *map(str, arguments), "--data-dir", str(data_dir)])


@asynccontextmanager
async def running(path: Path, *, connected: bool = True) -> AsyncIterator[Running]:
    directory, clock = DataDirectory(path), SystemClock()
    model = ScriptedModel(oracle(wrong_where="be brief"))
    with directory.own():
        database = Database(directory.database)
        database.open()
        Intelligence.migrate_tables(database)
        prompting = Prompting(database, load_pack(), clock)
        prompting.desk.connect(Examined(model=model) if connected else None)

        rpc = LocalRpc(clock)
        rpc.serve(PromptCommands(prompting).answers())
        try:
            async with admin_socket(rpc, directory.socket):
                yield Running(directory, prompting, model)
        finally:
            await database.aclose()


async def test_from_a_file_to_all_conversations_and_back(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine.toml", BETTER)
    async with running(tmp_path / "site") as site:
        refused = await site.prompts("deploy", mine)
        assert (refused.exit_code, "never evaluated" in refused.stderr) == (1, True)
        [row] = await site.rows("evaluate", mine, "--set", site.labelled)
        assert row["comparison"]["set_name"] == "set.jsonl"
        assert row["comparison"]["candidate"]["score"] == 1.0
        [canary] = await site.rows("deploy", row["prompt_id"][:8], "--canary", "10")
        assert (canary["action"], canary["weight"], canary["forced"]) == ("canary", 10, False)
        assert [(each["state"], each["weight"]) for each in await site.rows("list")] == [("live", 90), ("canary", 10)]
        assert site.prompting.prompts.now.weight == 10  # at once in this process
        [whole] = await site.rows("deploy", mine)
        assert (whole["action"], whole["prompt_id"]) == ("deployed", row["prompt_id"])
        assert (await site.prompts("show", "live")).stdout == BETTER
        [back] = await site.rows("rollback")
        assert back["against_id"] == row["prompt_id"]
        actions = [each["action"] for each in await site.rows("audit")]
        assert actions[:4] == ["rolled_back", "deployed", "canary", "evaluated"]
        [entry] = [each for each in await site.rows("audit") if each["action"] == "canary"]
        assert entry["evidence"]["candidate"]["cases"] == len(PHRASES)
        assert entry["by"]


async def test_an_evaluation_in_words(tmp_path: Path) -> None:
    mine = write(tmp_path, "worse.toml", WORSE)
    async with running(tmp_path / "site") as site:
        result = await site.prompts("evaluate", mine, "--set", site.labelled, "--disagreements", "3")
        assert result.exit_code == 1
        for words in (
            "set.jsonl (set ",
            "dangers missed 1 of 1 0 of 1",
            "request_item → chatter 2 times",
            "Cases on which the two disagree: 8, the worst 3 of them:",
            "(wrong: intent",
            "It falls below the live version: its score is",
        ):
            assert words in " ".join(result.stdout.split())
        assert "rooms, exactly" in result.stdout
        forced = await site.prompts("deploy", mine, "--force")
        assert forced.exit_code == 0
        assert "yes" in forced.stdout


async def test_progress_is_told_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model stops after ten answers until somebody was told of them."""
    told = asyncio.Event()
    tell = PromptCommands._tell

    async def watched(self: PromptCommands, request: GetProgress) -> dict[str, Any]:
        answer = await tell(self, request)
        if answer["done"] == 10:
            told.set()
        return answer

    monkeypatch.setattr(PromptCommands, "_tell", watched)
    mine = write(tmp_path, "mine.toml", BETTER)
    async with running(tmp_path / "site") as site:
        right = site.model.script

        def script(request: ModelRequest) -> str:
            if len(site.model.requests) == 10:
                site.model.gate = told
            return right(request)

        site.model.script = script
        result = await site.prompts("evaluate", mine, "--set", site.labelled, "--concurrency", "1")
        assert result.exit_code == 0
        assert "10 of 16 answers" in result.stderr


async def test_without_a_language_model(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine.toml", BETTER)
    async with running(tmp_path / "site", connected=False) as site:
        result = await site.prompts("evaluate", mine)
        assert (result.exit_code, "--llm-url" in result.stderr) == (1, True)


async def test_a_refused_key_is_told_in_a_line(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine.toml", BETTER)
    async with running(tmp_path / "site") as site:
        site.model.script = failing(ModelNotAllowedError("The endpoint refused the key (401)."))
        result = await site.prompts("evaluate", mine)
        assert result.exit_code == 1
        assert result.stderr.strip().endswith("quickcomm: The endpoint refused the key (401).")


async def test_hanging_up_ends_the_evaluation(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine.toml", BETTER)
    async with running(tmp_path / "site") as site:
        site.model.gate = asyncio.Event()
        command = ["-m", "quickcomm.cli.main", "prompts", "evaluate", str(mine), "--data-dir"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, str(site.directory.path), stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(120):
            while not site.model.in_flight:  # noqa: ASYNC110 - the model of the test tells nobody
                await asyncio.sleep(0.01)
            process.kill()
            await process.wait()
            while site.model.in_flight:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [row["action"] for row in await site.rows("audit")] == ["added"]


def test_looking_and_going_back_need_no_server(tmp_path: Path) -> None:
    data_dir = tmp_path / "site"
    mine = write(tmp_path, "mine.toml", BETTER)
    assert "built-in" in prompts(data_dir, "list").stdout
    assert "Nothing was done with prompts yet." in prompts(data_dir, "audit").stdout
    assert prompts(data_dir, "show").stdout.startswith("# The prompt version that comes with QuickComm")
    assert prompts(data_dir, "deploy", mine, "--force").exit_code == 0
    assert prompts(data_dir, "rollback").exit_code == 0
    [row, *_] = [json.loads(line) for line in prompts(data_dir, "audit", "--json").stdout.splitlines()]
    assert row["action"] == "rolled_back"
    assert "No QuickComm is running" in prompts(data_dir, "evaluate", mine).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "0000"], "There is no prompt 0000"),
        (["show", "mine"], "no file and no prompt id"),
        (["deploy", "nowhere.toml"], "There is no file nowhere.toml"),
        (["deploy", "live", "--canary", "0"], "1<=x<=99"),
        (["evaluate", "live", "--set", "nowhere.jsonl"], "does not exist"),
        (["rollback"], "Nothing was deployed yet"),
    ],
)
def test_mistakes_are_told_in_words(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = prompts(tmp_path / "site", *arguments)
    assert result.exit_code in {1, 2}
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_with_a_mistake_is_named(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine.toml", named("mine", system="$colour"))
    result = prompts(tmp_path / "site", "deploy", mine)
    assert f"{mine}: system: there is no $colour" in result.stderr
    mine.write_bytes(b"\xff")
    assert "cannot be read" in prompts(tmp_path / "site", "deploy", mine).stderr
    mine.write_bytes(b"#" * 70_000)
    assert "65,536 bytes" in prompts(tmp_path / "site", "deploy", mine).stderr


async def test_the_side_that_decides_is_asked_where_intelligence_has_moved(tmp_path: Path) -> None:
    """The monolith passes it on; one that has stopped the module does not know it."""
    directory = DataDirectory(tmp_path)
    directory.create()
    directory.intelligence.create()
    directory.intelligence.note_moving()

    async def list_them(_request: ListPrompts) -> list[dict[str, Any]]:
        row = {"id": "p1", "name": "of the service", "state": "live", "weight": 100, "problem": ""}
        return [row | dict.fromkeys(("added_at", "added_by", "note"), "")]

    async def passes_on(_request: ListPrompts) -> list[dict[str, Any]]:
        raise NotOwnerError("Prompts are changed on the other side of the migration.")

    monolith, retired, service = (LocalRpc(SystemClock()) for _ in range(3))
    monolith.serve([(ListPrompts, passes_on)])
    service.serve([(ListPrompts, list_them)])
    for own in (monolith, retired):
        async with admin_socket(own, directory.socket):
            async with admin_socket(service, directory.intelligence.socket):
                assert "of the service" in (await asyncio.to_thread(prompts, tmp_path, "list")).stdout
            if own is monolith:
                alone = await asyncio.to_thread(prompts, tmp_path, "list")
                assert "That one does not answer now" in alone.stderr
    changed = await asyncio.to_thread(prompts, tmp_path, "rollback")
    assert changed.exit_code == 1
    assert "No QuickComm is running" in changed.stderr
