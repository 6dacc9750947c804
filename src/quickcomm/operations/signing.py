"""Signatures of notices, by the scheme of Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256."""

import base64
import binascii
import hmac
from typing import Final

from quickcomm.kernel.errors import ConfigurationError

PREFIX: Final = "whsec_"
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64


def secret_of(text: str) -> bytes:
    """Return the bytes of a secret, `whsec_` and Base64. Raises `ConfigurationError`, which does not repeat it."""
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if not LEAST_BYTES <= len(secret) <= MOST_BYTES:
        raise ConfigurationError(
            "operations.webhook_secret (QUICKCOMM_OPERATIONS_WEBHOOK_SECRET) must be the Base64 of "
            f"{LEAST_BYTES} to {MOST_BYTES} random bytes. Make one: echo whsec_$(openssl rand -base64 32)"
        )
    return secret


def signed(secret: bytes, notice_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """Return the headers that a receiver verifies. `at_s`: seconds since the epoch, of this attempt."""
    digest = hmac.digest(secret, f"{notice_id}.{at_s}.".encode() + body, "sha256")
    return {
        "webhook-id": notice_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
