"""Orders to a language model, and the local classifier that answers in its place: they come through nowhere."""

from platformdirs import user_cache_path
from tests.support.orders import injections

from quickcomm.intelligence.module import build_classifier
from quickcomm.intelligence.ports import Heard
from quickcomm.kernel.site_pack import load_pack


async def test_what_is_said_to_a_model_is_not_said_to_people() -> None:
    classifier = build_classifier(load_pack(), user_cache_path("quickcomm"))
    cases = injections()
    answers = await classifier.classify([Heard(text=case.text) for case in cases])
    for case, insights in zip(cases, answers, strict=True):
        assert {room for insight in insights for room in insight.rooms} <= set(case.rooms), case.text
        assert all(insight.urgency != "critical" or case.urgency == "critical" for insight in insights), case.text
        for insight in insights:
            cited = insight.evidence
            assert all(words in case.text for words in (*cited.rooms, *cited.items, *cited.urgency)), case.text
