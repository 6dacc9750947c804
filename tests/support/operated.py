"""What became of operations that were disturbed: whether any is half-done, or had one of its effects twice."""

import asyncio
import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
from tests.support.operating import OVER, PLANTED, Asked, Asker
from tests.support.receiver import Receiver
from tests.support.remains import forms
from tests.support.server import quickcomm
from tests.support.site import Site

from quickcomm.contracts.correcting import first_revision
from quickcomm.contracts.decisions import archive_subject, dispatch_subject, text_subject
from quickcomm.kernel.saga import Progress
from quickcomm.operations.definitions import OPERATIONS

Json = dict[str, Any]
STATUSES: Final = ("done", "compensated", "parked")


class Outcome(msgspec.Struct, kw_only=True):
    """`kinds`: of each kind of operation how many were asked for, came to rest how, and were asked for again."""

    kinds: dict[str, dict[str, int]] = {}
    half_done: list[str] = []
    doubled: list[str] = []
    refused: list[str] = []
    """Requests that were answered by what is no outcome."""
    check: list[str] = []
    """Findings of `quickcomm check`."""

    @property
    def faults(self) -> dict[str, int]:
        names = ("half_done", "doubled", "refused", "check")
        return {name: len(found) for name in names if (found := getattr(self, name))}


class Proof:
    """Looks at a site where nothing is under way any more."""

    def __init__(self, site: Site, asker: Asker, receiver: Receiver, taken: set[str]) -> None:
        """`taken`: the ids of notices that the receiver has accepted."""
        self._site = site
        self._asker = asker
        self._receiver = receiver
        self._taken = taken
        self.found = Outcome()

    async def of(self, wanted: Sequence[Asked], folders: Sequence[Path], settle_s: float = 10.0) -> Outcome:
        """`folders`: where the files of the site are in which nothing may be left of what was erased."""
        journal = await asyncio.to_thread(operations, self._site)
        versions = await asyncio.to_thread(decided, self._site)
        for progress in journal:
            if progress.status not in OVER:
                self.found.half_done.append(f"{progress.operation} of {progress.subject} is {progress.status}")
            self._steps(progress)
        about: defaultdict[str, list[Progress]] = defaultdict(list)
        for progress in journal:
            about[progress.subject.partition("#")[0]].append(progress)
        erased = [progress for progress in journal if progress.operation == "erase"]
        for asked in wanted:
            mine = about[_subject(asked)]
            self._count(asked, mine, erased)
            match asked.kind:
                case "close":
                    await self._closed(asked, mine, versions)
                case "correct":
                    await self._corrected(asked, mine, versions)
                case "dispatch":
                    await self._dispatched(asked, mine, versions)
                case _:
                    await self._erased(asked)
        if all(asked.status == "done" for asked in wanted if asked.kind == "erase"):
            for place in await asyncio.to_thread(places, folders, PLANTED):
                self.found.half_done.append(f"erase: planted words are left in {place}")
        self.found.check = await asyncio.to_thread(findings, self._site, settle_s)
        return self.found

    # -- inside -----------------------------------------------------------------------------------------------------

    def _count(self, asked: Asked, mine: Sequence[Progress], erased: Sequence[Progress]) -> None:
        row = self.found.kinds.setdefault(
            asked.kind,
            {"asked": 0, "done": 0, "compensated": 0, "parked": 0, "resumed": 0, "asked_again": 0, "operations": 0},
        )
        done = asked.status == "done" if asked.kind == "erase" else any(each.status == "done" for each in mine)
        row["asked"] += 1
        row["done" if done else asked.status if asked.status in STATUSES else "compensated"] += 1
        row["parked"] += any(event.what == "parked" for each in mine for event in each.history)
        row["resumed"] += asked.resumed
        row["asked_again"] += asked.asked - 1
        row["operations"] = len(erased) if asked.kind == "erase" else row["operations"] + len(mine)
        if asked.refused:
            self.found.refused.append(f"{asked.kind} of {asked.conversation_id}: {asked.refused}")

    def _steps(self, progress: Progress) -> None:
        """An operation that is done has had each step once, in its order."""
        done = [event.step for event in progress.history if event.what == "done"]
        steps = [step.name for step in OPERATIONS[progress.operation].steps]
        if progress.status == "done" and done != steps:
            self._half(progress.operation, progress.subject, f"its steps were {done}")

    async def _closed(self, asked: Asked, mine: Sequence[Progress], versions: Mapping[str, int]) -> None:
        kept = await self._get(f"/v1/conversations/{asked.conversation_id}")
        tasks = await self._tasks(asked)
        is_done = any(each.status == "done" for each in mine)
        if len([each for each in mine if each.status == "done"]) > 1:
            self._double(asked, "it was closed twice")
        if is_done != (kept["archived_at"] is not None):
            self._half("close", asked.conversation_id, f"archived at {kept['archived_at']}")
        if is_done and (kept["state"] != "ended" or kept["summary"] is None):
            self._half("close", asked.conversation_id, f"{kept['state']}, summary {kept['summary']}")
        if kept["summary"] is not None and kept["summary"]["revision"] > asked.summary + 1:
            self._double(asked, f"summary {asked.summary} became {kept['summary']['revision']}")
        changed = is_done and asked.tasks != "keep"
        for task in tasks:
            ends = {"close": task["status"] == "done", "hand_over": task["assignee"] == asked.person}
            untouched = task["status"] == "open" and task["assignee"] is None
            if not (ends[asked.tasks] if changed else untouched):
                self._half("close", asked.conversation_id, f"{asked.tasks}, and a task is {_told(task)}")
            if task["version"] != int(changed):
                self._double(asked, f"{asked.tasks}, and a task is {_told(task)}")
        self._decided(asked, mine, versions, archive_subject(asked.conversation_id), ("archive",))

    async def _corrected(self, asked: Asked, mine: Sequence[Progress], versions: Mapping[str, int]) -> None:
        card = await self._get(f"/v1/utterances/{asked.utterance_id}")
        numbers = [int(each.subject.rpartition("#")[2]) for each in mine]
        done = [number for number, each in zip(numbers, mine, strict=True) if each.status == "done"]
        if bool(done) != (card["text"] == asked.text):
            self._half("correct", asked.utterance_id, f"the text is {card['text']!r}")
        if len(done) > 1 or text_subject(asked.utterance_id, len(mine) + 1) in versions:
            self._double(asked, f"its corrections are {numbers}")
        if done:
            revisions = {insight["revision"] for insight in card["insights"]}
            if min(revisions, default=0) < first_revision(done[-1]):
                self._half("correct", asked.utterance_id, f"insights of {revisions}")
            if max(revisions, default=0) > first_revision(done[-1]):
                self._double(asked, f"insights of {revisions}")
            if [task["rooms"] for task in card["tasks"]] != [[asked.room]]:
                self._half("correct", asked.utterance_id, f"tasks are {[_told(task) for task in card['tasks']]}")
        for number, each in zip(numbers, mine, strict=True):
            subject = text_subject(asked.utterance_id, number)
            self._decided(asked, [each], versions, subject, ("amend",), before=1)

    async def _dispatched(self, asked: Asked, mine: Sequence[Progress], versions: Mapping[str, int]) -> None:
        task = next(each for each in await self._tasks(asked) if each["task_id"] == asked.task_ids[0])
        done = [each for each in mine if each.status == "done"]
        told = {got.id for got in self._receiver.got if got.data["task_id"] == asked.task_ids[0]}
        taken = told & self._taken
        if len(done) > 1 or len(taken) > 1 or not told <= {f"{each.id}:notice" for each in mine}:
            self._double(asked, f"dispatched {len(done)} times, notices {sorted(told)}, of them taken {sorted(taken)}")
        if {f"{each.id}:notice" for each in done} != taken:
            self._half("dispatch", asked.task_ids[0], f"done {[each.id for each in done]}, taken {sorted(taken)}")
        if task["assignee"] != (asked.person if done else None):
            self._half("dispatch", asked.task_ids[0], f"{[each.status for each in mine]}, and it is {_told(task)}")
        reserved = _happened(mine, ("reserve",), "done")
        if task["version"] > reserved + (0 if done else reserved):
            self._double(asked, f"the task is {_told(task)}")
        subject = dispatch_subject(asked.task_ids[0])
        self._decided(asked, mine, versions, subject, ("reserve", "confirm"))

    async def _erased(self, asked: Asked) -> None:
        name = asked.conversation_id
        status, _ = await self._asker.call("GET", f"/v1/utterances/{asked.utterance_id}")
        if status != HTTPStatus.NOT_FOUND:
            self._half("erase", name, f"{asked.utterance_id}: {status}")
        kept = await self._get(f"/v1/conversations/{name}")  # figures stay
        if kept["summary"] is not None:
            self._half("erase", name, "its summary is there")
        for path in (f"/v1/utterances?conversation={name}", f"/v1/utterances?query={asked.planted}"):
            found = await self._get(path)
            if found["items"]:
                self._half("erase", name, f"{path} has {len(found['items'])}")

    def _decided(
        self,
        asked: Asked,
        mine: Sequence[Progress],
        versions: Mapping[str, int],
        subject: str,
        steps: Sequence[str],
        before: int = 0,
    ) -> None:
        """Decisions about a subject are as many as the steps explain, each done or taken back once."""
        explained = before + _happened(mine, steps, "done") + _happened(mine, steps, "undone")
        if (version := versions.get(subject, 0)) > explained:
            self._double(asked, f"{subject} has {version} decisions, and its operations explain {explained}")

    async def _tasks(self, asked: Asked) -> list[Json]:
        card = await self._get(f"/v1/utterances/{asked.utterance_id}")
        tasks: list[Json] = card["tasks"]
        return tasks

    async def _get(self, path: str) -> Json:
        status, body = await self._asker.call("GET", path)
        assert status == HTTPStatus.OK, (path, status, body)
        return body

    def _half(self, kind: str, subject: str, what: str) -> None:
        self.found.half_done.append(f"{kind} of {subject}: {what}")

    def _double(self, asked: Asked, what: str) -> None:
        self.found.doubled.append(f"{asked.kind} of {asked.conversation_id}: {what}")


