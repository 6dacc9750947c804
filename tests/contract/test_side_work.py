"""All that goes on beside classifying, together: a real database, the real bus, a scripted model."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.intelligence_store import opened
from tests.support.talking import ScriptedModel, changed, insight, spoken, understood

from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.adapters.side_work import SideSettings, SideWork
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.intelligence.ports import Cached, ChatMessage, Draft, ModelAnswer, ModelError, ModelRequest
from quickcomm.intelligence.service.side_questions import SideQuestions
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.storage import Database

AT_ONCE = SummarySettings(quiet_s=0, settle_s=0)
FACTS = "In 8 h, 45 requests."


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


def work(database: Database, bus: SqlBus, model: ScriptedModel | None, usage: UsageSettings | None = None) -> SideWork:
    settings = SideSettings(summaries=AT_ONCE, usage=usage or UsageSettings())
    made = SideWork(database, bus, SystemClock(), settings, model)
    made.restore()
    return made


async def test_from_what_is_said_to_a_summary_on_the_bus(database: Database) -> None:
    bus = SqlBus(database, SystemClock())
    side = work(database, bus, ScriptedModel('{"summary":"A leak in 305."}'))
    summaries: asyncio.Queue[ConversationSummarized] = asyncio.Queue()

    async def collect(batch: object) -> None:
        assert isinstance(batch, list)
        for delivery in batch:
            assert isinstance(delivery, Delivery)
            summaries.put_nowait(msgspec.json.decode(delivery.payload, type=ConversationSummarized))

    leak = spoken(1, "leak in 305")
    async with asyncio.TaskGroup() as group, asyncio.timeout(30):
        tasks = [group.create_task(side.run()), group.create_task(bus.subscribe(SUMMARIES, "test", collect))]
        await bus.publish(TRANSCRIPTS, "c", msgspec.json.encode(leak))
        await bus.publish(INSIGHTS, "c", msgspec.json.encode(understood(leak, insight("repair", "Fix leak", "305"))))
        await bus.publish(CONVERSATIONS, "c", msgspec.json.encode(changed("c", "ended")))
        found = await summaries.get()
        for task in tasks:
            task.cancel()
    assert (found.conversation_id, found.text, found.source) == ("c", "A leak in 305.", "llm")
    await side.aclose()
    report = await side.usage_report("main", "c", 1)
    assert report.conversations[0].prompt_tokens >= 100


async def test_a_report_is_told_by_the_model_while_there_is_money(database: Database) -> None:
    bus = SqlBus(database, SystemClock())
    model = ScriptedModel('{"text":"45 requests."}')
    side = work(database, bus, model, UsageSettings(daily_tokens=120))
    assert await side.narrate("main", FACTS) == "45 requests."
    assert model.requests[0].messages[1].content == FACTS
    assert side.used_today().prompt_tokens == 100
    assert await side.narrate("main", FACTS) is None
    assert (await side.usage_report("main", None, 1)).state == "reached"


@pytest.mark.parametrize("answer", ["45 requests.", '{"words":"45"}', "", ModelError("down")])
async def test_without_a_usable_answer_nothing_is_told(database: Database, answer: str | ModelError) -> None:
    side = work(database, SqlBus(database, SystemClock()), ScriptedModel(answer))
    assert await side.narrate("main", FACTS) is None


async def test_nothing_is_asked_of_a_model_that_is_down_or_not_there(database: Database) -> None:
    bus = SqlBus(database, SystemClock())
    model = ScriptedModel('{"text":"45 requests."}')
    side = work(database, bus, model)
    side.questions.may_ask = lambda: False
    assert await side.narrate("main", FACTS) is None
    assert model.requests == []
    without = work(database, bus, None)
    assert await without.narrate("main", FACTS) is None
    assert (await without.usage_report("main", None, 1)).state == "off"


async def test_what_was_counted_and_kept_is_there_after_a_restart(database: Database) -> None:
    bus = SqlBus(database, SystemClock())
    side = work(database, bus, ScriptedModel("{}"), UsageSettings(daily_tokens=10))
    side.usage.record("main", "c", ModelAnswer(text="", prompt_tokens=10))
    kept = Cached(drafts=(Draft(intent="repair", department="engineering", urgency="high"),))
    await side.cache.put(b"key", kept)
    await side.aclose()
    await side.aclose()
    again = work(database, bus, ScriptedModel("{}"), UsageSettings(daily_tokens=10))
    assert again.usage.exhausted
    assert await again.cache.get(b"key") == kept
    await again.purge(2**62)
    assert (await again.usage_report("main", None, 10)).conversations == ()


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.support.intelligence_store import opened
from tests.support.talking import ScriptedModel
from quickcomm.intelligence.adapters.side_work import SideWork
from quickcomm.intelligence.ports import Cached, ModelAnswer
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.clock import SystemClock

async def main():
    async with opened(Path(sys.argv[1])) as database:
        clock = SystemClock()
        side = SideWork(database, SqlBus(database, clock), clock, model=ScriptedModel("{}"))
        async with asyncio.TaskGroup() as group:
            group.create_task(side.run())
            for number in range(50):
                await side.cache.put(number.to_bytes(4, "big"), Cached(drafts=()))
                side.usage.record("main", f"c{number}", ModelAnswer(text="", prompt_tokens=1))
            while not side.settled:
                await asyncio.sleep(0)
            print("written", flush=True)
            await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_what_was_written_behind_survives_a_kill(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        assert await child.stdout.readline() == b"written\n"
        child.kill()
        await child.wait()
    async with opened(tmp_path) as database:
        side = work(database, SqlBus(database, SystemClock()), ScriptedModel("{}"))
        await side.cache.load()
        assert len(side.cache) == 50
        report = await side.usage_report("main", None, 200)
    assert (report.days[0].calls, len(report.conversations)) == (50, 50)


class _Hidden:
    """Implements `Masked`."""

    def __init__(self, text: str, context: tuple[str, ...]) -> None:
        self.text = text.replace("555-0199", "<1>")
        self.context = context

    def restore(self, text: str) -> str:
        return text.replace("<1>", "555-0199")


async def test_what_must_not_leave_is_masked_and_put_back() -> None:
    model = ScriptedModel('{"text":"Call <1>."}')
    questions = SideQuestions(model, mask=_Hidden)
    messages = (ChatMessage(role="system", content="Tell."), ChatMessage(role="user", content="Call 555-0199."))
    assert await questions.ask(ModelRequest(messages=messages), "main", "c") == '{"text":"Call 555-0199."}'
    assert [message.content for message in model.requests[0].messages] == ["Tell.", "Call <1>."]
