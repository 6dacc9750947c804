"""The check that a site makes by itself, now and then, of what was said lately: a metric, and lines on the page."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prometheus_client import Gauge

from quickcomm.contracts.commands import Command
from quickcomm.contracts.health import Alarm
from quickcomm.kernel.checking.checker import Checker, CheckOptions, Report
from quickcomm.kernel.checking.compare import Finding
from quickcomm.kernel.checking.repairs import DEAD_LETTER
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.rpc.local import LocalRpc
from quickcomm.kernel.messaging.rpc.port import Answer
from quickcomm.kernel.runtime.alarms import rfc3339
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.settings import CheckSettings

PAGE: Final = 500
HOUR_NS: Final = 3_600 * 10**9
MINUTE_S: Final = 60.0
WORDS: Final = {
    "card.missing": "have no card",
    "insights.missing": "have no insights",
    "insights.unrecorded": "have insights that intelligence does not know of",
    "answer.missing": "have no answer in the log of their conversation",
    "task.missing": "have not opened their task",
    "task.orphan": "have a task and no card",
    "decision.unfolded": "do not show what was decided about them",
    "copy.orphan": "are copies of what is not there",
    "recording.missing": "have no recording",
    "erased.present": "were erased, and are there",
    "ledger.unbalanced": "have a ledger that does not add up",
    "ledger.differs": "have another ledger on the page than in audio",
    "end.missing": "have ended, and not on the page",
    "backlog.stuck": "have messages that wait for more than a minute",
    "operation.parked": "wait for an operator",
    "operation.stuck": "get no further",
}
FINDINGS: Final = Gauge("quickcomm_check_findings", "What the last check found, by kind.", ["kind"])
UTTERANCES: Final = Gauge("quickcomm_check_utterances", "Utterances that the last check compared.")
SECONDS: Final = Gauge("quickcomm_check_seconds", "How long the last check took, with its rests.")

log = structlog.get_logger(__name__)


class SiteCheck:
    """Checks what changed in the last hours, every so many minutes."""

    def __init__(
        self, rpc: LocalRpc, letters: Sequence[Answer], clock: Clock, settings: CheckSettings, retention_days: int
    ) -> None:
        """`letters`: who answers here about messages, also where operators ask another process."""
        self._rpc = rpc
        self._letters: dict[type[Any], Callable[[Any], Awaitable[Any]]] = dict(letters)
        self._clock = clock
        self._settings = settings
        self._options = CheckOptions(
            page=PAGE, share=settings.share, settle_s=settings.settle_s, retention_days=retention_days
        )
        self._report = Report()

    def part(self) -> Part:
        """Return this as a part of a process."""
        work = {"check": self.run} if self._settings.every_minutes else {}
        return Part(name="check", work=work, alarms=self.alarms)

    async def run(self) -> None:
        """Check again and again, until cancelled."""
        while True:
            await self._clock.sleep(self._settings.every_minutes * MINUTE_S)
            try:
                await self.check()
            except Exception:  # the server goes on, whatever a broken row makes of its check
                log.exception("check.failed")

    async def check(self) -> Report:
        """Check once, and remember what was found."""
        since_ns = self._clock.now_ns() - int(self._settings.hours * HOUR_NS)
        checker = Checker(self._ask, self._clock, self._options)
        self._report = await checker.run(await checker.recent(since_ns))
        counts = Counter(finding.code for finding in self._report.findings)
        for kind in (*WORDS, DEAD_LETTER):
            FINDINGS.labels(kind).set(counts[kind])
        UTTERANCES.set(self._report.utterances)
        SECONDS.set(self._report.seconds)
        told = {"utterances": self._report.utterances, "seconds": self._report.seconds, "findings": dict(counts)}
        tell = log.warning if counts else log.info
        tell("check.finished", **told, unavailable=sorted(self._report.unavailable))
        return self._report

    def alarms(self) -> Iterable[Alarm]:
        """Return a line for each kind of finding; dead letters have an alarm of their own."""
        kinds: dict[str, list[Finding]] = {}
        for finding in self._report.findings:
            kinds.setdefault(finding.code, []).append(finding)
        return [_alarm(code, found) for code, found in kinds.items() if code != DEAD_LETTER]

    async def _ask(self, request: Command, /) -> Any:
        answer = self._letters.get(type(request))
        return await (self._rpc.call(request) if answer is None else answer(request))


def _alarm(code: str, found: Sequence[Finding]) -> Alarm:
    """Say how many there are, and name the first."""
    first = found[0]
    since = datetime.fromtimestamp(first.since_ns / 1e9, UTC)
    message = f"{len(found)} {WORDS.get(code, code)}, such as {first.id or first.event}. See: quickcomm check"
    return Alarm(code=f"check.{code}", message=message, since=rfc3339(since))
