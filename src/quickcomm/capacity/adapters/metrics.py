"""Turns the metrics of a process, in Prometheus' text format, into a sample."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as Series

from quickcomm.capacity.model.findings import MODULES, SHARED
from quickcomm.capacity.model.samples import Sample
from quickcomm.kernel.errors import InvalidInputError

TOTALS: Final = {
    "quickcomm_machine_cpu_seconds_total": "machine_cpu",
    "quickcomm_speech_seconds_total": "speech",
    "quickcomm_queries_total": "queries",
    "quickcomm_llm_call_seconds_sum": "model",
    "quickcomm_database_writer_seconds_total": "database",
    "quickcomm_loop_lag_seconds_sum": "lag",
    "quickcomm_loop_lag_seconds_count": "wakes",
    "quickcomm_conversations_refused_total": "refused",
}
LEVELS: Final = {
    "quickcomm_machine_cores": ("cores", 1.0),
    "quickcomm_machine_memory_bytes": ("machine_memory_mb", 1e-6),
    "process_resident_memory_bytes": ("memory_mb", 1e-6),
    "quickcomm_conversations_connected": ("conversations", 1.0),
    "quickcomm_live_clients": ("pages", 1.0),
    "quickcomm_llm_concurrency_limit": ("model_slots", 1.0),
}
"""Names and the factor to the unit of the sample."""
WORKS: Final = {"speech": "audio", "understanding": "intelligence", "reading": "dashboard"}
"""Whose the work of a monolith's threads is. Of the rest it is not known."""
READ_EVERY_S: Final = 300.0
"""A monitor that calls somebody reads the metrics at least so often."""
OLD_ENOUGH_S: Final = 1_800.0
"""A process that has just started was not read often yet."""


def sample_of(text: str, at: float, process: str, module: str, *, machine: str = "") -> Sample:
    """Return a sample of a process. Raises `InvalidInputError` where the text is none of a QuickComm process."""
    try:
        series = [each for family in text_string_to_metric_families(text) for each in family.samples]
    except ValueError as error:
        raise InvalidInputError(f"Not metrics in Prometheus' text format: {error}") from error
    found = {each.name: each.value for each in series if not _labels(each)}
    started_at = found.get("process_start_time_seconds")
    if started_at is None:
        raise InvalidInputError("These metrics lack process_start_time_seconds; they are of no QuickComm on Linux.")
    totals = {name: found[metric] for metric, name in TOTALS.items() if metric in found}
    totals |= _utterances(series) | _cpu(series, found, module)
    levels = {name: found[metric] * factor for metric, (name, factor) in LEVELS.items() if metric in found}
    levels |= _stages(series) | _alerts(found, at - started_at)
    return Sample(
        at=at,
        process=process,
        module=module,
        started_at=started_at,
        machine=machine,
        totals=totals,
        levels={name: round(value, 4) for name, value in levels.items()},
    )


def _labels(series: Series) -> Mapping[str, str]:
    """Return the labels, but for the side of a migration."""
    return {name: value for name, value in series.labels.items() if name != "side"}


def _utterances(series: list[Series]) -> dict[str, float]:
    """Return how many utterances were understood, whichever side did it."""
    name, label = "quickcomm_stage_seconds_count", {"stage": "classify"}
    found = [each.value for each in series if each.name == name and _labels(each) == label]
    return {"utterances": sum(found)} if found else {}


def _cpu(series: list[Series], found: Mapping[str, float], module: str) -> dict[str, float]:
    """Return CPU seconds by module: of a service all is its own, of a monolith what its threads tell apart."""
    if module in MODULES:
        return {f"cpu.{module}": found["process_cpu_seconds_total"]} if "process_cpu_seconds_total" in found else {}
    totals: defaultdict[str, float] = defaultdict(float)
    for each in series:
        if each.name == "quickcomm_work_cpu_seconds_total":
            work = each.labels["work"]
            totals[f"cpu.{WORKS.get(work, SHARED)}"] += each.value
            if work == "loop":
                totals["loop"] = each.value
    if not totals and "process_cpu_seconds_total" in found:
        totals[f"cpu.{SHARED}"] = found["process_cpu_seconds_total"]
    return dict(totals)


def _stages(series: list[Series]) -> dict[str, float]:
    """Return the share of its budget that each stage took, the worst of both sides."""
    levels: defaultdict[str, float] = defaultdict(float)
    for each in series:
        if each.name == "quickcomm_budget_used_ratio":
            name = f"used.{each.labels['stage']}"
            levels[name] = max(levels[name], each.value)
    return dict(levels)


def _alerts(found: Mapping[str, float], age_s: float) -> dict[str, float]:
    """Return whether something reads the metrics, where the process is old enough to tell."""
    reads = found.get("quickcomm_metrics_reads_total")
    if reads is None or age_s < OLD_ENOUGH_S:
        return {}
    return {"ready.alerts": float(reads / age_s >= 1 / READ_EVERY_S)}
