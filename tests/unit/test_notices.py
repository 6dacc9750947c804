"""Notices of dispatched tasks: signatures by the example of Standard Webhooks, settings, the receiver of the docs."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from tests.support.ports import free_port
from tests.support.receiver import SECRET

from quickcomm.kernel.errors import ConfigurationError, UnavailableError
from quickcomm.operate.settings import load_settings
from quickcomm.operations.adapters.webhook import post
from quickcomm.operations.declaration import OperationsSettings
from quickcomm.operations.signing import secret_of, signed

PAGE: Final = Path(__file__).parents[2] / "docs" / "dispatch.md"
URL: Final = "https://pager.example.org/quickcomm"
UP_WITHIN_S: Final = 60.0


def test_the_example_of_the_scheme_has_its_signature() -> None:
    headers = signed(secret_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert secret_of(SECRET.removeprefix("whsec_")) == secret_of(SECRET)


@pytest.mark.parametrize("wrong", ["", "whsec_", "whsec_dG9vIHNob3J0", "whsec_" + "A" * 100, "no base64!", "whsec_é"])
def test_a_secret_that_protects_nothing_is_refused_and_not_repeated(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="QUICKCOMM_OPERATIONS_WEBHOOK_SECRET") as error:
        load_settings(tmp_path, {"operations.webhook_url": URL}, {"QUICKCOMM_OPERATIONS_WEBHOOK_SECRET": wrong})
    assert not wrong.removeprefix("whsec_") or wrong.removeprefix("whsec_") not in str(error.value)


def test_the_secret_comes_from_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    environment = {"QUICKCOMM_OPERATIONS_WEBHOOK_URL": URL, "QUICKCOMM_OPERATIONS_WEBHOOK_SECRET": SECRET}
    found = load_settings(tmp_path, {}, environment)
    assert found.of(OperationsSettings).webhook_secret == SECRET
    assert SECRET not in repr(found)
    assert URL not in repr(found)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8099/x", "http://[::1]:8099", "http://localhost/x", "https://10.0.0.1/x?key=1"]
)
def test_a_receiver_is_on_this_machine_or_behind_https(tmp_path: Path, url: str) -> None:
    given = {"operations.webhook_url": url, "operations.webhook_secret": SECRET}
    assert load_settings(tmp_path, given, {}).of(OperationsSettings).webhook_url == url


def test_http_to_another_machine_must_be_allowed(tmp_path: Path) -> None:
    given = {"operations.webhook_url": "http://10.0.0.1/x", "operations.webhook_secret": SECRET}
    with pytest.raises(ConfigurationError, match="webhook_allow_http"):
        load_settings(tmp_path, given, {})
    found = load_settings(tmp_path, {**given, "operations.webhook_allow_http": True}, {})
    assert found.of(OperationsSettings).webhook_allow_http


@pytest.mark.parametrize("url", ["pager.example.org", "ftp://pager.example.org", "https://", "https://x:99999/"])
def test_what_is_no_address_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"operations\.webhook_url"):
        load_settings(tmp_path, {"operations.webhook_url": url, "operations.webhook_secret": SECRET}, {})


async def test_the_receiver_of_the_docs_takes_what_is_signed_once() -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    url = f"http://127.0.0.1:{(port := free_port())}/"
    environment = {**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    program = subprocess.Popen([sys.executable, "-c", found[1]], env=environment, stdout=subprocess.PIPE)  # noqa: ASYNC220
    try:
        body = json.dumps({"type": "task.dispatched", "text": "zwei Tücher"}).encode()
        headers = signed(secret_of(SECRET), "one:notice", int(time.time()), body)
        async with asyncio.timeout(UP_WITHIN_S):
            while True:
                try:
                    answers = [await post(url, body, headers, 10.0)]
                    break
                except UnavailableError:  # it starts
                    await asyncio.sleep(0.05)
        answers.append(await post(url, body, headers, 10.0))
        answers.append(await post(url, body + b" ", headers, 10.0))
        old = signed(secret_of(SECRET), "two:notice", int(time.time()) - 3_600, body)
        answers.append(await post(url, body, old, 10.0))
        assert [answer.status for answer in answers] == [204, 204, 401, 401]
    finally:
        program.terminate()
        said, _ = program.communicate(timeout=30)
    assert said.splitlines() == [body]
