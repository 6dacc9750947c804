"""Whatever comes in from outside is either understood, and then it is what the contract says, or refused by our own
error: never another exception, and never work without a bound."""

import base64
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.edges import tried
from tests.support.examples import examples

from quickcomm.audio.ingest.reception import BreachError
from quickcomm.audio.ingest.websocket import parse_control
from quickcomm.audio.model.checkpoint import Checkpoint, decode_checkpoints, encode_checkpoints
from quickcomm.audio.model.formats import CHANNEL_LIMIT, decode, parse_channel, parse_conversation_id, parse_format
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.client.errors import ProtocolError
from quickcomm.client.link import parse
from quickcomm.contracts.audio_socket import ENCODINGS, SAMPLE_RATES, End, Skip
from quickcomm.dashboard.adapters import parameters
from quickcomm.dashboard.adapters.dialects import dialect
from quickcomm.dashboard.adapters.operations import read_query
from quickcomm.dashboard.adapters.queries import match_expression
from quickcomm.dashboard.adapters.rest_types import PageQuery
from quickcomm.dashboard.model.places import After, Cursor
from quickcomm.dashboard.ports import DashboardSettings, Page, UtteranceFilter
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError
from quickcomm.kernel.site_pack import BUILT_IN, PACK_FILE, load_pack
from quickcomm.operate.settings import FILE, load_settings

HOSPITALITY = (BUILT_IN / "hospitality" / PACK_FILE).read_bytes()
DEEP = 50_000

anything = st.text(max_size=300)
names = st.text(alphabet=st.characters(), max_size=200) | st.from_regex(r"[A-Za-z0-9._~-]{1,130}", fullmatch=True)
nested = st.integers(1, 3_000).map(lambda depth: '{"type":"end","x":' + "[" * depth + "]" * depth + "}")
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def changed(original: bytes) -> st.SearchStrategy[bytes]:
    """The original with one stretch of it replaced by other bytes, or cut off."""

    def change(at: int, length: int, other: bytes) -> bytes:
        return original[:at] + other + original[at + length :]

    place = st.integers(0, len(original))
    return st.builds(change, place, st.integers(0, 40), st.binary(max_size=20)) | place.map(lambda at: original[:at])


# -- audio ---------------------------------------------------------------------------------------------------------


@given(names)
def test_a_conversation_id_is_as_the_contract_has_it(text: str) -> None:
    try:
        assert parse_conversation_id(text) == text
    except InvalidInputError:
        return
    assert 1 <= len(text) <= 128
    assert text.isascii()
    assert all(char.isalnum() or char in "._~-" for char in text)


@given(names)
@example("\u202eevil")
@example("a\x00b")
@example("\ud800")
def test_a_channel_is_short_and_printable(text: str) -> None:
    try:
        channel = parse_channel(text)
    except InvalidInputError:
        return
    assert len(channel) <= CHANNEL_LIMIT
    assert channel.isprintable()
    channel.encode()


numbers = anything | st.sampled_from(
    ["8000", "16000", "1", "2", "\u0661", "\u00b2", " 1", "1_6000", "+16000", "16000\n"]
)


@given(anything | st.sampled_from(ENCODINGS), numbers, numbers)
def test_a_format_is_one_of_those_that_there_are(encoding: str, rate: str, channels: str) -> None:
    try:
        found = parse_format(encoding, rate, channels)
    except InvalidInputError:
        return
    assert found.encoding in ENCODINGS
    assert (found.sample_rate, found.speakers) == (int(rate), int(channels))
    assert found.sample_rate in SAMPLE_RATES
    assert found.speakers in (1, 2)


