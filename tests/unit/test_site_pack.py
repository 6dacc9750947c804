"""Site packs: both built-in ones load, and mistakes are refused with the place where they are."""

import re
from pathlib import Path

import pytest

from quickcomm.kernel.errors import ConfigurationError, NotFoundError
from quickcomm.kernel.site_pack import BUILT_IN, load_pack, load_phrases, pack_folder

HELD_BACK = Path(__file__).resolve().parent.parent / "data" / "phrases"
HOSPITALITY = (BUILT_IN / "hospitality" / "pack.toml").read_text()


def written(folder: Path, text: str) -> Path:
    (folder / "pack.toml").write_text(text)
    return folder


def test_the_default_pack_has_the_contract_s_names() -> None:
    pack = load_pack()
    assert set(pack.intents) == {
        "request_item", "cleaning", "repair", "room_status", "complaint", "lost_found", "transport", "food_order",
        "emergency", "staffing", "task_done", "acknowledge", "chatter", "unclear",
    }  # fmt: skip
    assert set(pack.departments) == {
        "housekeeping", "engineering", "front_desk", "food_beverage", "security", "guest_services",
        "management", "none",
    }  # fmt: skip
    silent = {name for name in pack.intents if not pack.opens_task(name)}
    assert silent == {"task_done", "acknowledge", "chatter", "unclear", "room_status"}


@pytest.mark.parametrize("name", ["hospitality", "callcentre"])
def test_built_in_packs_load_by_name_and_by_path_with_their_phrases(name: str) -> None:
    pack = load_pack(name)
    assert load_pack(BUILT_IN / name) == load_pack(BUILT_IN / name / "pack.toml") == pack
    assert len(load_phrases(pack)) > 100


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('version = "1"', 'version = "1"\nbanana = 1', "banana"),
        ('department = "housekeeping"', 'department = "house"', "intents.request_item.department"),
        ('unclear = "unclear"', 'unclear = "nothing"', "unclear: no intent"),
        ("clock_after = [", 'clock_after = ["(", ', "places.clock_after"),
        ("clock_after = [", 'clock_after = [" ", ', "empty pattern"),
        ('channels = ["security"', 'channels = ["security("', "emergency.channels"),
        ('summary = "Bring {items} {to_place}"', 'summary = "Bring {thing}"', "intents.request_item.summary"),
        ("format = 1", "format = 2", "format"),
        ("opens_task = true", 'opens_task = "yes"', "opens_task"),
        ('spoken_before = "', 'spoken_before = "' + 121 * "x", "vocabulary.spoken_before"),
        ('spoken_before = "', 'spoken_before = "Towels, pillows" # "', "whole sentences"),
        ('spoken_before = "', 'spoken_before = " ', "whole sentences"),
    ],
)
def test_a_mistake_is_refused_with_file_and_key(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in HOSPITALITY
    folder = written(tmp_path, HOSPITALITY.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as caught:
        load_pack(folder)
    assert str(folder / "pack.toml") in str(caught.value)
    assert says in str(caught.value)


def test_the_sentence_before_names_no_room_that_exists(tmp_path: Path) -> None:
    text = HOSPITALITY.replace('spoken_before = "', 'spoken_before = "Room 907 is ready. ')
    assert "907" in load_pack(written(tmp_path, text)).vocabulary.spoken_before
    with_rooms = text.replace('noun = "room"', 'noun = "room"\nregistry = ["412", "907"]')
    with pytest.raises(ConfigurationError, match=r"spoken_before: 907 is in places\.registry"):
        load_pack(written(tmp_path, with_rooms))


@pytest.mark.parametrize("name", ["hospitality", "callcentre"])
def test_built_in_packs_have_a_sentence_of_their_own(name: str) -> None:
    assert load_pack(name).vocabulary.spoken_before


def test_no_toml_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_pack(written(tmp_path, "format = = 1"))


def test_an_unknown_pack_names_those_that_there_are() -> None:
    with pytest.raises(NotFoundError, match="callcentre, hospitality"):
        pack_folder("../../etc")


def test_phrases_are_checked_line_by_line(tmp_path: Path) -> None:
    good = '{"text":"hi","insights":[{"intent":"chatter","department":"none","urgency":"low"}]}\n'
    folder = written(tmp_path, HOSPITALITY)
    (folder / "phrases.jsonl").write_text(good + good.replace("chatter", "gossip"))
    with pytest.raises(ConfigurationError, match=r"phrases\.jsonl:2: no gossip/none"):
        load_phrases(load_pack(folder))
    (folder / "phrases.jsonl").write_text(good.replace('"urgency":"low"', '"urgency":"low","mood":"good"'))
    with pytest.raises(ConfigurationError, match=r"phrases\.jsonl:1: .*mood"):
        load_phrases(load_pack(folder))


def test_the_digest_follows_the_phrases(tmp_path: Path) -> None:
    folder = written(tmp_path, HOSPITALITY)
    before = load_pack(folder).digest
    (folder / "phrases.jsonl").write_text("\n")
    assert load_pack(folder).digest != before


def spoken(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


@pytest.mark.parametrize("path", sorted(HELD_BACK.glob("*.jsonl")), ids=lambda path: path.stem)
def test_no_held_back_phrase_stands_in_training(path: Path) -> None:
    pack = load_pack(path.stem.partition("_")[0])
    learnt = {spoken(phrase.text) for phrase in load_phrases(pack)}
    held_back = {spoken(phrase.text) for phrase in load_phrases(pack, path)}
    assert held_back
    assert not learnt & held_back
