"""Which prompt version a conversation has now: what the store says, read again each second, sticky by bucket."""

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.identity import bucket
from quickcomm.intelligence.ports import PromptDeployment, PromptStore, StoredPrompt
from quickcomm.intelligence.service.prompt_version import PromptVersion
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError, NotFoundError, QuickCommError

POLL_S: Final = 1.0
MODULE: Final = "prompts"
BUCKETS_PER_CENT: Final = 100

Make = Callable[[str, str], PromptVersion]
"""(source, origin) → a version. Raises `ConfigurationError`."""

log = structlog.get_logger(__name__)


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What is used at this moment; replaced as a whole. `revision` 0: nothing was ever deployed."""

    live: PromptVersion
    canary: PromptVersion | None = None
    weight: int = 0
    revision: int = 0
    problem: str = ""


class DeployedPrompts:
    """Implements `ports.Prompts`. One a process; `run` keeps it level with the store."""

    def __init__(self, store: PromptStore, built_in: PromptVersion, make: Make, clock: Clock) -> None:
        self._clock = clock
        self._store = store
        self._make = make
        self.built_in = built_in
        self.now = InForce(live=built_in)
        self._deployment: PromptDeployment | None = None

    def of(self, conversation_id: str) -> PromptVersion:
        now = self.now
        if now.canary is not None and in_canary(conversation_id, now.weight):
            return now.canary
        return now.live

    async def refresh(self) -> None:
        """Take over what the store says, if that is new. What cannot be used leaves the last good version in force."""
        deployment = await self._store.deployment()
        if deployment is None or deployment == self._deployment:
            return
        stored = {prompt.id: prompt for prompt in await self._store.prompts()}
        live, problem = self._usable(deployment.live_id, stored)
        canary = None
        if deployment.canary_id is not None:
            canary, other = self._usable(deployment.canary_id, stored)
            problem = problem or other
        self._deployment = deployment
        self.now = InForce(
            live=live or self.now.live,
            canary=canary,
            weight=deployment.weight if canary is not None else 0,
            revision=deployment.revision,
            problem=problem,
        )

    async def run(self) -> None:
        """Look each second, until cancelled."""
        told = 0
        while True:
            try:
                await self.refresh()
            except QuickCommError as error:
                log.warning("prompts.not_read", error=str(error))
            now = self.now
            if now.revision != told:
                told = now.revision
                log.info("prompts.in_force", live=now.live.id, canary=now.canary and now.canary.id, weight=now.weight)
                if now.problem:
                    log.warning("prompts.broken", problem=now.problem)
            await self._clock.sleep(POLL_S)

    def version(self, prompt: StoredPrompt) -> PromptVersion:
        """Raises `ConfigurationError` where the stored text is no prompt (any more)."""
        made = self._make(prompt.source, f"prompt {prompt.id}")
        if made.id != prompt.id:
            raise ConfigurationError(f"prompt {prompt.id}: what is stored is not what was stored; its id is {made.id}.")
        return made

    def _usable(self, prompt_id: str, stored: dict[str, StoredPrompt]) -> tuple[PromptVersion | None, str]:
        """The version, or None and why not."""
        known = (self.built_in, self.now.live, self.now.canary)
        for version in known:
            if version is not None and version.id == prompt_id:
                return version, ""
        try:
            if prompt_id not in stored:
                raise NotFoundError(f"prompt {prompt_id}: it is deployed, but not stored.")
            return self.version(stored[prompt_id]), ""
        except QuickCommError as error:
            return None, f"The deployed prompt {prompt_id} cannot be used; the last good one is kept. {error}"


def in_canary(conversation_id: str, weight: int) -> bool:
    """Whether a conversation belongs to the first `weight` per cent: the same ones always, and more as it grows."""
    return bucket(MODULE, conversation_id) < weight * BUCKETS_PER_CENT


def next_deployment(
    present: PromptDeployment, *, live_id: str, canary_id: str | None = None, weight: int = 0
) -> PromptDeployment:
    """What follows on the present one. A new live version can be rolled back to the one before it."""
    return PromptDeployment(
        revision=present.revision + 1,
        live_id=live_id,
        canary_id=canary_id,
        weight=weight if canary_id is not None else 0,
        back_to=present.revision if live_id != present.live_id else present.back_to,
    )
