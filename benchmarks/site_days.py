"""Days of sites that are made up: the noisy metrics of a monolith, from its load, unit costs and a seed.

A site is given one machine. What that cannot carry is turned away, as the server does. `python -m benchmarks.site_days`
writes the days that come with QuickComm as samples, of which each tenth minute is kept.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from quickcomm.capacity.model.load import DAY_H, Level, Load
from quickcomm.capacity.model.samples import Sample

MENU: Final = (2, 4, 6, 8, 12, 16)
"""Cores of the machines that there are."""
GB_OF_CORE: Final = 4.0
STEP_S: Final = 60
FULL: Final = 0.98
WRITE_S: Final = 0.004
"""The database's writer, for an utterance."""
API_S: Final = 0.8
"""How long a model elsewhere takes for an utterance."""
MODEL_SLOTS: Final = 8.0
TOLD_APART: Final = {"audio": 0.95, "intelligence": 0.6, "dashboard": 0.4}
"""Share of a module's CPU that has threads of its own; the rest is in the event loop and the database's writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of a core, and of the loop's one core, for one of each; close to docs/benchmarks.md."""

    speech_s: float = 0.038
    silent_channel: float = 0.00037
    utterance: float = 0.012
    model_utterance: float = 0.008
    query: float = 0.0016
    page: float = 0.002
    gpu_s: float = 0.15
    """Of one GPU, for an utterance that the model is asked about."""
    page_loop: float = 0.0008
    """Of the cores above, in the event loop."""
    memory_mb: float = 700.0
    conversation_mb: float = 0.3


@dataclass(frozen=True, slots=True)
class Need:
    """Cores by module; `loop`: of one core, by module as well; `gpus`: busy ones."""

    cores: dict[str, float]
    loop: dict[str, float]
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """`gpu`: the model runs on a GPU of the site's own. `others`: cores that other programs take."""

    load: Load
    cores: int
    gpu: bool = False
    costs: Costs = field(default_factory=Costs)
    restarts: int = 0
    others: float = 0.0
    stt_share: float = 0.35
    store_share: float = 0.15
    """Of its budget, that a stage takes while nothing waits."""
    seed: int = 0

    def need(self, level: Level) -> Need:
        costs, load = self.costs, self.load
        speech = level.conversations * level.speech
        utterances = speech / load.utterance_s
        asked = utterances * load.model
        cores = {
            "audio": speech * costs.speech_s + level.conversations * costs.silent_channel,
            "intelligence": utterances * costs.utterance + asked * costs.model_utterance,
            "dashboard": level.queries_per_s * costs.query + level.pages * costs.page,
        }
        loop = {
            "audio": level.conversations * costs.silent_channel / 2 + speech * costs.speech_s * 0.05,
            "intelligence": asked * costs.model_utterance / 2,
            "dashboard": level.queries_per_s * costs.query / 4 + level.pages * costs.page_loop,
        }
        return Need(cores, loop, asked * costs.gpu_s if self.gpu else 0.0)


def samples(site: Site) -> Iterator[Sample]:
    """Yield a day, a sample a minute, a few of them missing. The same site gives the same day."""
    chance = np.random.default_rng(site.seed)
    starts = sorted(chance.uniform(8, 20, site.restarts).tolist())
    totals: dict[str, float] = {}
    started = 0
    for minute in range(round(DAY_H * 60)):
        if started < len(starts) and minute / 60 >= starts[started]:
            started, totals = started + 1, {}
        rates, levels = _minute(site, minute / 60, chance)
        for name, rate in rates.items():
            totals[name] = totals.get(name, 0.0) + rate * STEP_S
        if chance.random() < 0.02:  # a sample that was not taken
            continue
        yield Sample(
            at=float(minute * STEP_S),
            process="monolith",
            module="monolith",
            started_at=starts[started - 1] * 3_600 if started else -3_600.0,
            totals={name: round(value, 3) for name, value in totals.items()},
            levels={name: round(value, 4) for name, value in levels.items()},
        )


