"""A telephone call by Twilio Media Streams, with real speech on both tracks, against a real server."""

import re

import aiohttp
import numpy as np
import pytest
from tests.e2e.conftest import NewServer
from tests.support.server import Json, Server
from tests.support.talk import Talk, at_rate
from tests.support.twilio import CALL, STREAM, TOKEN, Call, connected, signature, whole_call

RATE = 8_000
OTHERS_FROM_S = 6


@pytest.fixture
def phone(new_server: NewServer) -> Server:
    return new_server(QUICKCOMM_AUDIO_TWILIO_AUTH_TOKEN=TOKEN)


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9']+", text.lower()))


async def test_a_call_of_two_people_becomes_their_utterances(phone: Server, talk: Talk) -> None:
    """The second one says the same a little later: what is heard of each must not depend on the other."""
    said = at_rate(talk.pcm, RATE)
    pause = np.zeros(OTHERS_FROM_S * RATE, np.int16)
    tracks = [np.concatenate([said, pause]), np.concatenate([pause, said])]
    call = Call("inbound", "outbound", channel="front desk")
    assert await whole_call(phone.url, call, tracks) == 1000
    conversation = f"{CALL}.{STREAM}"
    ended = await phone.until(f"/v1/conversations/{conversation}", lambda body: body.get("state") == "ended")
    assert ended["channel"] == "front desk"
    for ledger in ended["ledgers"]:
        assert (ledger["received"], ledger["gap"]) == (len(tracks[0]), 0)

    def all_there(body: Json) -> bool:
        speakers = [item["speaker"] for item in body["items"]]
        return min(speakers.count(0), speakers.count(1)) >= talk.utterances

    heard = await phone.until("/v1/utterances?channel=front%20desk&limit=100", all_there)
    for speaker in (0, 1):
        text = " ".join(item["text"] for item in heard["items"] if item["speaker"] == speaker)
        assert len(words(text) & words(talk.words)) > 0.7 * len(words(talk.words)), text


async def test_no_one_else_may_call(phone: Server) -> None:
    wrong = {"X-Twilio-Signature": signature(f"wss{phone.url[4:]}/v1/ingest/twilio", "another token")}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with connected(phone.url, headers=wrong):
            pass
    assert refused.value.status == 403
    assert TOKEN not in phone.log


async def test_without_a_token_no_call_is_taken(server: Server) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with connected(server.url):
            pass
    assert refused.value.status == 403
