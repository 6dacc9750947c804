"""The view of prompts: which versions are in force and how they came to be, as the real desk tells it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from tests.support import dashboard_site
from tests.support.page import PATIENCE_MS, WATCH_POLICY, Hotel, Screen
from tests.support.prompting import PHRASES, ScriptedModel, named, oracle

from quickcomm.contracts.commands import DeployPrompt, RollBackPrompt
from quickcomm.contracts.prompts import GetPrompts, PromptsView
from quickcomm.intelligence.adapters.prompting import Prompting
from quickcomm.intelligence.adapters.sql_results import MIGRATIONS
from quickcomm.intelligence.ports import StoredPrompt
from quickcomm.intelligence.service.prompt_evaluation import Examined, LabelledSet
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.storage import Database, migrate
from quickcomm.operate.administration import administer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

WORSE = named("terse", system="be brief")
BETTER = named("shorter", system="Label this for $site.")
SET = LabelledSet(name="eight phrases", cases=PHRASES)


class Bench:
    """A page in front of a dashboard whose prompts are those of a real desk with a model."""

    def __init__(self, page: Page, prompting: Prompting) -> None:
        self.page = page
        self.desk = prompting.desk

    async def evaluated(self, source: str) -> StoredPrompt:
        stored = await self.desk.add(source, "ada")
        await self.desk.evaluate(stored, SET, "ada", concurrency=4, progress=lambda _done, _all: None)
        return stored


@pytest_asyncio.fixture(loop_scope="session")
async def bench(browser: Browser, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        database = Database(tmp_path / "prompts.sqlite")
        database.open()
        stack.push_async_callback(database.aclose)
        migrate(database.engine, "intelligence", MIGRATIONS)
        prompting = Prompting(database, load_pack(), SystemClock())
        prompting.desk.connect(Examined(model=ScriptedModel(oracle(wrong_where="be brief"), "qwen2.5-7b")))

        async def prompts(_request: GetPrompts) -> PromptsView:
            return await prompting.desk.view()

        site = await stack.enter_async_context(dashboard_site.running(tmp_path, answers=[(GetPrompts, prompts)]))
        context = await browser.new_context(viewport={"width": 1280, "height": 900})
        stack.push_async_callback(context.close)
        context.set_default_timeout(PATIENCE_MS)
        await context.add_init_script(WATCH_POLICY)
        page = await context.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(f"{site.url}/#key={site.tokens['read']}")
        await page.get_by_test_id("nav-prompts").click()
        await expect(page.get_by_test_id("prompts")).to_be_visible()
        yield Bench(page, prompting)
        assert errors == []


async def test_a_canary_shows_with_its_evidence_and_goes_when_it_is_taken_back(bench: Bench) -> None:
    page = bench.page
    await expect(page.get_by_test_id("prompt-model")).to_have_text("qwen2.5-7b")
    await expect(page.get_by_test_id("prompt-live")).to_contain_text("It came with QuickComm")
    await expect(page.get_by_test_id("prompt-canary")).to_have_count(0)
    stored = await bench.evaluated(BETTER)
    await bench.desk.deploy(stored, "ada", weight=10)
    canary = page.get_by_test_id("prompt-canary")
    await expect(canary).to_have_attribute("data-prompt-id", stored.id)
    await expect(page.get_by_test_id("prompt-canary-weight")).to_have_text("10 % of conversations")
    await expect(page.get_by_test_id("prompt-live-weight")).to_have_text("90 % of conversations")
    await canary.locator("summary").click()
    await expect(canary).to_contain_text("8 cases of eight phrases, on qwen2.5-7b")
    await expect(canary.get_by_role("row", name="Dangers missed")).to_contain_text("0 of 1")
    await bench.desk.rollback("ben")
    await expect(canary).to_have_count(0)
    await expect(page.get_by_test_id("prompt-event").first).to_contain_text("Rolled back")
    await expect(page.get_by_test_id("prompt-event").first).to_contain_text("ben")


async def test_what_was_forced_stands_out(bench: Bench) -> None:
    page = bench.page
    stored = await bench.evaluated(WORSE)
    await bench.desk.deploy(stored, "ada", force=True)
    await expect(page.get_by_test_id("prompt-live")).to_contain_text("without good evidence (forced)")
    row = page.locator('[data-testid="prompt-event"][data-action="deployed"]').first
    await expect(row).to_contain_text("forced")
    await expect(row).to_contain_text("it misses 1 of 1 dangers")
    await expect(row.get_by_test_id("prompt-evidence")).to_have_attribute("data-below", "true")


async def test_the_view_can_be_used_by_keyboard_and_by_name(bench: Bench) -> None:
    page = bench.page
    await bench.desk.deploy(await bench.evaluated(BETTER), "ada", weight=25)
    await expect(page.get_by_role("img", name="Canary 25 %, live 75 % of conversations")).to_be_visible()
    await expect(page.get_by_role("table", name="Who did what, on what evidence")).to_be_visible()
    await expect(page.get_by_role("link", name="Prompts")).to_have_attribute("aria-current", "page")
    summary = page.get_by_test_id("prompt-canary").locator("summary")
    await summary.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("prompt-canary").locator("table")).to_be_visible()


async def test_without_a_language_model_it_says_so_and_follows_the_command_line(manager: Screen, hotel: Hotel) -> None:
    await manager.get("nav-prompts").click()
    await expect(manager.get("prompts-unconnected")).to_contain_text("No language model is connected")
    await expect(manager.get("prompts-unconnected")).to_contain_text("--llm-url")
    await expect(manager.get("prompt-live")).to_contain_text("built-in")
    arguments = {"name": "mine.toml", "source": BETTER, "weight": 20, "force": True, "by": "ada"}
    [row] = await administer(hotel.server.data_dir, msgspec.convert(arguments, DeployPrompt), needs_server=True)
    await expect(manager.get("prompt-canary")).to_have_attribute("data-prompt-id", row["prompt_id"])
    await administer(hotel.server.data_dir, RollBackPrompt(by="ada"), needs_server=True)
    await expect(manager.get("prompt-canary")).to_have_count(0)