@given(st.binary(max_size=5_000), st.sampled_from(ENCODINGS), st.sampled_from("12"))
def test_a_message_of_any_length_is_whole_samples_or_refused(data: bytes, encoding: str, channels: str) -> None:
    audio_format = parse_format(encoding, "8000", channels)
    try:
        speakers = decode(data, audio_format)
    except InvalidInputError:
        assert len(data) % audio_format.block_bytes
        return
    assert len(speakers) == audio_format.speakers
    assert {len(samples) for samples in speakers} == {len(data) // audio_format.block_bytes}


controls = (
    anything
    | json_values.map(json.dumps)
    | st.fixed_dictionaries({"type": st.sampled_from(["skip", "end"]), "samples": json_values}).map(json.dumps)
    | nested
)


@given(controls)
@example('{"type":"end","x":' + "[" * 4_000)
@example('{"type":"skip","samples":' + "9" * 4_000 + "}")
@example('{"type":"end","x":"\ud800"}')
def test_a_control_message_is_understood_or_closes_with_a_code(text: str) -> None:
    control, refused = tried(lambda: parse_control(text), BreachError)
    if refused is not None:
        assert refused.close_code in (1003, 1007, 1008, 1009)
        assert refused.code.startswith("audio.")
    else:
        assert (
            control is None or isinstance(control, End) or (isinstance(control, Skip) and 0 < control.samples <= 10**12)
        )


@given(st.binary(max_size=400) | changed(encode_checkpoints((Checkpoint(offset=512), Checkpoint()))))
@example(b"\x91" * DEEP)
@example(b"\x91\x81\xa6offset\xff")
@example(b"\x91\x81\xa1\xff\x01")
def test_a_checkpoint_is_decoded_or_refused(data: bytes) -> None:
    try:
        found = decode_checkpoints(data)
    except msgspec.DecodeError:
        return
    assert all(isinstance(each, Checkpoint) for each in found)


# -- REST ----------------------------------------------------------------------------------------------------------

queries = st.dictionaries(
    st.sampled_from(["limit", "cursor", "after", "since", "channel", "state"]),
    anything
    | st.integers().map(str)
    | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
    | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode())
    | st.from_regex(parameters.AFTER)
    | st.tuples(st.integers(), st.integers()).map(
        lambda pair: base64.urlsafe_b64encode(f"{pair[0]}.{pair[1]}".encode()).decode()
    ),
)
PARSERS: tuple[Callable[[Mapping[str, str]], object], ...] = (
    lambda query: read_query(PageQuery, {name: query[name] for name in query.keys() & {"limit", "cursor"}}).page,
    lambda query: read_query(PageQuery, {name: query[name] for name in query.keys() & {"after"}}).page,
    lambda query: parameters.time_ns(query, "since"),
    lambda query: parameters.text(query, "channel"),
    lambda query: parameters.choice(query, "state", ("live", "ended")),
    lambda query: parameters.integer(query, "limit", low=0, high=2**53),
)


@given(queries)
@example({"cursor": base64.urlsafe_b64encode(b"9" * 140 + b".1").decode()})
@example({"since": "0001-01-01T00:00:00+23:59"})
@example({"since": "9999-12-31T23:59:59-23:59"})
@example({"limit": "\u00b2"})
@example({"channel": "\ud800"})
def test_parameters_are_within_their_bounds_or_refused(query: dict[str, str]) -> None:
    for parser in PARSERS:
        try:
            found = parser(query)
        except InvalidInputError:
            continue
        if isinstance(found, int):
            assert -(2**63) <= found < 2**63
        elif isinstance(found, Page):
            assert 1 <= found.limit <= 200
            cursor, after = found.cursor, found.after
            assert cursor is None or (0 <= cursor.time_ns < 2**63 and abs(cursor.row) < 2**63)
            assert after is None or (0 <= after.change < 2**63 and 0 <= (after.index or 0) < 2**31)
        elif isinstance(found, str):
            assert 0 < len(found) <= parameters.MAX_TEXT
            found.encode()


SIDES = st.none() | st.just("9f2c4e1a7b0d3856")


@given(SIDES, st.integers(0, 2**62), st.integers(-(2**62), 2**62))
def test_a_cursor_comes_back_as_it_went(side: str | None, time: int, row: int) -> None:
    cursor = Cursor(side=side, time_ns=time, row=row)
    text = parameters.cursor_text(cursor)
    assert text is not None
    assert len(text) <= 120
    assert parameters.cursor({"cursor": text}) == cursor


@given(SIDES, st.integers(0, 2**53), st.none() | st.integers(0, 10**9 - 1))
def test_a_point_in_the_changes_comes_back_as_it_went(side: str | None, change: int, index: int | None) -> None:
    after = After(side=side, change=change, index=index)
    assert len(str(after)) <= 70
    assert parameters.after({"after": str(after)}) == after


@given(anything)
def test_a_search_is_only_words_in_quotes(text: str) -> None:
    expression = match_expression(dialect("sqlite"), "main", UtteranceFilter(query=text))
    assert expression is not None
    if expression:
        words = expression.partition("{text summary rooms} : (")[2].removesuffix(")")
        for part in words.split(" AND "):
            assert part.startswith('"')
            assert part.removesuffix("*").endswith('"')
            assert '"' not in part.removesuffix("*")[1:-1]


# -- the client ----------------------------------------------------------------------------------------------------


@given(anything | json_values.map(json.dumps) | nested)
@example("[" * DEEP)
@example('{"type":"ack","offset":' + "9" * 5_000 + "}")
@example('{"type":"\ud800"}')
def test_the_client_understands_the_server_or_says_so(message: str) -> None:
    event, refused = tried(lambda: parse(message), ProtocolError)
    assert (event is None) != (refused is None)
    assert refused is None or len(str(refused)) < 500


