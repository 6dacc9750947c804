"""Who sends this request: a key in the header, a key in the query (WebSockets of browsers), or a page session."""

import math
import re
from typing import Annotated, Final

import msgspec
from aiohttp import hdrs, web

from quickcomm.contracts.commands import Role
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ForbiddenError
from quickcomm.kernel.http import TooManyRequestsError, UnauthorizedError
from quickcomm.kernel.keys.limits import TokenBuckets
from quickcomm.kernel.keys.port import KeyStore, Principal, permits
from quickcomm.kernel.keys.proxies import Proxies, same_host

COOKIE: Final = "quickcomm_session"
COOKIE_DAYS: Final = 7
Rate = Annotated[float, msgspec.Meta(gt=0.0)]
Burst = Annotated[float, msgspec.Meta(ge=1.0)]
LOCAL: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")
ELSEWHERE: Final = "This request came from another site."
BEHIND_A_PROXY: Final = (
    "Its Origin is not its Host. If this is your own page behind a proxy, have the proxy send the header Host as the"
    " browser sent it, with the port (nginx: proxy_set_header Host $http_host), or X-Forwarded-Host with the setting"
    " keys.trusted_hops."
)
SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits are per process."""

    failures_per_minute: Rate = 30.0
    failures_burst: Burst = 20.0
    requests_per_second: Rate = 100.0
    requests_burst: Burst = 400.0
    trusted_hops: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    """So many proxies of the operator are in a row before the site; each appends to X-Forwarded-For."""
    trust_forwarded: bool = False
    """One more proxy does, the last before this process. `up` sets it, for its edge."""


class Authenticator:
    """One for all modules of a process, so that failures are counted together."""

    def __init__(self, keys: KeyStore, clock: Clock, settings: KeySettings | None = None) -> None:
        settings = settings or KeySettings()
        self.keys = keys
        self._behind_edge = settings.trust_forwarded
        self._proxies = Proxies(settings.trusted_hops, edge=settings.trust_forwarded)
        self._failures = TokenBuckets(clock, settings.failures_per_minute / 60, settings.failures_burst)
        self._requests = TokenBuckets(clock, settings.requests_per_second, settings.requests_burst)

    @property
    def behind_edge(self) -> bool:
        """Return True if requests come from a proxy of ours alone, which vouches for its headers."""
        return self._behind_edge

    async def authenticate(self, request: web.Request) -> Principal:
        """Raises `UnauthorizedError` (401), `ForbiddenError` (403: cross-site), `TooManyRequestsError` (429).

        A valid key always passes, whatever others at the same address got wrong.
        """
        principal = await self._principal(request)
        if principal is None:
            self._count_failure(request)
            raise UnauthorizedError(f"Send a valid key as `Authorization: Bearer KEY`. {_where_to_make_one(request)}")
        self._count_request(principal)
        return principal

    async def require(self, request: web.Request, role: Role) -> Principal:
        """As `authenticate`, and 403 unless the key may do what `role` may."""
        principal = await self.authenticate(request)
        if not permits(principal.role, role):
            raise ForbiddenError(f"This needs a key with the role {role}; yours has {principal.role}.")
        return principal

    async def login(self, request: web.Request, key: str) -> tuple[Principal, str]:
        """Check a key for a page session; returns its owner and the secret for the cookie."""
        if hdrs.ORIGIN in request.headers or "Sec-Fetch-Site" in request.headers:
            self._require_same_origin(request)
        principal = await self.keys.verify(key)
        if principal is None:
            self._count_failure(request)
            raise UnauthorizedError("This key is not valid, or it was revoked.")
        if not permits(principal.role, "read"):
            raise ForbiddenError("A key with the role ingest cannot open the page; use one with read or admin.")
        self._count_request(principal)
        return principal, await self.keys.open_session(principal)

    async def logout(self, request: web.Request, response: web.StreamResponse) -> None:
        secret = request.cookies.get(COOKIE)
        if secret is not None:
            self._require_same_origin(request)
            await self.keys.close_session(secret)
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")

    def set_cookie(self, request: web.Request, response: web.StreamResponse, secret: str) -> None:
        """The browser keeps it longer than the server does: the server's 12 h slide with use."""
        response.set_cookie(
            COOKIE,
            secret,
            max_age=COOKIE_DAYS * 86400,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._proxies.is_secure(request),
        )

    def _count_request(self, principal: Principal) -> None:
        wait = self._requests.take(principal.key_id)
        if wait:
            raise TooManyRequestsError("This key asks too often; slow down.", math.ceil(wait))

    def _count_failure(self, request: web.Request) -> None:
        wait = self._failures.take(self._proxies.address(request))
        if wait:
            raise TooManyRequestsError("Too many wrong keys from this address; wait.", math.ceil(wait))

    async def _principal(self, request: web.Request) -> Principal | None:
        header = request.headers.get(hdrs.AUTHORIZATION)
        if header is not None:
            scheme, _, token = header.partition(" ")
            return await self.keys.verify(token.strip()) if scheme.lower() == "bearer" else None
        if is_websocket(request) and "key" in request.query:
            principal = await self.keys.verify(request.query["key"])
            return msgspec.structs.replace(principal, via="query") if principal else None
        secret = request.cookies.get(COOKIE)
        if secret is None:
            return None
        principal = await self.keys.verify_session(secret)
        if principal is not None and (request.method not in SAFE_METHODS or is_websocket(request)):
            self._require_same_origin(request)
        return principal

    def _require_same_origin(self, request: web.Request) -> None:
        """Raise `ForbiddenError` unless our own page asks: a cookie is sent whoever wrote the page."""
        fetch_site = request.headers.get("Sec-Fetch-Site")
        origin = request.headers.get(hdrs.ORIGIN)
        if fetch_site is not None and origin == "null":
            origin = None  # a browser that hides the origin still tells whether it is the same
        if (origin is None and fetch_site is None) or fetch_site not in (None, "same-origin"):
            raise ForbiddenError(ELSEWHERE)
        if origin is not None and not same_host(origin, self._proxies, request):
            raise ForbiddenError(f"{ELSEWHERE} {BEHIND_A_PROXY}")


def _where_to_make_one(request: web.Request) -> str:
    """Name the command that makes a key for this server, of which there may be several on its machine.

    Only a loopback address is repeated, as the caller wrote it: a stranger learns nothing, no data directory either.
    """
    command = "quickcomm keys create --role ROLE"
    if LOCAL.fullmatch(request.host):
        return f"This makes one: {command} --url {request.scheme}://{request.host}"
    return f"On the server's machine, this makes one: {command}"


def credential_of(request: web.Request) -> str:
    """Return what the client signs in with, as it was sent; empty where it sends nothing. The edge hashes the same."""
    header = request.headers.get(hdrs.AUTHORIZATION)
    return header or request.query.get("key") or request.cookies.get(COOKIE) or ""


def is_websocket(request: web.Request) -> bool:
    return request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
