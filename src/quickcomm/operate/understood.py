"""Who understood an utterance, in words: the model, its prompt version, who put that in force, and the way back."""

from collections.abc import Sequence
from typing import Any, Final

from quickcomm.contracts.prompts import PromptEvent

IN_FORCE: Final = frozenset({"canary", "deployed", "rolled_back"})
"""What is done to a version that conversations have from then on."""
BACK: Final = "quickcomm prompts rollback"
Row = dict[str, Any]


def understood_words(understood: Row, versions: Sequence[Row], events: Sequence[PromptEvent]) -> str:
    """Return a sentence or two. `understood`: of `GetTrace`; `versions`: of `ListPrompts`; `events`: newest first."""
    side = f", {understood['side']} side" if understood["side"] else ""
    version = understood["prompt_version"]
    by = "language model" if understood["source"] == "llm" else "local classifier"
    words = f"Understood by the {by} {understood['model']} (of intelligence{side})"
    if version is None:
        return f"{words}."
    event = _event(version, events)
    state = next((row for row in versions if row["id"] == version), None)
    share = f", canary for {state['weight']} % of the conversations" if state and state["state"] == "canary" else ""
    said = [f"{words} with prompt {_named(version, versions)}{share}"]
    if event is not None:
        forced = ", without the evidence of an evaluation" if event.forced else ""
        said.append(f"in force since {event.at} by {event.by}{forced}")
    if (before := _before(version, events)) is not None:
        said.append(f"before it: {_named(before, versions)}")
    ended = "" if state is None or state["state"] else " It is not in force any more."
    return f"{'; '.join(said)}.{ended}"


def way_back(understood: Row, versions: Sequence[Row], events: Sequence[PromptEvent]) -> str:
    """Return the command that takes the version of a card out of force; empty where there is none."""
    version = understood["prompt_version"]
    state = next((row["state"] for row in versions if row["id"] == version), "")
    has_canary = any(row["state"] == "canary" for row in versions)
    before = _before(version, events) if version else None
    if state == "canary" or (state == "live" and before and not has_canary):
        return BACK
    return f"quickcomm prompts deploy {before} --force" if state == "live" and before else ""


def _event(version: str, events: Sequence[PromptEvent]) -> PromptEvent | None:
    return next((each for each in events if each.prompt_id == version and each.action in IN_FORCE), None)


def _before(version: str, events: Sequence[PromptEvent]) -> str | None:
    """Return the version that was live before this one came; None where it was the first."""
    came = (each for each in events if each.prompt_id == version and each.action in {"canary", "deployed"})
    return next((each.against_id for each in came), None)


def _named(version: str, versions: Sequence[Row]) -> str:
    name = next((row["name"] for row in versions if row["id"] == version), "")
    return f"{version} “{name}”" if name else version
