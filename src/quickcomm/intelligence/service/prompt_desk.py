"""What an operator does with prompt versions: look, evaluate, deploy, roll back. Every step leaves a record."""

import re
from datetime import UTC, datetime
from typing import Final

from quickcomm.contracts.prompts import PromptAction, PromptEvent, PromptInfo, PromptInForce, PromptsView
from quickcomm.intelligence.ports import PromptDeployment, PromptRecord, PromptStore, StoredPrompt
from quickcomm.intelligence.service.prompt_evaluation import Evaluation, Evaluator, Examined, LabelledSet, Progress
from quickcomm.intelligence.service.prompt_version import PromptVersion
from quickcomm.intelligence.service.prompts import DeployedPrompts, Make, next_deployment
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError, ConflictError, InvalidInputError, NotFoundError
from quickcomm.kernel.site_pack import SitePack

EVENTS: Final = 200
EVALUATED: Final[tuple[PromptAction, ...]] = ("evaluated",)
PUT: Final[tuple[PromptAction, ...]] = ("canary", "deployed", "rolled_back")
LIVE, CANARY, BUILT_IN = "live", "canary", "built-in"
SYSTEM: Final = "QuickComm"
FULL: Final = 100
_ID = re.compile(r"[0-9a-f]{4,64}")
NO_MODEL: Final = "No language model is connected. Start the server with --llm-url to evaluate prompts."


