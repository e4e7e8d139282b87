"""Quantities, as the agent counts with them."""

from decimal import Decimal

import pytest

from streamspace_agent.runtimes.containers import quantities


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", "2"),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        ("2Gi", str(2 * 2**30)),
        ("1e3", "1000"),
        ("3k", "3000"),
        ("1E", str(10**18)),
        ("24556180Ki", str(24556180 * 1024)),
    ],
)
def test_a_quantity_is_a_number(text: str, number: str) -> None:
    assert quantities.amount(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "much", "1 Gi", "Gi", "1Gib"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantities.amount(text)


def test_shares_are_never_nothing() -> None:
    assert quantities.cpu("1000m", 0.25) == "250m"
    assert quantities.cpu("1m", 0.25) == "1m"
    assert quantities.memory("1Gi", 0.5) == "512Mi"
    assert quantities.memory("1Ki") == "1Mi"


@pytest.mark.parametrize(
    ("count", "told"),
    [(999, "999 bytes"), (1500, "1.5 kB"), (87_400_000, "87 MB"), (1_240_000_000, "1.2 GB")],
)
def test_bytes_are_told_as_people_read_them(count: int, told: str) -> None:
    assert quantities.size(count) == told
