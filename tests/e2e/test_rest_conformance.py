"""REST as its own OpenAPI document says, tried by schemathesis before the real server with a shift in it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.support.server import Server

# A cursor is opaque, and which characters can be printed is a long list: the document cannot say all of it.
LISTS: Final = """
[[operations]]
include-path = ["/v1/conversations", "/v1/tasks", "/v1/utterances", "/v1/tasks/{task_id}/acknowledge",
                "/v1/tasks/{task_id}/assign", "/v1/tasks/{task_id}/complete", "/v1/tasks/{task_id}/reopen",
                "/v1/tasks/{task_id}/dispatch", "/v1/conversations/{conversation_id}/close",
                "/v1/utterances/{utterance_id}/correct",
                "/v1/reports/shift", "/v1/usage"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "410", "429"]
"""
# Ours are WebSockets; test_frames.py and others speak with them. An erasure would take what the other requests need.
OPTIONS: Final = (
    "--exclude-path-regex=(/v1/live|/audio)$",
    "--exclude-operation-id=startErasure",
    "--checks=all",
    "--continue-on-failure",
    "--suppress-health-check=all",
    "--no-color",
)
PATIENCE_S: Final = 1_800


def conforms(server: Server, role: str, folder: Path, config: str, examples: int, *options: str) -> int:
    """Cases that were tried, none of which failed."""
    settings = folder / "schemathesis.toml"
    settings.write_text(config)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            f"--config-file={settings}",
            "run",
            f"{server.url}/openapi.json",
            f"--header=Authorization: Bearer {server.key(role)}",
            f"--max-examples={examples}",
            *OPTIONS,
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-12_000:]}\n{done.stderr[-2_000:]}"
    counted = re.search(r"(\d+) generated", done.stdout)
    assert counted, done.stdout
    return int(counted[1])


@pytest.mark.long  # the short sample is the next test
@pytest.mark.parametrize("role", ["read", "admin"])
def test_rest_conforms_to_its_document(
    patient_server: Server, tmp_path: Path, things: dict[str, str], role: str
) -> None:
    assert things
    phases = "--phases=examples,coverage,fuzzing"
    assert conforms(patient_server, role, tmp_path, LISTS, 10, phases, "--generation-deterministic") > 200
    assert patient_server.log.count("http.failed") == 0


def test_rest_conforms_for_what_is_there(patient_server: Server, tmp_path: Path, things: dict[str, str]) -> None:
    known = "".join(f'"path.{name}" = "{value}"\n' for name, value in things.items())
    config = f"[parameters]\n{known}{LISTS}"
    only = r"--include-path-regex=\{(conversation|utterance|task)_id\}"
    found = ("--phases=examples,fuzzing", "--mode=positive", "--generation-deterministic")
    assert conforms(patient_server, "admin", tmp_path, config, 10, only, *found) > 5
    assert patient_server.log.count("http.failed") == 0


@pytest.mark.long
@pytest.mark.parametrize("role", ["read", "admin", "ingest"])
def test_rest_conforms_to_its_document_however_long_one_tries(
    patient_server: Server, tmp_path: Path, things: dict[str, str], role: str
) -> None:
    assert things
    assert conforms(patient_server, role, tmp_path, LISTS, 300, "--phases=examples,coverage,fuzzing,stateful") > 1_000
    assert patient_server.log.count("http.failed") == 0