class PromptDesk:
    """`deployed.refresh` after each change puts it in force here at once; other processes see it within a second."""

    def __init__(
        self, store: PromptStore, deployed: DeployedPrompts, make: Make, pack: SitePack, clock: Clock, built_in: str
    ) -> None:
        """`built_in`: the text of the built-in version's file."""
        self._store = store
        self._deployed = deployed
        self._make = make
        self._pack = pack
        self._clock = clock
        self._built_in = built_in
        self._examined: Examined | None = None

    def connect(self, examined: Examined | None) -> None:
        """Evaluate on this model from now on (None: on none)."""
        self._examined = examined

    # -- looking ------------------------------------------------------------------------------------------------------

    async def view(self, events: int = EVENTS) -> PromptsView:
        await self._deployed.refresh()
        stored = await self._store.prompts()
        known = {prompt.id: _info(prompt) for prompt in stored}
        built_in = self._deployed.built_in
        known.setdefault(built_in.id, PromptInfo(id=built_in.id, name=built_in.file.name, note=built_in.file.note))
        history = [_event(record, known) for record in await self._store.records(events)]
        now = self._deployed.now
        canary = now.canary
        return PromptsView(
            connected=self._examined is not None,
            model=self._examined.model.model if self._examined is not None else "",
            problem=now.problem,
            live=await self._in_force(now.live, known, FULL - now.weight),
            canary=await self._in_force(canary, known, now.weight) if canary is not None else None,
            versions=tuple(known.values()),
            events=tuple(history),
        )

    async def source(self, name: str) -> StoredPrompt:
        """The text of a version by `live`, `canary`, `built-in`, its id or the beginning of it."""
        built_in = self._as_stored(self._deployed.built_in, self._built_in, SYSTEM)
        await self._deployed.refresh()
        now = self._deployed.now
        if name == CANARY and now.canary is None:
            raise NotFoundError("There is no canary now.")
        canary_id = now.canary.id if now.canary is not None else ""
        wanted = {LIVE: now.live.id, CANARY: canary_id, BUILT_IN: built_in.id}.get(name, name)
        if not _ID.fullmatch(wanted):
            raise NotFoundError(f"{name!r} is no file and no prompt id. Look at `quickcomm prompts list`.")
        found = {
            prompt.id: prompt for prompt in [built_in, *await self._store.prompts()] if prompt.id.startswith(wanted)
        }
        if not found:
            raise NotFoundError(f"There is no prompt {wanted}. Look at `quickcomm prompts list`.")
        if len(found) > 1:
            raise InvalidInputError(f"{wanted} is the beginning of several ids: {', '.join(sorted(found))}.")
        return next(iter(found.values()))

    # -- changing -----------------------------------------------------------------------------------------------------

    async def add(self, source: str, by: str, origin: str = "prompt") -> StoredPrompt:
        """Keep a version that was handed in. Raises `ConfigurationError` for one that cannot be used."""
        version = self._make(source, origin)
        prompt = self._as_stored(version, source, by)
        await self._store.add(prompt, PromptRecord(at_ns=prompt.added_ns, by=by, action="added", prompt_id=prompt.id))
        return prompt

    async def evaluate(
        self, prompt: StoredPrompt, labelled: LabelledSet, by: str, *, concurrency: int, progress: Progress
    ) -> Evaluation:
        """Score it against the live version and keep the numbers. Raises `ModelError`, `ConfigurationError`."""
        if self._examined is None:
            raise ConfigurationError(NO_MODEL)
        await self._deployed.refresh()
        candidate, live = self._deployed.version(prompt), self._deployed.now.live
        evaluator = Evaluator(self._pack, self._examined)
        done = await evaluator.compare(candidate, live, labelled, concurrency=concurrency, progress=progress)
        await self._store.record(
            PromptRecord(
                at_ns=self._clock.now_ns(),
                by=by,
                action="evaluated",
                prompt_id=prompt.id,
                against_id=live.id,
                evidence=done.comparison,
            )
        )
        return done

    async def deploy(self, prompt: StoredPrompt, by: str, *, weight: int = FULL, force: bool = False) -> PromptRecord:
        """Put it on `weight` per cent of the conversations. Raises `ConflictError` where evidence is missing."""
        if not 1 <= weight <= FULL:
            raise InvalidInputError("A canary has 1 to 99 per cent of the conversations.")
        self._deployed.version(prompt)
        await self._deployed.refresh()
        present = await self._present()
        if prompt.id == present.live_id and (weight < FULL or present.canary_id is None):
            raise ConflictError(f"{prompt.id} is the live version already.")
        if (prompt.id, weight) == (present.canary_id, present.weight):
            raise ConflictError(f"{prompt.id} has {weight} % of the conversations already.")
        evaluation = await self._store.newest(prompt.id, EVALUATED)
        objection = "" if prompt.id == present.live_id else self._objection(evaluation, present.live_id)
        if objection and not force:
            raise ConflictError(
                f"Not deployed: {objection} Deploy it all the same with --force; the audit will say so."
            )
        canary = weight < FULL
        record = PromptRecord(
            at_ns=self._clock.now_ns(),
            by=by,
            action="canary" if canary else "deployed",
            prompt_id=prompt.id,
            against_id=present.live_id,
            weight=weight,
            forced=bool(objection),
            note=objection[:1].upper() + objection[1:],
            evidence=evaluation.evidence if evaluation is not None else None,
        )
        following = next_deployment(
            present,
            live_id=present.live_id if canary else prompt.id,
            canary_id=prompt.id if canary else None,
            weight=weight,
        )
        await self._store.deploy(following, record)
        await self._deployed.refresh()
        return record

    async def rollback(self, by: str) -> PromptRecord:
        """Take back the canary, or else the live version in favour of the one before it."""
        present = await self._store.deployment()
        if present is None:
            raise ConflictError("Nothing was deployed yet: there is nothing to go back to.")
        if present.canary_id is not None:
            following = next_deployment(present, live_id=present.live_id)
            note = f"The canary {present.canary_id} was taken back."
        else:
            before = await self._store.deployment_at(present.back_to) if present.back_to is not None else None
            if before is None:
                raise ConflictError(f"{present.live_id} is the first version: there is nothing to go back to.")
            following = PromptDeployment(revision=present.revision + 1, live_id=before.live_id, back_to=before.back_to)
            note = f"{present.live_id} was taken back."
        record = PromptRecord(
            at_ns=self._clock.now_ns(),
            by=by,
            action="rolled_back",
            prompt_id=following.live_id,
            against_id=present.canary_id or present.live_id,
            weight=FULL,
            note=note,
        )
        await self._store.deploy(following, record)
        await self._deployed.refresh()
        return record

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _in_force(self, version: PromptVersion, known: dict[str, PromptInfo], weight: int) -> PromptInForce:
        """With the newest event that put it there."""
        record = await self._store.newest(version.id, PUT)
        info = known.get(version.id) or PromptInfo(id=version.id, name=version.file.name, note=version.file.note)
        return PromptInForce(prompt=info, weight=weight, event=_event(record, known) if record is not None else None)

    async def _present(self) -> PromptDeployment:
        """What is deployed; the first time the built-in version is written down, so that there is a way back to it."""
        present = await self._store.deployment()
        if present is not None:
            return present
        built_in = await self.add(self._built_in, SYSTEM)
        first = PromptDeployment(revision=1, live_id=built_in.id)
        record = PromptRecord(
            at_ns=self._clock.now_ns(),
            by=SYSTEM,
            action="deployed",
            prompt_id=built_in.id,
            weight=FULL,
            note="In force until now.",
        )
        await self._store.deploy(first, record)
        return first

    def _objection(self, evaluation: PromptRecord | None, live_id: str) -> str:
        """Why the evidence does not carry a deployment; empty where it does."""
        if evaluation is None or evaluation.evidence is None:
            return "it was never evaluated. Do it with `quickcomm prompts evaluate`."
        evidence = evaluation.evidence
        if evidence.against_id != live_id:
            return (
                f"its newest evaluation is against {evidence.against_id}, but {live_id} is live now. Evaluate it again."
            )
        model = self._examined.model.model if self._examined is not None else ""
        if model not in ("", evidence.model):  # empty: none is connected, or it has not told its name yet
            return f"it was evaluated on {evidence.model}, but {model} is connected now."
        if evidence.falls_below:
            return f"on {evidence.set_name}, {'; '.join(evidence.falls_below)}."
        return ""

    def _as_stored(self, version: PromptVersion, source: str, by: str) -> StoredPrompt:
        return StoredPrompt(
            id=version.id,
            name=version.file.name,
            note=version.file.note,
            source=source,
            added_ns=self._clock.now_ns(),
            added_by=by,
        )


def _info(prompt: StoredPrompt) -> PromptInfo:
    return PromptInfo(
        id=prompt.id, name=prompt.name, note=prompt.note, added_at=_time(prompt.added_ns), added_by=prompt.added_by
    )


def _event(record: PromptRecord, known: dict[str, PromptInfo]) -> PromptEvent:
    return PromptEvent(
        at=_time(record.at_ns),
        by=record.by,
        action=record.action,
        prompt_id=record.prompt_id,
        name=known[record.prompt_id].name if record.prompt_id in known else "",
        against_id=record.against_id,
        weight=record.weight,
        forced=record.forced,
        note=record.note,
        evidence=record.evidence,
    )


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
