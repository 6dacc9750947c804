"""Price list: what a machine costs an hour, what a language model costs a million tokens, and who says so."""

import tomllib
from typing import Annotated, Final

import msgspec

from quickcomm.kernel.errors import InvalidInputError

HOURS_A_MONTH: Final = 730.0
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Price = Annotated[float, msgspec.Meta(ge=0)]
_Date = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class MachineType(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine that can be rented.

    `core_factor`, `gpu_factor`: work of one core or GPU ÷ that of the one in the unit costs (2.0: twice as fast).
    `source`, `date`: where they differ from the list's.
    """

    name: Annotated[str, msgspec.Meta(min_length=1)]
    cores: Annotated[int, msgspec.Meta(ge=1)]
    memory_mb: Annotated[int, msgspec.Meta(ge=1)]
    price_per_h: _Positive
    gpus: Annotated[int, msgspec.Meta(ge=0)] = 0
    core_factor: _Positive = 1.0
    gpu_factor: _Positive = 1.0
    source: str | None = None
    date: _Date | None = None

    @property
    def cpu(self) -> float:
        """Return its cores, counted in cores of the unit costs."""
        return self.cores * self.core_factor

    @property
    def gpu(self) -> float:
        """Return its GPUs, counted in GPUs of the unit costs."""
        return self.gpus * self.gpu_factor

    def replaces(self, other: "MachineType", *, gpus: bool) -> bool:
        """Return True if it has no less than `other` and costs no more; without `gpus`, GPUs are not looked at."""
        more = self.cpu >= other.cpu and self.memory_mb >= other.memory_mb and (not gpus or self.gpu >= other.gpu)
        return more and self.price_per_h <= other.price_per_h


class Tokens(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a language model behind an API costs."""

    model: str
    input_per_million: _Price
    output_per_million: _Price
    source: str | None = None
    date: _Date | None = None


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price list. `date`, `source`: when it was read, and where."""

    name: str
    currency: Annotated[str, msgspec.Meta(min_length=1)]
    date: _Date
    source: Annotated[str, msgspec.Meta(min_length=1)]
    machine: Annotated[tuple[MachineType, ...], msgspec.Meta(min_length=1)]
    tokens: Tokens | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` where two machines have one name."""
        names = [machine.name for machine in self.machine]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            message = f"two machines are called {twice[0]}"
            raise ValueError(message)


def read_prices(content: bytes) -> Prices:
    """Read TOML. Raises `InvalidInputError` with what is wrong and where."""
    try:
        return msgspec.convert(tomllib.loads(content.decode()), Prices)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInputError(f"Not a price list: {error}. An example is in docs/what-will-it-cost.md.") from error
