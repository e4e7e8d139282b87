"""Kubernetes quantities, as far as the agent counts with them."""

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

_SCALES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
_QUANTITY = re.compile(
    r"(\d+(?:\.\d*)?(?:[eE][+-]?\d{1,2})?|\.\d+)([numkMGTPE]|[KMGTPE]i)?", re.ASCII
)


def amount(quantity: str) -> Decimal:
    """The number a quantity stands for: cores, or bytes.

    Raises:
        ValueError: it is not a quantity.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity[:32]!r} is not a quantity")
    number, suffix = match.groups()
    return Decimal(number) * _SCALES[suffix or ""]


def cpu(quantity: str, share: float = 1.0) -> str:
    """A share of a CPU quantity, in thousandths of a core and at least one of them."""
    part = amount(quantity) * Decimal(str(share)) * 1000
    milli = int(part.to_integral_value(rounding=ROUND_CEILING))
    return f"{max(1, milli)}m"


def memory(quantity: str, share: float = 1.0) -> str:
    """A share of a memory quantity, in whole MiB and at least one of them."""
    part = amount(quantity) * Decimal(str(share)) / 2**20
    return f"{max(1, int(part.to_integral_value(rounding=ROUND_FLOOR)))}Mi"


def size(count: int) -> str:
    """A number of bytes as people read it; in tens, as registries count."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            amount_of = f"{count / scale:.1f}" if count < 10 * scale else f"{count // scale}"
            return f"{amount_of} {unit}"
    return f"{count} bytes"
