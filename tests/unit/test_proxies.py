"""What proxies say of a request counts as far as they are the operator's, and no further."""

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from quickcomm.kernel.keys.proxies import Proxies, same_host

FORWARDED = "X-Forwarded-For"


def addressed(hops: int, *lines: str, edge: bool = False) -> str:
    headers = CIMultiDict([(FORWARDED, line) for line in lines])
    return Proxies(hops, edge=edge).address(make_mocked_request("GET", "/", headers=headers))


@pytest.mark.parametrize(
    ("hops", "edge", "lines", "address"),
    [
        (0, False, ["9.9.9.9"], "-"),  # the mocked request has none of its own
        (1, False, ["9.9.9.9, 10.0.0.1"], "10.0.0.1"),
        (2, False, ["9.9.9.9, 10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (1, False, ["9.9.9.9", "10.0.0.1"], "10.0.0.1"),
        (0, True, ["9.9.9.9,10.0.0.1"], "10.0.0.1"),
        (1, True, ["9.9.9.9, 10.0.0.1,10.0.0.2"], "10.0.0.1"),
        (3, True, ["10.0.0.1"], "10.0.0.1"),
        (1, False, [], "-"),
    ],
)
def test_the_address_is_what_the_outermost_of_our_proxies_has_seen(
    hops: int, lines: list[str], address: str, *, edge: bool
) -> None:
    assert addressed(hops, *lines, edge=edge) == address


@pytest.mark.parametrize(
    ("hops", "headers", "origin", "same"),
    [
        (0, {"Host": "ops.example"}, "https://ops.example", True),
        (0, {"Host": "OPS.example:443"}, "https://ops.example", True),
        (0, {"Host": "ops.example:443"}, "http://ops.example", False),
        (0, {"Host": "127.0.0.1:8080"}, "https://ops.example", False),
        (0, {"Host": "a", "X-Forwarded-Host": "ops.example"}, "https://ops.example", False),
        (1, {"Host": "a", "X-Forwarded-Host": "ops.example"}, "https://ops.example", True),
        (1, {"Host": "a", "X-Forwarded-Host": "evil.example, ops.example"}, "https://evil.example", False),
        (1, {"Host": "ops.example"}, "https://ops.example:8443", False),
        (1, {"Host": "ops.example", "X-Forwarded-Port": "8443"}, "https://ops.example:8443", True),
        (1, {"Host": "[::1]", "X-Forwarded-Port": "8443"}, "https://[::1]:8443", True),
        (1, {"Host": "ops.example:81", "X-Forwarded-Port": "8443"}, "https://ops.example:8443", False),
        (0, {"Host": "ops.example"}, "null", False),
        (0, {"Host": "ops.example"}, "https://[", False),
    ],
)
def test_the_page_is_known_by_its_host(hops: int, headers: dict[str, str], origin: str, *, same: bool) -> None:
    request = make_mocked_request("GET", "/", headers=headers)
    assert same_host(origin, Proxies(hops, edge=False), request) is same


def test_the_scheme_is_what_the_proxy_says() -> None:
    request = make_mocked_request("GET", "/", headers={"X-Forwarded-Proto": "https"})
    assert Proxies(1, edge=False).is_secure(request)
    assert Proxies(0, edge=True).is_secure(request)
    assert not Proxies(0, edge=False).is_secure(request)
