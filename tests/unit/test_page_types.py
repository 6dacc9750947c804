"""The page's types are the server's: a name, a value or a null that only one side knows does not compile."""

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hatch_build import environment, find_node, install_packages
from tools.page.schema import TARGET, page_types

from quickcomm.dashboard.adapters.openapi import document
from quickcomm.dashboard.adapters.rest import OPERATIONS

Json = dict[str, Any]
WEB: Final = TARGET.parents[2]
PARSE: Final = "src/model/parse.ts"
STRING: Final = {"type": "string"}


class Compiler:
    """The page's compiler on a copy of the page."""

    def __init__(self, folder: Path) -> None:
        self._node, npm = find_node()
        install_packages(WEB, self._node, npm)
        self._folder = folder
        for part in ("src", "tsconfig.json", "vite.config.ts", "package.json", "node_modules"):
            (folder / part).symlink_to(WEB / part)

    def own(self, part: str, text: str) -> None:
        """Replace one file by `text`."""
        real = self._folder / part
        for parent in reversed(real.relative_to(self._folder).parents[:-1]):
            place = self._folder / parent
            if place.is_symlink():
                original = place.resolve()
                place.unlink()
                place.mkdir()
                for each in original.iterdir():
                    (place / each.name).symlink_to(each)
        real.unlink()
        real.write_text(text, encoding="utf-8")

    def complaints(self) -> str:
        """Return what the compiler says; empty where it is content."""
        tsc = WEB / "node_modules/typescript/bin/tsc"
        command = [str(self._node), str(tsc), "--noEmit", "--preserveSymlinks"]
        done = subprocess.run(
            command, cwd=self._folder, env=environment(self._node), capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == (done.stdout == ""), done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path)


def test_the_page_has_the_types_that_the_server_has_now() -> None:
    assert TARGET.read_text(encoding="utf-8") == page_types(document(OPERATIONS)), "Run: python -m tools.page.schema"


def test_the_page_compiles_with_them(compiler: Compiler) -> None:
    compiler.own("src/api/schema.ts", page_types(document(OPERATIONS)))
    assert compiler.complaints() == ""


def renamed(fields: Json) -> None:
    fields["properties"]["last_spoken_at"] = fields["properties"].pop("last_utterance_at")
    fields["required"] = [name.replace("last_utterance_at", "last_spoken_at") for name in fields["required"]]


NULL: Final = {"type": "null"}
SERVER: Final[dict[str, tuple[str, Callable[[Json], Any], str]]] = {
    "a field renamed": ("Channel", renamed, "last_utterance_at"),
    "a field more": ("Card", lambda card: card["properties"].update(mood=STRING), "mood"),
    "a field less": ("Insight", lambda insight: insight["properties"].pop("unverified"), "unverified"),
    "null where there was none": (
        "Conversation",
        lambda one: one["properties"].update(started_at={"anyOf": [STRING, NULL]}),
        "'string | null' is not assignable",
    ),
    "a field of another kind": (
        "Ledger",
        lambda ledger: ledger["properties"].update(gap=STRING),
        "'number' is not assignable to type 'string'",
    ),
    "a value more": ("Task", lambda task: task["properties"]["status"]["enum"].append("started"), "started"),
    "a value less": ("Conversation", lambda one: one["properties"]["state"]["enum"].remove("expired"), "expired"),
    "a stage more": ("Latency", lambda stages: stages["properties"].update(route={"type": "number"}), "route"),
    "a message that must say more": (
        "Watch",
        lambda watch: (watch["properties"].update(since=STRING), watch["required"].append("since")),
        "'since' is missing",
    ),
    "a message of another name": (
        "CaptionEvent",
        lambda event: event["properties"].update(type={"enum": ["subtitle"]}),
        "'caption' does not exist",
    ),
}


def test_what_the_server_changes_does_not_compile(compiler: Compiler) -> None:
    changed = copy.deepcopy(document(OPERATIONS))
    for schema, change, _ in SERVER.values():
        change(changed["components"]["schemas"][schema])
    compiler.own("src/api/schema.ts", page_types(changed))
    complaints = compiler.complaints()
    assert [what for what, (_, _, named) in SERVER.items() if named not in complaints] == []


PAGE: Final = {
    "reads another name": ('f["last_utterance_at"]', 'f["last_spoken_at"]'),
    "leaves one out": ('    trace_id: textOrNull(f["trace_id"]),\n', ""),
    "knows one too few": ("{ low: true, normal", "{ normal"),
}


@pytest.mark.parametrize("what", PAGE)
def test_what_the_page_changes_does_not_compile(what: str, compiler: Compiler) -> None:
    before, after = PAGE[what]
    parse = (WEB / PARSE).read_text(encoding="utf-8")
    assert before in parse
    compiler.own(PARSE, parse.replace(before, after))
    assert PARSE.rpartition("/")[2] in compiler.complaints()