def operations(site: Site) -> list[Progress]:
    """Return all there were, the oldest first, as their journal has them."""
    path = site.layout.directory.part("operations").database
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT progress FROM operations_journal ORDER BY started_ns").fetchall()
    return [msgspec.json.decode(row, type=Progress) for (row,) in rows]


def decided(site: Site) -> dict[str, int]:
    """Return how many decisions there were about each subject."""
    path = site.layout.directory.dashboard.database
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT subject, version FROM dashboard_decisions").fetchall())


def findings(site: Site, settle_s: float) -> list[str]:
    """Return what `quickcomm check` finds on the whole site, a line each; also what it could not check."""
    flags = ("--json", "--settle", str(settle_s), "--data-dir", str(site.data_dir))
    told = quickcomm("check", *flags, statuses=(0, 1, 2), timeout=300)
    *found, totals = [json.loads(line) for line in told.splitlines()] or [{"unavailable": {"all": "no answer"}}]
    rows = [json.dumps(each, ensure_ascii=False) for each in found]
    return rows + [f"not checked: {side}: {why}" for side, why in totals.get("unavailable", {}).items()]


def places(folders: Iterable[Path], text: str) -> list[str]:
    """Return the files in which a text is, as it is or in base 64."""
    sought = list(forms(text))
    found = []
    for path in [path for folder in folders for path in folder.rglob("*") if path.is_file()]:
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            if any(form in content for form in sought):
                found.append(path.name)
    return found


def _happened(mine: Sequence[Progress], steps: Sequence[str], what: str) -> int:
    return sum(event.what == what and event.step in steps for each in mine for event in each.history)


def _subject(asked: Asked) -> str:
    match asked.kind:
        case "correct":
            return asked.utterance_id
        case "dispatch":
            return asked.task_ids[0]
        case _:
            return asked.conversation_id


def _told(task: Json) -> str:
    names = ("status", "assignee", "version", "rooms")
    return ", ".join(f"{name} {task[name]}" for name in names)
