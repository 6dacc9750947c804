"""API keys and page sessions: who is asking, for which site, and what they may do."""

from quickcomm.kernel.keys.auth import Authenticator, KeySettings
from quickcomm.kernel.keys.store import CreatedKey, Key, KeyStore, Principal, Role, permits

__all__ = ["Authenticator", "CreatedKey", "Key", "KeySettings", "KeyStore", "Principal", "Role", "permits"]
