"""What is on a bus and is none of our messages goes to the dead letters at once, with a reason that quotes nothing."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.dashboard_site import found, heard, insight
from tests.support.edges import tried

from quickcomm.contracts.conversations import ConversationChanged
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.service.service import _decode as dashboard_decode
from quickcomm.intelligence.service.understanding import _decode as intelligence_decode
from quickcomm.kernel.messaging.bus.port import Delivery, RejectedError

TRANSCRIPT = msgspec.json.encode(heard(0, "the secret word is swordfish"))
INSIGHTS = msgspec.json.encode(found(heard(0, "swordfish"), insight("repair", "412", summary="swordfish")))
READERS: dict[str, Callable[[Delivery], object]] = {
    "intelligence": intelligence_decode,
    **{
        f"dashboard {kind.__name__}": lambda delivery, kind=kind: dashboard_decode(  # type: ignore[misc]
            msgspec.json.Decoder(kind), delivery
        )
        for kind in (UtteranceTranscribed, InsightsFound, ConversationChanged)
    },
}


def changed(original: bytes) -> st.SearchStrategy[bytes]:
    place = st.integers(0, len(original))
    other = st.binary(max_size=12) | st.sampled_from([b"null", b"{}", b"[]", b"-1", b'"', b"1e400", b"\xff"])
    return st.builds(lambda at, length, new: original[:at] + new + original[at + length :], place, place, other)


def renamed(name: str, value: object) -> bytes:
    fields: dict[str, Any] = json.loads(TRANSCRIPT)
    return json.dumps({**fields, name: value}).encode()


@pytest.mark.parametrize("reader", READERS)
@given(payload=st.binary(max_size=200) | changed(TRANSCRIPT) | changed(INSIGHTS))
@example(payload=b"[" * 50_000)
@example(payload=b'{"x":' + b"[" * 3_000 + b"]" * 3_000 + b"}")
@example(payload=TRANSCRIPT.replace(b"swordfish", b"sword\xff"))
@example(payload=renamed("text", 5))
@example(payload=renamed("words", None))
@example(payload=renamed("start_offset", 10**30))
@example(payload=b"")
def test_a_payload_is_a_message_or_rejected(reader: str, payload: bytes) -> None:
    delivery = Delivery(message_id=7, stream="transcripts.v1", key="c", payload=payload)
    message, refused = tried(lambda: READERS[reader](delivery), RejectedError)
    assert refused is None or "swordfish" not in str(refused)
    assert refused or isinstance(message, UtteranceTranscribed | InsightsFound | ConversationChanged)
