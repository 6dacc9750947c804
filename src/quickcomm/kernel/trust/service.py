"""Tokens for calls between services: made for one audience, good for a minute, checked before anything is answered.

A token is a JWT signed with the caller's own Ed25519 key. Who is called knows the public keys of all; nobody can speak
for another. Times are those of the wall clock, which processes and machines have in common.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from aiohttp import hdrs, web
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidTokenError, JoseError
from joserfc.jwk import GuestProtocol, OKPKey
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from quickcomm.kernel.errors import MALFORMED, ConfigurationError, ForbiddenError
from quickcomm.kernel.http import UnauthorizedError
from quickcomm.kernel.settings import TrustSettings
from quickcomm.kernel.trust.directory import private_file, public_folder
from quickcomm.kernel.trust.jwk import ALGORITHM, PublicJwk
from quickcomm.kernel.trust.sources import KeyRing, SigningKey, Trusted

LIFE_S: Final = 60
RENEW_S: Final = 20
"""A token that is about to be sent has at least so long to go."""
LEEWAY_S: Final = 5
"""So much may the clocks of two machines differ."""
GRACE_S: Final = 5
"""So long after it was replaced a service may still sign with its old key."""
LOOK_EVERY_S: Final = 1.0
LONGEST: Final = 2_048
AUDIENCES: Final = 64
TOKENS: Final = 256

log = structlog.get_logger(__name__)


class UntrustedError(UnauthorizedError):
    """No token, or none that is any good."""

    code = "trust.refused"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a token allowed: a call by `caller`. `kid` names the key that vouches for it."""

    caller: str
    kid: str
    token_id: str


class _Claims(msgspec.Struct, frozen=True, kw_only=True):
    iss: str
    aud: str
    iat: int
    nbf: int
    exp: int
    jti: str


class _Verified(msgspec.Struct, frozen=True, kw_only=True):
    """A token whose signature was found good; `x` is the public key that it was checked with."""

    kid: str
    x: str
    claims: _Claims


class _Cached(msgspec.Struct, frozen=True, kw_only=True):
    kid: str
    until: int
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"_Cached({self.kid})"


