"""A small hotel for prompts: a pack with a few phrases, and a language model that says what the test wants."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from quickcomm.contracts.insight import Item
from quickcomm.intelligence.adapters.prompt_examples import PhraseExamples
from quickcomm.intelligence.adapters.prompting import built_in_file
from quickcomm.intelligence.ports import ModelAnswer, ModelError, ModelRequest
from quickcomm.intelligence.service.prompt_version import PromptVersion, make_version
from quickcomm.kernel.site_pack import Phrase, PhraseInsight, SitePack, load_pack

PACK = load_pack("hospitality")
PROMPT = """
format = 1
name = "plain"
system = "Label what is said at $site. Intents:\\n$intents\\nDepartments:\\n$departments"
"""


def phrase(text: str, intent: str, department: str, *rooms: str, urgency: str = "normal", item: str = "") -> Phrase:
    insight = PhraseInsight(
        intent=intent,
        department=department,
        urgency=msgspec.convert(urgency, type=PhraseInsight.__annotations__["urgency"]),
        rooms=rooms,
        items=(Item(name=item),) if item else (),
    )
    return Phrase(text=text, insights=(insight,))


PHRASES = (
    phrase("412 needs towels", "request_item", "housekeeping", "412", item="towels"),
    phrase("bring a pillow to 518 please", "request_item", "housekeeping", "518", item="pillow"),
    phrase("the sink in 220 is leaking", "repair", "engineering", "220"),
    phrase("air conditioning in 814 is broken", "repair", "engineering", "814"),
    phrase("smoke coming from the laundry", "emergency", "security", urgency="critical"),
    phrase("copy that", "acknowledge", "none", urgency="low"),
    phrase("luggage for 305 to the lobby", "transport", "guest_services", "305"),
    phrase("please clean 707", "cleaning", "housekeeping", "707"),
)


def examples(phrases: Sequence[Phrase] = PHRASES, pack: SitePack = PACK) -> PhraseExamples:
    return PhraseExamples.of(pack, lambda: phrases)


def version(source: str = PROMPT, phrases: Sequence[Phrase] = PHRASES) -> PromptVersion:
    return make_version(source, PACK, examples(phrases))


def built_in_source(pack: SitePack = PACK) -> str:
    return built_in_file(pack).read_text(encoding="utf-8")


def named(name: str, **replaced: str) -> str:
    """The small prompt under another name; `system` replaced if given."""
    source = PROMPT.replace('"plain"', f'"{name}"')
    if "system" in replaced:
        source = f'format = 1\nname = "{name}"\nsystem = {msgspec.json.encode(replaced["system"]).decode()}\n'
    return source


def utterance_of(request: ModelRequest) -> str:
    return str(msgspec.json.decode(request.messages[-1].content)["utterance"])


def answer(*insights: PhraseInsight, confidence: float = 0.9) -> str:
    """What a model that knows the labels says."""
    rows = [
        {
            **msgspec.to_builtins(insight),
            "items": [{"name": item.name, "quantity": item.quantity} for item in insight.items],
            "rooms": list(insight.rooms),
            "summary": "Do it",
            "confidence": confidence,
            "evidence": {"rooms": list(insight.rooms), "items": [], "urgency": []},
        }
        for insight in insights
    ]
    return msgspec.json.encode({"insights": rows}).decode()


Script = Callable[[ModelRequest], str]


class ScriptedModel:
    """Implements `ports.LanguageModel`: `script` gives the text of the answer, or raises a `ModelError`."""

    def __init__(self, script: Script, model: str = "scripted") -> None:
        self.script = script
        self.model = model
        self.requests: list[ModelRequest] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.gate: asyncio.Event | None = None

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> ModelAnswer:
        assert timeout_s > 0
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (self.gate.wait() if self.gate is not None else asyncio.sleep(0))
            text = self.script(request)
        finally:
            self.in_flight -= 1
        return ModelAnswer(text=text, prompt_tokens=100, completion_tokens=10, seconds=0.5)

    async def aclose(self) -> None:
        return None


def oracle(phrases: Sequence[Phrase] = PHRASES, *, wrong_where: str = "") -> Script:
    """Knows every label; but where `wrong_where` stands in the system message, it calls everything chatter."""
    labels = {one.text: one.insights for one in phrases}

    def script(request: ModelRequest) -> str:
        if wrong_where and wrong_where in request.messages[0].content:
            return answer(PhraseInsight(intent="chatter", department="none", urgency="low"), confidence=0.9)
        return answer(*labels[utterance_of(request)])

    return script


def failing(error: ModelError) -> Script:
    def script(_request: ModelRequest) -> str:
        raise error

    return script


def write(folder: Path, name: str, source: str) -> Path:
    path = folder / name
    path.write_text(source, encoding="utf-8")
    return path
