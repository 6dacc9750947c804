"""The operations of a site. Each is defined here, once, for every deployment."""

from collections.abc import Mapping
from typing import Final, get_args

import msgspec

from quickcomm.contracts.closing import (
    ArchiveConversation,
    Closing,
    FinishConversation,
    OpenTasks,
    ReopenConversation,
    SummarizeConversation,
)
from quickcomm.contracts.correcting import AmendUtterance, Correcting, RestoreUtterance, UnderstandCorrection
from quickcomm.contracts.dispatching import ConfirmDispatch, Dispatching, ReleaseTask, ReserveTask, SendNotice
from quickcomm.contracts.erasing import ERASE, ErasePart, Erasure, KeepReceipt, Part
from quickcomm.kernel.saga import Given, Operation, Step

CLOSE: Final = "close"
CORRECT: Final = "correct"
DISPATCH: Final = "dispatch"


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


def _nameless(given: Closing) -> Closing:
    tasks: OpenTasks = "keep" if given.tasks == "hand_over" else given.tasks
    return msgspec.structs.replace(given, tasks=tasks, assignee=None)


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
    nameless=_nameless,
    spoken=_conversation,
)


def _amend(given: Given) -> AmendUtterance:
    return AmendUtterance(
        key=given.key,
        site=given.site,
        utterance_id=given.input.utterance_id,
        number=given.input.number,
        by=given.by,
    )


def _restore(given: Given) -> RestoreUtterance:
    return RestoreUtterance(
        key=given.key,
        site=given.site,
        utterance_id=given.input.utterance_id,
        number=given.input.number,
        by=given.by,
    )


def _understand(given: Given) -> UnderstandCorrection:
    return UnderstandCorrection(
        key=given.key, site=given.site, utterance_id=given.input.utterance_id, number=given.input.number
    )


def _correction(given: Correcting) -> str:
    return f"{given.utterance_id}#{given.number}"


def _utterance(given: Correcting) -> str:
    return given.utterance_id


def _no_names(given: Correcting) -> Correcting:
    """Return it as it is: what it is about has no name."""
    return given


CORRECT_UTTERANCE: Final = Operation(
    name=CORRECT,
    input=Correcting,
    subject=_correction,
    steps=(
        Step(name="amend", asks=AmendUtterance, does=_amend, undoes=RestoreUtterance, undo=_restore),
        Step(
            name="understand",
            asks=UnderstandCorrection,
            does=_understand,
            stays="Insights follow a text; correct the utterance again to have others.",
        ),
    ),
    nameless=_no_names,
    spoken=_utterance,
)


def _reserve(given: Given) -> ReserveTask:
    return ReserveTask(
        key=given.key,
        site=given.site,
        task_id=given.input.task_id,
        assignee=given.input.assignee,
        by=given.by,
        expected=given.input.expected,
    )


def _release(given: Given) -> ReleaseTask:
    return ReleaseTask(key=given.key, site=given.site, task_id=given.input.task_id, by=given.by)


def _notice(given: Given) -> SendNotice:
    reserved = given.results["reserve"].key
    return SendNotice(key=given.key, site=given.site, task_id=given.input.task_id, reserved=reserved)


def _confirm(given: Given) -> ConfirmDispatch:
    return ConfirmDispatch(
        key=given.key,
        site=given.site,
        task_id=given.input.task_id,
        by=given.by,
        reserved=given.results["reserve"].key,
        notified_ns=given.results["notice"].at_ns,
    )


def _to_no_one(given: Dispatching) -> Dispatching:
    return msgspec.structs.replace(given, assignee="erased")


def _task(given: Dispatching) -> str:
    return given.task_id


def _asked_in(given: Dispatching) -> str:
    return given.task_id.rpartition(":")[0]


DISPATCH_TASK: Final = Operation(
    name=DISPATCH,
    input=Dispatching,
    subject=_task,
    steps=(
        Step(name="reserve", asks=ReserveTask, does=_reserve, undoes=ReleaseTask, undo=_release),
        Step(
            name="notice",
            asks=SendNotice,
            does=_notice,
            stays="The person was told.",
            outside=True,
        ),
        Step(
            name="confirm",
            asks=ConfirmDispatch,
            does=_confirm,
            stays="It is true that the person was told.",
        ),
    ),
    once=False,
    nameless=_to_no_one,
    spoken=_asked_in,
)


def _erases(part: Part) -> Step:
    def does(given: Given) -> ErasePart:
        return ErasePart(key=given.key, erasure=given.input.erasure, part=part)

    return Step(name=part, asks=ErasePart, does=does, stays="What is erased does not come back.", outside=True)


def _keep(given: Given) -> KeepReceipt:
    erased = tuple(line for part in get_args(Part) for line in given.results[part].erased)
    return KeepReceipt(key=given.key, erasure=given.input.erasure, erased=erased)


def _erasure(given: Erasure) -> str:
    return given.erasure


ERASE_SAID: Final = Operation(
    name=ERASE,
    input=Erasure,
    subject=_erasure,
    steps=(
        *(_erases(part) for part in get_args(Part)),
        Step(name="receipt", asks=KeepReceipt, does=_keep, stays="It says what was erased.", outside=True),
    ),
)
OPERATIONS: Final[Mapping[str, Operation]] = {
    each.name: each for each in (CLOSE_CONVERSATION, CORRECT_UTTERANCE, DISPATCH_TASK, ERASE_SAID)
}
