"""Trust between services: short-lived signed tokens for calls between processes, and the keys behind them.

`jwk.py` what a key looks like, `sources.py` where keys are read, `service.py` tokens made and checked, `directory.py`
keys made, replaced and withdrawn. See docs/adr/0018-tokens-and-least-privilege.md.
"""

from quickcomm.kernel.trust.service import Grant, ServiceTrust, UntrustedError, trust_of

__all__ = ["Grant", "ServiceTrust", "UntrustedError", "trust_of"]
