"""Services that know each other, for tests: keys in a folder, a clock that is moved by hand, requests made by hand."""

from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from quickcomm.kernel.settings import TrustSettings
from quickcomm.kernel.trust import ServiceTrust, trust_of
from quickcomm.kernel.trust.directory import TrustDirectory

NAMES = ("intelligence", "dashboard", "stranger")


class Services:
    """`now`: seconds of the wall clock of all of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1_800_000_000.0
        self.directory = TrustDirectory(root, now=lambda: self.now)
        self.directory.ensure(NAMES)

    def trust(self, service: str) -> ServiceTrust:
        settings = TrustSettings(service=service, directory=str(self.root))
        return trust_of(settings, now=lambda: self.now)


def token_of(headers: dict[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")


def call(token: str | None, path: str = "/internal/v1/usage") -> web.Request:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return make_mocked_request("GET", path, headers=headers)
