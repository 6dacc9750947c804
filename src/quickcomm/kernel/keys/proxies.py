"""What proxies in front say of a request: the caller's address, the scheme and the host that the caller has asked for.

Only as many entries of a header count as there are proxies of ours: the rest is what the caller claims.
"""

from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

FORWARDED_PROTO: Final = "X-Forwarded-Proto"
FORWARDED_PORT: Final = "X-Forwarded-Port"
DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


class Proxies:
    """The proxies of an operator, `hops` of them in a row, and perhaps the edge of the site behind them."""

    def __init__(self, hops: int, *, edge: bool) -> None:
        """`edge`: there is one more, of the site itself, which appends the address and tells the scheme."""
        self._in_all = hops + edge
        self._name_hosts = hops or int(edge)
        """The site's edge names no host, and takes the name away where there is no proxy before it."""

    def address(self, request: web.Request) -> str:
        """Return the caller's address."""
        forwarded = self._told(request, hdrs.X_FORWARDED_FOR, self._in_all)
        return forwarded or request.remote or "-"

    def is_secure(self, request: web.Request) -> bool:
        """Return True if the caller has asked by https, whoever has taken the encryption off."""
        return request.secure or self._told(request, FORWARDED_PROTO, self._in_all).lower() == "https"

    def hosts(self, request: web.Request, scheme: str) -> set[str]:
        """Return the hosts, with a port that is not the scheme's own, by which the caller may have asked."""
        hosts = {request.host}
        named = self._told(request, hdrs.X_FORWARDED_HOST, self._name_hosts)
        port = self._told(request, FORWARDED_PORT, self._name_hosts)
        hosts |= {named} if named else set()
        hosts |= {f"{host}:{port}" for host in hosts if port and not _has_port(host)}
        return {_short(host, scheme) for host in hosts}

    def _told(self, request: web.Request, header: str, hops: int) -> str:
        """Return the entry of the outermost proxy that is trusted; empty where there is none."""
        if not hops:
            return ""
        entries = [each.strip() for line in request.headers.getall(header, ()) for each in line.split(",")]
        return entries[-min(hops, len(entries))] if entries else ""


def same_host(origin: str, proxies: Proxies, request: web.Request) -> bool:
    """Return True if an Origin is the host that the caller has asked for."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return bool(parts.netloc) and _short(parts.netloc, parts.scheme) in proxies.hosts(request, parts.scheme)


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _short(host: str, scheme: str) -> str:
    """Return a host in lower case, without the default port of the scheme."""
    port = DEFAULT_PORTS.get(scheme)
    return host.lower().removesuffix(f":{port}") if port else host.lower()