# -- files ---------------------------------------------------------------------------------------------------------


def in_file(name: str, content: bytes) -> Path:
    folder = Path(tempfile.mkdtemp(dir=SCRATCH.name))
    (folder / name).write_bytes(content)
    return folder


SCRATCH = tempfile.TemporaryDirectory(prefix="quickcomm-edges-")

tables = st.dictionaries(
    st.sampled_from(["host", "port", "pack", "audio", "stt", "keys", "storage", "dashboard", "audio.segmenter", "x"]),
    st.text(max_size=10) | st.integers() | st.floats() | st.booleans(),
)


def toml(values: Mapping[str, object]) -> bytes:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()).encode()


def sensible(folder: Path, environment: dict[str, str]) -> None:
    """Settings are refused by our own error, or every number in them is one to work with."""
    found, refused = tried(lambda: load_settings(folder, {}, environment), ConfigurationError)
    if found is None:
        assert str(refused)
        return
    assert 0 <= found.port <= 65_535
    audio = found.of(AudioSettings)
    for section in (found, audio, audio.segmenter, found.keys, found.storage, found.of(DashboardSettings)):
        for value in msgspec.structs.asdict(section).values():
            if isinstance(value, int | float):
                assert math.isfinite(value)
                assert value >= 0
    assert found.keys.requests_per_second > 0
    assert found.keys.requests_burst >= 1


@examples(60)
@given(st.binary(max_size=200) | tables.map(toml) | changed(b'port = 1\nhost = "x"\n[audio]\nidle_limit_s = 5\n'))
@example(b"a = " + b"[" * DEEP)
@example(b"port = " + b"1" * 5_000)
@example(b"port = 70000")
@example(b"[audio]\nidle_limit_s = nan")
@example(b"[storage]\nretention_days = 1000000000")
@example(b"[keys]\nrequests_per_second = 0")
def test_a_settings_file_is_understood_or_refused(content: bytes) -> None:
    sensible(in_file(FILE, content), {})


variables = st.sampled_from(
    [
        "QUICKCOMM_PORT",
        "QUICKCOMM_AUDIO",
        "QUICKCOMM_AUDIO_IDLE_LIMIT_S",
        "QUICKCOMM_AUDIO_MAX_SESSIONS",
        "QUICKCOMM_AUDIO_SEGMENTER",
        "QUICKCOMM_AUDIO_SEGMENTER_HANGOVER",
        "QUICKCOMM_KEYS_REQUESTS_PER_SECOND",
        "QUICKCOMM_KEYS_FAILURES_BURST",
        "QUICKCOMM_STORAGE_RETENTION_DAYS",
        "QUICKCOMM_",
    ]
)
odd = st.sampled_from(["nan", "inf", "-inf", "1e999", "-1", "0", "9" * 5_000, "true", "", "\u0663"])


@examples(100)
@given(st.dictionaries(variables, odd | anything))
def test_the_environment_is_understood_or_refused(environment: dict[str, str]) -> None:
    sensible(Path(SCRATCH.name), environment)


@examples(40)
@given(changed(HOSPITALITY) | st.binary(max_size=100))
@example(b"a = " + b"[" * DEEP)
@example(HOSPITALITY.replace(b"format = 1", b"format = " + b"1" * 5_000))
def test_a_site_pack_is_understood_or_refused(content: bytes) -> None:
    folder = in_file(PACK_FILE, content)
    pack, refused = tried(lambda: load_pack(folder), ConfigurationError)
    assert pack is None or pack.intents
    assert refused is None or str(folder) in str(refused)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("clock_after = [", 'clock_after = ["(?i)at", ', "places.clock_after"),
        ("clock_after = [", 'clock_after = ["(?P<a>x)", "(?P<a>y)", ', "cannot stand together"),
        ("clock_after = [", 'clock_after = ["a{99999999999999999999}", ', "places.clock_after"),
        ("clock_after = [", f'clock_after = ["{"(" * 2_000 + ")" * 2_000}", ', "places.clock_after"),
        ('summary = "Bring {items} {to_place}"', 'summary = "Bring {items"', "intents.request_item.summary"),
        ('summary = "Bring {items} {to_place}"', 'summary = "Bring {items!x}"', "intents.request_item.summary"),
        ('summary = "Bring {items} {to_place}"', 'summary = "Bring {items:>9999999999}"', "intents.request_item"),
    ],
)
def test_a_pack_that_could_not_be_used_is_refused_when_it_is_loaded(old: str, new: str, says: str) -> None:
    text = HOSPITALITY.decode()
    assert old in text
    with pytest.raises(ConfigurationError, match=says):
        load_pack(in_file(PACK_FILE, text.replace(old, new, 1).encode()))
