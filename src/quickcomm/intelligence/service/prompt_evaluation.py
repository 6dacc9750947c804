"""Scores a prompt version against the live one: the same labelled cases, the same model, a few at a time."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from quickcomm.contracts.prompts import PromptComparison
from quickcomm.intelligence.ports import (
    Draft,
    Heard,
    LanguageModel,
    ModelAnswer,
    ModelAnswerError,
    ModelBusyError,
    ModelError,
    ModelNotAllowedError,
)
from quickcomm.intelligence.service import prompt_scoring as scoring
from quickcomm.intelligence.service.prompt_scoring import Confusion, Judged, Outcome
from quickcomm.intelligence.service.prompt_version import PromptVersion
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError
from quickcomm.kernel.site_pack import Phrase, SitePack

DEFAULT_CASES: Final = 200
DEFAULT_CONCURRENCY: Final = 4
MAX_CONCURRENCY: Final = 64
ATTEMPTS: Final = 4
MOST_WITHOUT_ANSWER: Final = 0.5
_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0

Progress = Callable[[int, int], None]
"""(calls done, calls in all)."""

Sleep = Callable[[float], Awaitable[None]]
Finish = Callable[[tuple[Draft, ...], Heard], Awaitable[Sequence[Judged]]]
"""What is made of drafts before an operator sees them, so that this is what is judged."""


async def _as_they_are(drafts: tuple[Draft, ...], _heard: Heard) -> Sequence[Judged]:
    return drafts


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """The model that prompts are tried on, and what is done around it."""

    model: LanguageModel
    timeout_s: float = 30.0
    spent: Callable[[ModelAnswer], float] = lambda _answer: 0.0
    """Count an answer that is paid for, and say what it cost."""
    prepare: Callable[[Heard], Heard] = lambda heard: heard
    """What may leave the house of a case: masking."""
    finish: Finish = _as_they_are


class LabelledSet(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cases: tuple[Phrase, ...]

    @property
    def id(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self.cases)).hexdigest()[:12]


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A case of which the two versions make different things, and where each is wrong."""

    text: str
    expected: list[dict[str, Any]]
    candidate: list[dict[str, Any]] | None
    candidate_wrong: tuple[str, ...]
    live: list[dict[str, Any]] | None
    live_wrong: tuple[str, ...]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    prompt_id: str
    comparison: PromptComparison
    candidate_confusion: tuple[Confusion, ...]
    live_confusion: tuple[Confusion, ...]
    disagreements: tuple[Disagreement, ...]


def held_out(phrases: Sequence[Phrase], count: int) -> tuple[Phrase, ...]:
    """So many of the phrases, the same ones every time, each intent having its turn."""
    by_intent: dict[str, list[Phrase]] = {}
    for phrase in sorted(phrases, key=lambda one: hashlib.sha256(one.text.encode()).digest()):
        by_intent.setdefault(phrase.insights[0].intent, []).append(phrase)
    turns = max(map(len, by_intent.values()), default=0)
    ordered = [own[turn] for turn in range(turns) for own in by_intent.values() if turn < len(own)]
    return tuple(ordered[:count])


