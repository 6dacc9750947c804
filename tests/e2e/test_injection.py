"""Names that mean ill go through the real socket, into the store, the search, the recordings and the page's feed."""

import json
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from tests.support.hostile import TEXTS, UNPRINTABLE
from tests.support.server import Json, Server
from tests.support.talk import RATE, shift_talk
from tests.support.wire import connected, converse, new_id

IDS = ("...", "~root", "-rf")
SHORT = shift_talk().wire[: 2 * 12 * RATE]


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.suffix in {".flac", ".part"}}


async def next_card(live: aiohttp.ClientWebSocketResponse) -> Json:
    while (event := json.loads((await live.receive(timeout=30)).data))["type"] != "card":
        pass
    card: Json = event["card"]
    return card


@pytest.mark.parametrize("name", TEXTS)
async def test_a_channel_of_any_name_is_only_a_name(patient_server: Server, name: str) -> None:
    channel = TEXTS[name]
    headers = {"Authorization": f"Bearer {patient_server.key('read')}"}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{patient_server.url}/v1/live", headers=headers, max_msg_size=0) as live,
    ):
        await live.send_json({"type": "watch", "channels": [channel]})
        wire = await converse(patient_server.url, patient_server.key(), SHORT, channel=channel)
        said = wire.of("utterance")
        assert said
        while wire.conversation_id != (card := await next_card(live))["conversation_id"]:
            pass
        assert card["channel"] == channel
    filters = f"channel={quote(channel)}"
    found = await patient_server.until(f"/v1/utterances?{filters}", lambda body: len(body["items"]) == len(said))
    assert {card["channel"] for card in found["items"]} == {channel}
    searched = patient_server.get(f"/v1/utterances?query={quote(said[0]['text'][:150])}&{filters}", "read").json()[
        "items"
    ]
    assert said[0]["utterance_id"] in [card["utterance_id"] for card in searched]
    assert patient_server.get(f"/v1/utterances?query={quote(channel)}", "read").status == 200
    assert channel in [each["channel"] for each in patient_server.get("/v1/channels", "read").json()["items"]]
    root = patient_server.data_dir / "recordings" / "main" / f"c-{wire.conversation_id}"
    assert {path.parent for path in files(patient_server.data_dir.parent) if wire.conversation_id in str(path)} == {
        root
    }


@pytest.mark.parametrize("name", UNPRINTABLE)
async def test_a_channel_that_cannot_be_read_is_refused(patient_server: Server, name: str) -> None:
    channel = UNPRINTABLE[name]
    async with connected(patient_server.url, patient_server.key(), new_id(), channel=channel) as wire:
        assert (await wire.until("error"))["code"] == "audio.invalid_request"
        assert await wire.until_closed() == 1008


@pytest.mark.parametrize("conversation", IDS)
async def test_a_conversation_of_any_name_has_a_folder_of_its_own(patient_server: Server, conversation: str) -> None:
    wire = await converse(patient_server.url, patient_server.key(), SHORT, conversation_id=conversation)
    root = patient_server.data_dir / "recordings" / "main"
    written = files(root / f"c-{conversation}")
    assert len(written) == len(wire.of("utterance")) > 0
    everything = files(patient_server.data_dir.parent)
    assert everything == files(patient_server.data_dir / "recordings")
    assert {len(path.relative_to(patient_server.data_dir).parts) for path in everything} == {4}
    read = await patient_server.until(f"/v1/conversations/{quote(conversation)}", lambda body: body["state"] == "ended")
    assert read["conversation_id"] == conversation


async def test_an_assignee_of_any_name_is_only_a_name(patient_server: Server, things: dict[str, str]) -> None:
    path = f"/v1/tasks/{things['task_id']}/assign"
    for text in (*TEXTS.values(), "x" * 80):
        answer = patient_server.ask("POST", path, patient_server.key("admin"), {"assignee": text})
        assert answer.status == 200
        assert answer.json()["assignee"] == text.strip()
        assert answer.headers["content-type"].startswith("application/json")
    for text in (*UNPRINTABLE.values(), "x" * 81):
        answer = patient_server.ask("POST", path, patient_server.key("admin"), {"assignee": text})
        assert answer.status == 400, text
    assert patient_server.ask("POST", path, patient_server.key("admin"), {"assignee": None}).json()["assignee"] is None
