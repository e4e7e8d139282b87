"""Labels stay few."""

from streamspace_common.runtime.labels import BoundedLabel


def test_the_first_values_pass_and_later_ones_are_other():
    label = BoundedLabel(2)
    assert [label(value) for value in ("a", "b", "c", "a")] == ["a", "b", "other", "a"]


def test_a_missing_value_is_none_and_takes_no_room():
    label = BoundedLabel(1)
    assert [label(value) for value in (None, "a", None)] == ["none", "a", "none"]
