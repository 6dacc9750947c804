"""The audio socket's messages: durable events of earlier releases are read and sent again as they were."""

import msgspec
import pytest

from quickcomm.contracts.audio_socket import Insights, Utterance, decode_control, decode_durable, decode_event

OLD_UTTERANCE = (
    '{"type":"utterance","seq":3,"utterance_id":"c:0:512","speaker":0,"start_offset":512,"end_offset":9000,'
    '"text":"towels to 412","words":[{"text":"towels","start_offset":512,"end_offset":4000,"confidence":0.9}],'
    '"confidence":0.81}'
)
"""As a release without `status` and `unintelligible` has left it in the log."""
LATER_INSIGHTS = (
    '{"type":"insights","seq":4,"utterance_id":"c:0:512","insights":[{"index":0,"intent":"a_later_one",'
    '"relates_to":{"kind":"copy","utterance_id":"d:0:0"},"rooms":["412"]}]}'
)
"""As a later release may write it: another field, another intent, and one that is missing."""


def test_an_utterance_of_an_earlier_release_is_read_from_the_log() -> None:
    event = decode_durable(OLD_UTTERANCE)
    assert isinstance(event, Utterance)
    assert (event.seq, event.text, event.status) == (3, "towels to 412", "ok")
    again = msgspec.json.decode(msgspec.json.encode(event), type=dict[str, object])
    before = msgspec.json.decode(OLD_UTTERANCE, type=dict[str, object])
    assert before.items() <= again.items()


def test_insights_are_sent_again_as_they_were_written() -> None:
    event = decode_durable(LATER_INSIGHTS)
    assert isinstance(event, Insights)
    assert msgspec.json.encode(event).decode() == LATER_INSIGHTS


def test_what_is_stored_begins_with_its_type_and_seq() -> None:
    """Valkey numbers an event by its place in the text, and the last release knows insights by their beginning."""
    insights = Insights[object](seq=0, utterance_id="c:0:0", insights=())
    assert msgspec.json.encode(insights).startswith(b'{"type":"insights","seq":0,')
    utterance = Utterance(seq=0, utterance_id="c:0:0", speaker=0, start_offset=0, end_offset=1, text='"seq":0,')
    assert msgspec.json.encode(utterance).startswith(b'{"type":"utterance","seq":0,')


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type":7}', '{"type":"insights"}', '{"type":"nothing"}'])
def test_what_is_no_durable_event_is_refused(text: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_durable(text)


def test_an_event_of_a_later_release_is_kept_as_it_came() -> None:
    event = decode_event('{"type":"of_a_later_release","n":1}')
    assert msgspec.to_builtins(event) == {"type": "of_a_later_release", "raw": msgspec.to_builtins(event)["raw"]}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type":7}', '{"type":"dance"}', '{"event":"dtmf"}', "hello"])
def test_a_text_that_is_no_control_message_is_none(text: str) -> None:
    assert decode_control(text) is None


def test_a_control_message_may_have_more_fields() -> None:
    assert msgspec.to_builtins(decode_control('{"type":"skip","samples":7,"why":"x"}')) == {
        "type": "skip",
        "samples": 7,
    }