class ServiceTrust:
    """One for a process. `now`: seconds of the wall clock."""

    def __init__(
        self, service: str, signing: SigningKey, ring: KeyRing, *, now: Callable[[], float] = time.time
    ) -> None:
        self.service = service
        self._signing = signing
        self._ring = ring
        self._now = now
        self._cache: dict[str, _Cached] = {}
        self._verified: OrderedDict[str, _Verified] = OrderedDict()
        self._registry = JWSRegistry(algorithms=[ALGORITHM])

    # -- calling ----------------------------------------------------------------------------------------------------

    def headers(self, audience: str) -> dict[str, str]:
        """For a call to that service, now; a WebSocket's handshake too. Raises `ConfigurationError` without a key."""
        signing = self._signing.current()
        now = int(self._now())
        found = self._cache.get(audience)
        # Earlier than it was made: the clock was put back.
        if found is None or found.kid != signing.jwk.kid or not found.until - LIFE_S <= now <= found.until - RENEW_S:
            if signing.jwk.service != self.service:
                raise ConfigurationError(f"This is {self.service}, and its private key is that of another service.")
            claims = _Claims(
                iss=self.service, aud=audience, iat=now, nbf=now, exp=now + LIFE_S, jti=secrets.token_hex(8)
            )
            header = {"alg": ALGORITHM, "typ": "JWT", "kid": signing.jwk.kid}
            token = jwt.encode(header, msgspec.to_builtins(claims), signing.key, registry=self._registry)
            found = _Cached(kid=signing.jwk.kid, until=claims.exp, headers={hdrs.AUTHORIZATION: f"Bearer {token}"})
            if len(self._cache) >= AUDIENCES:
                self._cache.clear()
            self._cache[audience] = found
        return dict(found.headers)

    # -- being called -----------------------------------------------------------------------------------------------

    def require(self, request: web.Request, *callers: str) -> str:
        """Who calls: one of `callers`, or any service where none is named.

        Raises:
            UntrustedError: 401: no token, or it is altered, expired, not yet valid, or of nobody known.
            ForbiddenError: 403: it is meant for another service, or the caller may not do this.

        """
        return self.grant(request, *callers).caller

    def grant(self, request: web.Request, *callers: str) -> Grant:
        """As `require`; for a WebSocket, which `ended` then watches."""
        try:
            return self._grant(_token(request), callers)
        except (UntrustedError, ForbiddenError) as error:
            log.warning("trust.refused", path=request.path, because=str(error))
            raise

    def holds(self, grant: Grant) -> bool:
        """Whether what a token allowed is still allowed: a key that was withdrawn, or replaced long ago, ends it."""
        found = self._ring.find(grant.kid)
        return found is not None and found.jwk.service == grant.caller and self._now() <= end_of(found.jwk)

    async def withdrawn(self, request: web.Request) -> None:
        """Wait for the end of what the token of this request allows; see `ended`."""
        await self.ended(self.grant(request))

    async def ended(self, grant: Grant, look_every_s: float = LOOK_EVERY_S) -> None:
        """Come back once it does not hold any more. Close the WebSocket then (1008): a caller in order comes again."""
        while self.holds(grant):  # noqa: ASYNC110
            await asyncio.sleep(look_every_s)  # a file that is replaced wakes nobody

    # -- inside -----------------------------------------------------------------------------------------------------

    def _grant(self, token: str, callers: tuple[str, ...]) -> Grant:
        found, claims = self._opened(token)
        if claims.iss != found.jwk.service:
            raise UntrustedError("The service token names another issuer than the owner of its key.")
        self._check_time(claims, found.jwk)
        if claims.aud != self.service:
            raise ForbiddenError(f"The service token is for another service; this is {self.service}.")
        if callers and claims.iss not in callers:
            raise ForbiddenError(f"The service {claims.iss} may not do this.")
        return Grant(caller=claims.iss, kid=found.jwk.kid, token_id=claims.jti)

    def _opened(self, token: str) -> tuple[Trusted, _Claims]:
        """The key of a token and what it says. Its signature is checked once: a caller sends the same for a while."""
        before = self._verified.get(token)
        if before is not None:
            known = self._ring.find(before.kid)
            if known is not None and known.jwk.x == before.x:
                return known, before.claims
            del self._verified[token]
        used: list[Trusted] = []

        def key_of(signed: GuestProtocol) -> OKPKey:
            kid = signed.headers().get("kid")
            found = self._ring.find(kid) if isinstance(kid, str) else None
            if found is None:
                raise UntrustedError("The service token is signed with a key that nobody here knows.")
            used.append(found)
            return found.key

        try:
            opened = jwt.decode(token, key_of, registry=self._registry)
            claims = msgspec.convert(opened.claims, _Claims)
        except (JoseError, *MALFORMED):
            # Not `from`: the library's words may have parts of the token in them.
            raise UntrustedError("The service token is malformed, or was altered.") from None
        jwk = used[0].jwk
        self._verified[token] = _Verified(kid=jwk.kid, x=jwk.x, claims=claims)
        if len(self._verified) > TOKENS:
            self._verified.popitem(last=False)
        return used[0], claims

    def _check_time(self, claims: _Claims, jwk: PublicJwk) -> None:
        try:
            JWTClaimsRegistry(now=int(self._now()), leeway=LEEWAY_S).validate(msgspec.to_builtins(claims))
        except ExpiredTokenError:
            raise UntrustedError("The service token has expired.") from None
        except InvalidTokenError:
            raise UntrustedError("The service token is not valid yet; do the clocks differ?") from None
        except JoseError:
            raise UntrustedError("The service token has times that are none.") from None
        if not 0 < claims.exp - claims.iat <= LIFE_S or not claims.iat <= claims.nbf <= claims.exp:
            raise UntrustedError(f"The service token is made for longer than {LIFE_S} s.")
        if jwk.retired is not None and claims.iat > jwk.retired + GRACE_S:
            raise UntrustedError("The service token is signed with a key that was replaced.")


def end_of(jwk: PublicJwk) -> float:
    """When the last token that it signed has expired, for every clock."""
    return float("inf") if jwk.retired is None else jwk.retired + GRACE_S + LIFE_S + LEEWAY_S


def trust_of(settings: TrustSettings, *, now: Callable[[], float] = time.time) -> ServiceTrust:
    """Raises `ConfigurationError` where the settings do not say who this is, and where the keys are."""
    folder = settings.directory
    private = settings.private_key or (folder and str(private_file(folder, settings.service)))
    public = settings.public_keys or (folder and str(public_folder(folder)))
    if not (settings.service and private and public):
        raise ConfigurationError(
            "To call other services, trust.service and trust.directory (or trust.private_key and trust.public_keys) "
            "must be set. See docs/settings.md."
        )
    trust = ServiceTrust(settings.service, SigningKey(private), KeyRing(public), now=now)
    trust.headers(settings.service)  # what is wrong with the key is said at the start
    return trust


def _token(request: web.Request) -> str:
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(given) != 1:
        raise UntrustedError("This is for other services only: send a service token as `Authorization: Bearer TOKEN`.")
    scheme, _, token = given[0].partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > LONGEST or not token.isascii():
        raise UntrustedError("This is no service token.")
    return token
