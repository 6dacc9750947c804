"""What a request of one module to another declares: its name, who answers it, for how long it is waited for."""

from typing import ClassVar, Generic, Literal, TypeVar, get_args

import msgspec

R = TypeVar("R", covariant=True)  # noqa: PLC0105 - `Request[R]` reads as what it is


class Request(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """Base of all requests; `R` is the reply. Declare one beside its reply, in `contracts`.

    `to`: "any" replica of `module` answers, the "owner" alone (others raise `NotOwnerError`), or "all" of them.
    `callers`: the services that may ask, beside modules of the same process. `within_s`: seconds for one replica; None:
    no limit. `about`: what only `module` knows, for the error while it does not answer.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    to: ClassVar[Literal["any", "owner", "all"]] = "any"
    callers: ClassVar[tuple[str, ...]] = ()
    within_s: ClassVar[float | None] = 2.0
    about: ClassVar[str] = "the answer"


def reply_type(kind: type[Request[R]]) -> type[R]:
    """Return the type that a request is answered with: of `Request[UsageReport]`, `UsageReport`."""
    found: type[R] = get_args(kind.__orig_bases__[0])[0]  # type: ignore[attr-defined]
    return found
