"""Kubernetes quantities (`500m`, `1.5`, `2Gi`) as numbers, with errors a person can act on.

CPU is counted in thousandths of a core, memory in bytes, both rounded up so that
what is reserved is never less than what was asked for.
"""

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from streamspace_common.contracts.catalog import ResourceAmounts

_QUANTITY = re.compile(
    r"^\+?(\d{1,18}(?:\.\d{0,9})?|\.\d{1,9})(?:([eE][+-]?\d{1,2})|(\D{1,2}))?$", re.ASCII
)
_SUFFIXES: dict[str, Decimal] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(1000),
    "M": Decimal(1000) ** 2,
    "G": Decimal(1000) ** 3,
    "T": Decimal(1000) ** 4,
    "P": Decimal(1000) ** 5,
    "E": Decimal(1000) ** 6,
    "Ki": Decimal(1024),
    "Mi": Decimal(1024) ** 2,
    "Gi": Decimal(1024) ** 3,
    "Ti": Decimal(1024) ** 4,
    "Pi": Decimal(1024) ** 5,
    "Ei": Decimal(1024) ** 6,
}
_MAX_LENGTH = 32

MIN_CPU_MILLI = 10
MAX_CPU_MILLI = 256_000
MIN_MEMORY = 16 * 1024**2
MAX_MEMORY = 4 * 1024**4


class QuantityError(ValueError):
    """A quantity cannot be used; the message says what would be right."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


@dataclass(frozen=True)
class Demand:
    """What one session reserves: CPU in thousandths of a core, memory in bytes."""

    cpu_milli: int
    memory_bytes: int


def parse(text: str) -> Decimal:
    """The number a quantity stands for.

    Raises:
        ValueError: it is not a quantity.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise ValueError(f"{text[:_MAX_LENGTH]!r} is not a quantity")
    number, exponent, suffix = match.groups()
    if suffix is not None and suffix not in _SUFFIXES:
        raise ValueError(f"{suffix!r} is not a unit of quantities")
    scale = _SUFFIXES[suffix] if suffix is not None else Decimal(f"1{exponent or 'e0'}")
    return Decimal(number) * scale


def cpu_milli(text: str) -> int:
    """CPU in thousandths of a core.

    Raises:
        QuantityError: not a quantity, or outside 10m to 256.
    """
    value = _number("cpu", text, "for instance 500m or 2") * 1000
    if not MIN_CPU_MILLI <= value <= MAX_CPU_MILLI:
        raise QuantityError("cpu", f"{text!r} is outside 10m to 256 cores")
    return _ceiling(value)


def memory_bytes(text: str) -> int:
    """Memory in bytes.

    Raises:
        QuantityError: not a quantity, or outside 16Mi to 4Ti.
    """
    value = _number("memory", text, "for instance 512Mi or 2Gi")
    if not MIN_MEMORY <= value <= MAX_MEMORY:
        hint = " (`m` means thousandths, `M` millions)" if text.endswith("m") else ""
        raise QuantityError("memory", f"{text!r} is outside 16Mi to 4Ti bytes{hint}")
    return _ceiling(value)


def demand(resources: ResourceAmounts) -> Demand:
    """What a session with these resources reserves.

    Raises:
        QuantityError: see `cpu_milli` and `memory_bytes`.
    """
    return Demand(cpu_milli(resources.cpu), memory_bytes(resources.memory))


def _number(field: str, text: str, example: str) -> Decimal:
    try:
        return parse(text)
    except ValueError as error:
        raise QuantityError(field, f"{error}; write {example}") from None


def _ceiling(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_CEILING))
