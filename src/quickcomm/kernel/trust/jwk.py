"""What a service's key looks like: an Ed25519 JSON Web Key (RFC 8037) that says whose it is."""

import secrets
from typing import Annotated, Final, Literal

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from quickcomm.kernel.errors import MALFORMED, ConfigurationError

ALGORITHM: Final = "Ed25519"
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Kid = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class PublicJwk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`retired`: seconds since the epoch, when another key took its place; what it signed later is refused."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: Kid
    service: Name
    retired: int | None = None

    def key(self) -> OKPKey:
        """Raises `ConfigurationError` where it is no point of the curve."""
        return _key({"kty": self.kty, "crv": self.crv, "x": self.x})


class PrivateJwk(msgspec.Struct, frozen=True, kw_only=True):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    d: str
    kid: Kid
    service: Name

    def __repr__(self) -> str:
        return f"PrivateJwk({self.kid})"

    def key(self) -> OKPKey:
        """Raises `ConfigurationError` where it is none."""
        return _key({"kty": self.kty, "crv": self.crv, "x": self.x, "d": self.d})

    def public(self) -> PublicJwk:
        return PublicJwk(kty=self.kty, crv=self.crv, x=self.x, kid=self.kid, service=self.service)


class Jwks(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON Web Key Set (RFC 7517). Keys of other kinds are refused: here every key is one of ours."""

    keys: tuple[PublicJwk, ...]


def generate(service: str) -> PrivateJwk:
    """A new key for a service. Raises `ConfigurationError` for a name that is none."""
    made = OKPKey.generate_key("Ed25519", private=True).as_dict(private=True)
    kid = f"{service}.{secrets.token_hex(8)}"
    try:
        return msgspec.convert(
            {"kty": "OKP", "crv": "Ed25519", "x": made["x"], "d": made["d"], "kid": kid, "service": service}, PrivateJwk
        )
    except msgspec.ValidationError:
        raise ConfigurationError("The name of a service is 1 to 40 of a-z 0-9 _ - and begins with a letter.") from None


def parse_private(text: bytes) -> PrivateJwk:
    """Raises `ConfigurationError`; what was read is not in it."""
    try:
        jwk = msgspec.json.decode(text, type=PrivateJwk)
    except MALFORMED:
        raise ConfigurationError(
            "A private key of a service is a JSON Web Key with kty OKP, crv Ed25519, x, d, kid and service."
        ) from None
    jwk.key()
    return jwk


def parse_public(text: bytes) -> tuple[PublicJwk, ...]:
    """Raises `ConfigurationError`."""
    try:
        return msgspec.json.decode(text, type=Jwks).keys
    except MALFORMED as error:
        raise ConfigurationError(f"Public keys of services are a JSON Web Key Set: {error}.") from None


def _key(members: dict[str, str]) -> OKPKey:
    try:
        return OKPKey.import_key({**members})
    except (JoseError, *MALFORMED):
        raise ConfigurationError("A key of a service is damaged: x or d is not that of an Ed25519 key.") from None