class Evaluator:
    def __init__(self, pack: SitePack, examined: Examined, *, sleep: Sleep = asyncio.sleep) -> None:
        self._pack = pack
        self._examined = examined
        self._sleep = sleep

    async def compare(
        self,
        candidate: PromptVersion,
        live: PromptVersion,
        labelled: LabelledSet,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: Progress = lambda _done, _all: None,
    ) -> Evaluation:
        """Ask the model for every case with both versions. Raises `ModelError` where it does not answer at all."""
        if not labelled.cases:
            raise InvalidInputError("The labelled set is empty: there is nothing to judge by.")
        texts = [case.text for case in labelled.cases]
        versions = [
            version.without(texts) for version in ((candidate,) if candidate.id == live.id else (candidate, live))
        ]
        calls = [(version, case) for case in labelled.cases for version in versions]
        outcomes = await self._run(calls, min(max(concurrency, 1), MAX_CONCURRENCY), progress)
        mine = outcomes[:: len(versions)]
        other = outcomes[len(versions) - 1 :: len(versions)]
        own, its = (scoring.numbers(labelled.cases, each, self._pack) for each in (mine, other))
        return Evaluation(
            prompt_id=candidate.id,
            comparison=PromptComparison(
                against_id=live.id,
                set_id=labelled.id,
                set_name=labelled.name,
                model=self._examined.model.model,
                candidate=own,
                live=its,
                falls_below=scoring.falls_below(own, its),
            ),
            candidate_confusion=scoring.confusion(labelled.cases, mine),
            live_confusion=scoring.confusion(labelled.cases, other),
            disagreements=_disagreements(labelled.cases, mine, other),
        )

    async def _run(
        self, calls: Sequence[tuple[PromptVersion, Phrase]], concurrency: int, progress: Progress
    ) -> list[Outcome]:
        outcomes: list[Outcome] = [Outcome()] * len(calls)
        waiting = iter(enumerate(calls))
        lost = done = 0

        async def work() -> None:
            nonlocal lost, done
            for place, (version, case) in waiting:
                outcome, answered = await self._ask(version, case)
                outcomes[place] = outcome
                done += 1
                lost += not answered
                if lost > max(10, len(calls) * MOST_WITHOUT_ANSWER) or (lost == done == min(10, len(calls))):
                    raise ModelError(f"The evaluation was given up: the model does not answer. {outcome.error}")
                progress(done, len(calls))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except* ModelError as errors:
            raise errors.exceptions[0] from None
        return outcomes

    async def _ask(self, version: PromptVersion, case: Phrase) -> tuple[Outcome, bool]:
        """What came of it, and whether the model answered at all. Raises `ModelNotAllowedError`."""
        heard = Heard(text=case.text)
        try:
            answer = await self._complete(version, self._examined.prepare(heard))
        except ModelNotAllowedError:
            raise
        except ModelError as error:
            return Outcome(error=str(error)), isinstance(error, ModelAnswerError)
        spent = Outcome(
            seconds=answer.seconds,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cost=self._examined.spent(answer),
        )
        try:
            found = await self._examined.finish(version.parse(answer.text), heard)
        except ModelAnswerError as error:
            return msgspec.structs.replace(spent, error=str(error)), True
        return msgspec.structs.replace(spent, found=tuple(found) or None), True

    async def _complete(self, version: PromptVersion, heard: Heard) -> ModelAnswer:
        """With patience where the endpoint wants less; live traffic would have answered locally instead."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._examined.model.complete(version.request(heard), timeout_s=self._examined.timeout_s)
            except ModelBusyError as error:
                if attempt == ATTEMPTS:
                    raise
                wait = error.retry_after_s if error.retry_after_s is not None else _WAIT_S * 2**attempt
                await self._sleep(min(max(wait, 0.0), _LONGEST_WAIT_S))
        raise ConfigurationError("unreachable")  # pragma: no cover - the last attempt returns or raises


def _disagreements(
    cases: Sequence[Phrase], mine: Sequence[Outcome], other: Sequence[Outcome]
) -> tuple[Disagreement, ...]:
    """Cases that one version has better, or otherwise, than the other; those that the candidate has wrong first."""
    found = []
    for case, a, b in zip(cases, mine, other, strict=True):
        if _said(a) == _said(b):
            continue
        found.append(
            Disagreement(
                text=case.text,
                expected=[_row(one) for one in case.insights],
                candidate=_said(a),
                candidate_wrong=scoring.wrong_fields(case, a),
                live=_said(b),
                live_wrong=scoring.wrong_fields(case, b),
            )
        )
    return tuple(sorted(found, key=lambda one: len(one.live_wrong) - len(one.candidate_wrong)))


def _said(outcome: Outcome) -> list[dict[str, Any]] | None:
    return [_row(one) for one in outcome.found] if outcome.found is not None else None


def _row(one: Any) -> dict[str, Any]:
    return {
        "intent": one.intent,
        "department": one.department,
        "urgency": one.urgency,
        "rooms": list(one.rooms),
        "items": [{"name": item.name, "quantity": item.quantity} for item in one.items],
    }
