"""The operations of a site. Each is defined here, once, for every deployment."""

from collections.abc import Mapping
from typing import Final

from quickcomm.contracts.closing import (
    ArchiveConversation,
    Closing,
    FinishConversation,
    ReopenConversation,
    SummarizeConversation,
)
from quickcomm.kernel.saga import Given, Operation, Step

CLOSE: Final = "close"


def _finish(given: Given) -> FinishConversation:
    return FinishConversation(key=given.key, site=given.site, conversation_id=given.input.conversation_id, by=given.by)


def _summarize(given: Given) -> SummarizeConversation:
    finished = given.results.get("finish")
    return SummarizeConversation(
        key=given.key,
        site=given.site,
        conversation_id=given.input.conversation_id,
        last_seq=0 if finished is None else finished.last_seq,
    )


def _archive(given: Given) -> ArchiveConversation:
    return ArchiveConversation(
        key=given.key,
        site=given.site,
        conversation_id=given.input.conversation_id,
        by=given.by,
        tasks=given.input.tasks,
        assignee=given.input.assignee,
        last_utterance=given.results["finish"].last_utterance,
        usage=given.results["summarize"].usage,
    )


def _reopen(given: Given) -> ReopenConversation:
    return ReopenConversation(key=given.key, site=given.site, conversation_id=given.input.conversation_id, by=given.by)


def _conversation(given: Closing) -> str:
    return given.conversation_id


CLOSE_CONVERSATION: Final = Operation(
    name=CLOSE,
    input=Closing,
    subject=_conversation,
    steps=(
        Step(
            name="finish",
            asks=FinishConversation,
            does=_finish,
            stays="A conversation that has ended does not begin again; its client opens a new one.",
        ),
        Step(
            name="summarize",
            asks=SummarizeConversation,
            does=_summarize,
            stays="The summary is true whether the conversation is archived or not.",
        ),
        Step(name="archive", asks=ArchiveConversation, does=_archive, undoes=ReopenConversation, undo=_reopen),
    ),
)
OPERATIONS: Final[Mapping[str, Operation]] = {each.name: each for each in (CLOSE_CONVERSATION,)}
