"""The emergency rules that audio and intelligence share."""

import pytest

from quickcomm.intelligence.model.reading import Reader
from quickcomm.kernel.emergencies import EmergencyRules, tidy
from quickcomm.kernel.site_pack import load_pack, load_phrases

PACKS = ("hospitality", "callcentre")


@pytest.mark.parametrize("name", PACKS)
def test_audio_finds_what_intelligence_finds(name: str) -> None:
    pack = load_pack(name)
    rules, reader = EmergencyRules(pack.emergency), Reader(pack)
    for phrase in load_phrases(pack):
        reading = reader.read(phrase.text, flags=False)
        assert rules.hits(tidy(phrase.text)) == (reading.danger, reading.near_miss)
        assert (rules.first(phrase.text) is not None) == any(hit.sure for hit in reading.danger)


def test_a_near_miss_is_none_and_covers_no_real_danger() -> None:
    rules = EmergencyRules(load_pack().emergency)
    assert rules.first("The fire drill is at ten.") is None
    found = rules.first("This is no fire drill, there is a fire in the kitchen.")
    assert found is not None
    assert found.label == "fire"


@pytest.mark.parametrize(
    ("channel", "urgent"),
    [("security", True), (" Security ", True), ("emergency-line", True), ("security-desk", False), ("main", False)],
)
def test_channels_for_emergencies_are_named_as_a_whole(channel: str, urgent: bool) -> None:  # noqa: FBT001 - a case
    assert EmergencyRules(load_pack().emergency).is_channel(channel) is urgent