def _minute(site: Site, hour: float, chance: np.random.Generator) -> tuple[dict[str, float], dict[str, float]]:
    """Return rates a second, and levels."""

    def noisy(value: float) -> float:
        return float(value * chance.lognormal(0.0, 0.1))

    level, load = site.load.at(hour), site.load
    swing = noisy(1.0) * (load.burst if chance.random() < 0.05 else 1.0)
    need = site.need(level)
    loop = swing * sum(need.loop.values())
    carried = min(1.0, FULL * (site.cores - site.others) / (swing * sum(need.cores.values()) + 1e-9), FULL / loop)
    took = swing * carried
    cores = {name: value * took for name, value in need.cores.items()}
    wait = 1 / max(0.02, 1 - (sum(cores.values()) + site.others) / site.cores)
    lag = 0.002 / (1 - min(FULL, loop)) ** 2
    utterances = level.conversations * level.speech * took / load.utterance_s
    rates = {f"cpu.{name}": noisy(value * TOLD_APART[name]) for name, value in cores.items()}
    rates["cpu.shared"] = noisy(sum(value * (1 - TOLD_APART[name]) for name, value in cores.items()))
    rates |= {
        "machine_cpu": min(float(site.cores), sum(rates.values()) + noisy(site.others)),
        "speech": noisy(utterances * load.utterance_s),
        "utterances": noisy(utterances),
        "queries": noisy(level.queries_per_s * swing),
        "database": noisy(min(1.0, utterances * WRITE_S)),
        "loop": min(1.0, noisy(loop * carried)),
        "lag": noisy(2 * lag),
        "wakes": 2.0,
        "refused": round(10 * (1 - carried)) / 60,
    }
    levels = {
        "cores": float(site.cores),
        "machine_memory_mb": site.cores * GB_OF_CORE * 1e3,
        "memory_mb": noisy(site.costs.memory_mb + site.costs.conversation_mb * level.conversations),
        "conversations": round(level.conversations * min(1.0, carried)),
        "pages": round(level.pages),
        "used.stt": min(20.0, noisy(site.stt_share * wait)),
        "used.store": min(20.0, noisy(site.store_share * wait)) + lag / 0.2,
        "gpus": float(site.gpu),
    }
    if load.model:
        levels["model_slots"] = MODEL_SLOTS
        rates["model"] = noisy(MODEL_SLOTS * min(0.99, need.gpus * took) if site.gpu else utterances * API_S)
    return rates, levels


def day(name: str, most: float, **other: float) -> Load:
    """Return the day of a house: quiet at night, most in the morning and the evening.

    `other`: `speech`, `pages`, `queries_per_s` at the busiest; `model`, `burst` as in `Load`; `late`: 1 where pages
    and queries have their hour at night.
    """
    speech, late = other.get("speech", 0.3), bool(other.get("late"))

    def level(at_h: float, share: float) -> Level:
        looks = share if not late else 1.1 - share
        return Level(
            at_h=at_h,
            conversations=most * share,
            speech=speech,
            pages=other.get("pages", 2.0) * looks,
            queries_per_s=other.get("queries_per_s", 0.5) * looks,
        )

    shares = ((0.0, 0.1), (5.0, 0.15), (8.0, 0.9), (11.0, 1.0), (14.0, 0.7), (18.0, 1.0), (22.0, 0.3))
    return Load(
        name=name,
        level=tuple(level(at_h, share) for at_h, share in shares),
        model=other.get("model", 0.0),
        burst=other.get("burst", 1.0),
    )


DAYS: Final = {
    "small-hotel": Site(
        load=day("small hotel", 12, model=0.0, pages=3.0, queries_per_s=0.3), cores=2, restarts=1, seed=7
    ),
    "resort": Site(
        load=day("resort", 1_500, model=1.0, pages=60.0, queries_per_s=8.0, burst=1.3),
        cores=16,
        gpu=True,
        costs=Costs(gpu_s=0.006),
        restarts=2,
        seed=8,
    ),
    "event": Site(
        load=day("event", 880, speech=0.35, pages=80.0, queries_per_s=20.0),
        cores=16,
        costs=Costs(silent_channel=0.0001),
        stt_share=0.05,
        store_share=0.5,
        seed=9,
    ),
}
"""By the name of the sample."""
FOLDER: Final = Path(__file__).parents[1] / "src/quickcomm/capacity/samples/days"


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, site in DAYS.items():
        lines = [msgspec.json.encode(each) + b"\n" for each in samples(site) if each.at % 600 == 0]
        (FOLDER / f"{name}.jsonl").write_bytes(b"".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
