"""Processes of two releases side by side: each reads what the other writes.

`tests/data/messages` has what the release before wrote, and the schemas that it reads by.
"""

from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest
from tests.support.messages import (
    BINARY,
    EVERYTHING,
    FOLDER,
    LINK,
    RENAMED,
    STREAMS,
    Message,
    Recorded,
    plain,
    recorded,
)

from quickcomm.contracts import conversations, insights, summaries, transcripts
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.messaging import Topic
from quickcomm.contracts.reading import reader

MORE: Final = "of_a_later_release"
FILES: Final = sorted(FOLDER.glob("*/*.json"))
KINDS: Final = {type(messages[0]).__name__: type(messages[0]) for messages in EVERYTHING.values()}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def record_of(path: Path) -> Recorded:
    record = msgspec.json.decode(path.read_bytes(), type=Recorded)
    return msgspec.structs.replace(record, kind=RENAMED.get(record.kind, record.kind))


def read(kind: type[Message], message: object) -> Message:
    return reader(kind).decode(msgspec.json.encode(message))


def with_more(value: Any) -> Any:
    """As JSON, with a field that nobody knows in everything that has fields."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        tag = {config.tag_field: config.tag} if config.tag_field is not None else {}
        given = {name: each for name, each in msgspec.structs.asdict(value).items() if each is not msgspec.UNSET}
        fields = {name: with_more(each) for name, each in given.items()}
        return {**tag, **fields, MORE: {"a": [1, None]}}
    if isinstance(value, tuple | list):
        return [with_more(each) for each in value]
    if isinstance(value, dict):
        return {key: with_more(each) for key, each in value.items()}
    return value


def kept(before: Any, now: Any) -> bool:
    """Whether everything of `before` is in `now`, which may have more."""
    if isinstance(before, dict):
        return isinstance(now, dict) and all(name in now and kept(each, now[name]) for name, each in before.items())
    if isinstance(before, list):
        return len(before) == len(now) and all(map(kept, before, now))
    return bool(before == now)


def opened(schema: Any) -> Any:
    """The same schema for a reader that passes over what it does not know."""
    if isinstance(schema, dict):
        return {name: opened(each) for name, each in schema.items() if name != "additionalProperties" or each}
    return [opened(each) for each in schema] if isinstance(schema, list) else schema


def test_the_release_before_is_written_down() -> None:
    assert FILES, "Write down what this release says: python -m tests.support.messages"
    releases = {path.parent.name for path in FILES}
    assert len(releases) <= 2, "Only the release before and this one are held."


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_the_release_before_wrote_is_read_without_loss(path: Path) -> None:
    before = record_of(path)
    assert before.kind in KINDS, f"{before.kind} is gone. Processes of the release before still send it."
    for message in before.messages:
        assert kept(message, plain(read(KINDS[before.kind], message)))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_is_written_now_is_read_by_the_release_before(path: Path) -> None:
    """It asks for nothing that is not there any more, and gets no value that it does not know."""
    before = record_of(path)
    validator = jsonschema_rs.validator_for(opened(before.schema))
    now = [messages for messages in EVERYTHING.values() if type(messages[0]).__name__ == before.kind]
    assert now
    for message in (each for messages in now for each in recorded(messages).messages):
        assert [error.message for error in validator.iter_errors(message)] == []


@pytest.mark.parametrize("name", EVERYTHING)
def test_fields_of_a_later_release_do_no_harm(name: str) -> None:
    for message in EVERYTHING[name]:
        more = with_more(message)
        assert MORE in more
        if name in BINARY:
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(more), type=type(message)) == message
        else:
            assert read(type(message), more) == message


def test_an_insight_with_more_is_read_as_it_is_known_and_nothing_else_is_let_pass() -> None:
    found, *_ = STREAMS[insights.INSIGHTS]
    assert isinstance(found, InsightsFound)
    got = read(InsightsFound, with_more(found))
    assert got == found
    assert isinstance(got, InsightsFound)
    assert type(got.insights[0]) is Insight
    wrong = plain(found)
    wrong["insights"][0]["urgency"] = "whenever"
    with pytest.raises(msgspec.ValidationError, match="urgency"):
        read(InsightsFound, wrong)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert(with_more(found.insights[0]), Insight)


def test_every_stream_and_every_word_of_the_link_is_held() -> None:
    streams = {transcripts.TRANSCRIPTS, insights.INSIGHTS, conversations.CONVERSATIONS, summaries.SUMMARIES}
    assert set(STREAMS) == streams
    said = {type(messages[0]) for messages in LINK.values()}
    assert said == {topic for topic in Topic.__subclasses__() if topic.__module__.startswith("quickcomm.")}
