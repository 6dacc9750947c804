"""The one scaling policy: how many processes audio and intelligence should have, and why.

Pure: `decide` takes a reading and what it remembers, and gives what is wanted and what to remember next. Used by
`quickcomm simulate` and `quickcomm up --autoscale`. Up at once, down one by one after a calm while.
"""

import math
from typing import Annotated, Final, NamedTuple

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
READ_EVERY_S: Final = 5.0
"""How often the policy is asked."""
FEW_MESSAGES: Final = 10
"""With fewer, a lag is one slow or broken message, which more processes do not speed up."""
GROWTH: Final = 2
"""By what waits, a module at most doubles at once."""
LEAST_LEARNT: Final = 0.5
"""Of what the rule says that one process bears: a hiccup must not teach that it bears next to nothing."""
LEARNT_FOR_S: Final = 3_600.0


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a module has too few processes. `least`, `most`: never fewer or more."""

    talkers: Positive
    """Talkers that one process bears; of audio: one decode worker."""
    behind_s: Positive
    """Above it there are too few: seconds of sound that wait for one worker; seconds of stream lag."""
    least: Count = 1
    most: Count = 8

    def __post_init__(self) -> None:
        """Raise `ValueError` where `most` is below `least`."""
        if self.most < self.least:
            message = f"most {self.most} is below least {self.least}"
            raise ValueError(message)


class ScalingPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    audio: Rule = Rule(talkers=16.0, behind_s=20.0)
    """48 continuous talkers are the most of two workers (docs/benchmarks.md); 16 each leave room for bursts."""
    intelligence: Rule = Rule(talkers=100.0, behind_s=2.0)
    slack: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.7
    """Fewer are enough if they would have no more than this share of what they bear."""
    settle_s: float = 30.0
    """So long after growing, what waits is no reason to grow again: new processes start, and catch up."""
    calm_s: float = 120.0
    """So long must fewer be enough before one is stopped; the next one again."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A site at one time. Processes: those that run or start. `at_s`: seconds of any clock that only rises."""

    at_s: float
    talkers: float
    """Conversations in which somebody spoke in the last ten seconds."""
    audio: int
    workers: int
    """Decode workers of one process of audio."""
    backlog_s: float
    """Seconds of finished speech that wait for a worker, in all processes."""
    intelligence: int
    lag_s: float
    """Age of the oldest transcript that nothing has begun to understand."""
    lag_messages: int


class Wanted(msgspec.Struct, frozen=True):
    processes: int
    why: str


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one module. Times as `Reading.at_s`."""

    calm_since: float | None = None
    grown_at: float = -math.inf
    bears: float = math.inf
    """Talkers a process that were too many, learnt at `learnt_at`. Without it, a machine slower than the rule assumes
    would lose a process whenever it has caught up, and fall behind again."""
    learnt_at: float = -math.inf


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    audio: Past = Past()
    intelligence: Past = Past()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`memory`: to be given to the next `decide`."""

    audio: Wanted
    intelligence: Wanted
    memory: Memory


class _Module(NamedTuple):
    """A module as `_decide` sees it. `units`: what bears talkers in one process."""

    rule: Rule
    processes: int
    units: int
    behind_s: float
    behind: str


def decide(policy: ScalingPolicy, reading: Reading, memory: Memory) -> Decision:
    """Return the processes wanted of each module, with the reason in words."""
    workers = max(1, reading.audio * reading.workers)
    audio = _Module(
        policy.audio,
        reading.audio,
        max(1, reading.workers),
        reading.backlog_s / workers,
        f"{reading.backlog_s:.0f} s of sound wait for {workers} decode workers",
    )
    lag_s = reading.lag_s if reading.lag_messages >= FEW_MESSAGES else 0.0
    waiting = f"{reading.lag_messages} transcripts wait, the oldest for {reading.lag_s:.1f} s"
    intelligence = _Module(policy.intelligence, reading.intelligence, 1, lag_s, waiting)
    of_audio, audio_past = _decide(policy, audio, reading, memory.audio)
    of_intelligence, intelligence_past = _decide(policy, intelligence, reading, memory.intelligence)
    return Decision(
        audio=of_audio,
        intelligence=of_intelligence,
        memory=Memory(audio=audio_past, intelligence=intelligence_past),
    )


def _decide(policy: ScalingPolicy, module: _Module, reading: Reading, past: Past) -> tuple[Wanted, Past]:
    rule, now, talkers = module.rule, reading.at_s, reading.talkers
    bears = rule.talkers * module.units
    if now - past.learnt_at < LEARNT_FOR_S:
        bears = min(bears, max(past.bears, LEAST_LEARNT * bears))
    there = min(max(module.processes, rule.least), rule.most)
    for_talkers = math.ceil(talkers / bears)
    may_grow = now - past.grown_at >= policy.settle_s
    pushed = may_grow and module.behind_s > rule.behind_s
    for_behind = min(GROWTH * there, math.ceil(there * module.behind_s / rule.behind_s)) if pushed else 0
    wanted = min(rule.most, max(there, for_talkers, for_behind))
    if wanted > there:
        if for_behind > for_talkers:
            past = msgspec.structs.replace(past, bears=talkers / there, learnt_at=now)
        why = module.behind if for_behind > for_talkers else f"{talkers:.0f} talkers, and a process bears {bears:.0f}"
        return Wanted(wanted, why), msgspec.structs.replace(past, calm_since=None, grown_at=now)
    if there != module.processes:
        return Wanted(there, f"{rule.least} to {rule.most} are allowed"), past
    enough = math.ceil(talkers / (policy.slack * bears))
    calm = there > max(rule.least, enough) and module.behind_s <= rule.behind_s / 4
    if not calm:
        full = pushed or for_talkers > there
        return Wanted(there, "no more are allowed" if full else "enough"), msgspec.structs.replace(
            past, calm_since=None
        )
    since = now if past.calm_since is None else past.calm_since
    if now - since < policy.calm_s or now - past.grown_at < policy.calm_s:
        return Wanted(there, "more than enough, not for long yet"), msgspec.structs.replace(past, calm_since=since)
    why = f"{talkers:.0f} talkers for {now - since:.0f} s: {there - 1} are enough"
    return Wanted(there - 1, why), msgspec.structs.replace(past, calm_since=now)
