"""The Python client for REST, before a real server with a shift in it."""

import pytest
from tests.support.server import Server
from tests.support.talk import shift_talk
from tests.support.wire import connected, converse, new_id

from quickcomm.client.errors import NotAllowedError, UnauthorizedError
from quickcomm.client.rest import ChangedTaskError, RestClient
from quickcomm.kernel.errors import NotFoundError

CHANNEL = "rest client"


async def test_a_program_lists_edits_and_polls(server: Server) -> None:
    async with RestClient(server.url, server.key("admin")) as rest:
        before = (await rest.changed_utterances()).after
        wire = await converse(server.url, server.key(), shift_talk().wire, channel=CHANNEL)
        await server.until("/v1/tasks", lambda body: any(task["channel"] == CHANNEL for task in body["items"]))
        [task, *_] = [task async for task in rest.tasks() if task.channel == CHANNEL]
        done = await rest.edit(task.task_id, "complete", expected=task.version)
        assert done.status == "done"
        with pytest.raises(ChangedTaskError) as changed:
            await rest.assign(task.task_id, "Maria", expected=task.version)
        assert changed.value.task is not None
        assert changed.value.task.version == done.version
        news = await rest.changed_utterances(before)
        assert {each.conversation_id for each in news.items} >= {wire.conversation_id}
        card = await rest.utterance(task.utterance_id)
        assert [each.status for each in card.tasks if each.task_id == task.task_id] == ["done"]
        listed = [each async for each in rest.utterances(channel=CHANNEL)]
        assert {each.utterance_id for each in listed} >= {event["utterance_id"] for event in wire.of("utterance")}
        assert (await rest.changed_tasks((await rest.changed_tasks()).after)).items == []
        anew = await rest.changed_utterances("0123456789abcdef:7")
        assert anew.reset
        assert len(anew.items) >= len(listed)


async def test_the_ledger_of_a_live_conversation_is_as_far_as_its_acks(server: Server) -> None:
    """REST tells what `quickcomm ledger` tells, while the conversation goes on."""
    async with connected(server.url, server.key(), new_id()) as wire:
        await wire.until("ready")
        await wire.send(bytes(2 * 48_000), 3_200)
        acked = await wire.until_acked(32_000)
        async with RestClient(server.url, server.key("read")) as rest:
            one = await rest.conversation(wire.conversation_id)
            [listed] = [
                each async for each in rest.conversations(state="live") if each.conversation_id == wire.conversation_id
            ]
        assert one.state == "live"
        assert one.ledger.received >= acked
        assert one.ledger.balanced
        assert listed.ledger.received >= acked


async def test_errors_are_of_their_kind(server: Server) -> None:
    async with RestClient(server.url, "nonsense") as rest:
        with pytest.raises(UnauthorizedError):
            await rest.utterance("x")
    async with RestClient(server.url, server.key("read")) as rest:
        with pytest.raises(NotFoundError):
            await rest.utterance("no such/utterance?")
        with pytest.raises(NotAllowedError):
            await rest.edit("x", "complete")
