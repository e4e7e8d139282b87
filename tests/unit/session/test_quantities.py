"""Quantities as Kubernetes reads them, and errors that say what would be right."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_common.contracts.catalog import ResourceAmounts
from streamspace_session.policy.quantities import (
    Demand,
    QuantityError,
    cpu_milli,
    demand,
    memory_bytes,
    parse,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("0", 0), ("+2", 2), ("1.5", "1.5"), (".5", "0.5"), ("5.", 5),
        ("500m", "0.5"), ("250u", "0.00025"), ("1n", "1e-9"), ("2k", 2000), ("1M", 10**6),
        ("1Ki", 1024), ("1.5Gi", 1536 * 2**20), ("2Ti", 2 * 2**40), ("1e3", 1000),
        ("1E3", 1000), ("1E", 10**18), ("12e-1", "1.2"), ("1Pi", 2**50), ("1Ei", 2**60),
    ],
)  # fmt: skip
def test_a_quantity_is_its_number(text, value):
    assert parse(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "1 ", "-1", "1GB", "1gi", "ten", "0x10", "1,5", "1.5.2", "1e", "1e999", "Gi",
     "1" * 40, "\u0661", "1\n", "NaN", "Infinity", "1e3Gi"],
)  # fmt: skip
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize(("text", "milli"), [("2", 2000), ("500m", 500), ("0.0101", 11)])
def test_cpu_is_counted_in_thousandths_rounded_up(text, milli):
    assert cpu_milli(text) == milli


@pytest.mark.parametrize("text", ["0", "9m", "257", "1Gi"])
def test_cpu_has_bounds(text):
    with pytest.raises(QuantityError, match="outside 10m to 256") as error:
        cpu_milli(text)
    assert error.value.field == "cpu"


@pytest.mark.parametrize(("text", "size"), [("512Mi", 2**29), ("2G", 2 * 10**9)])
def test_memory_is_counted_in_bytes(text, size):
    assert memory_bytes(text) == size


def test_thousandths_of_bytes_are_taken_for_the_slip_they_are():
    with pytest.raises(QuantityError, match="`m` means thousandths"):
        memory_bytes("512m")


def test_what_a_session_reserves():
    assert demand(ResourceAmounts(cpu="1500m", memory="1Gi")) == Demand(1500, 2**30)


@given(st.text(max_size=40))
def test_any_text_is_a_quantity_or_a_clear_error(text):
    try:
        assert parse(text) >= 0
    except ValueError as error:
        assert str(error)
