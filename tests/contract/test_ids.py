"""Ids: any text becomes a valid one, and no two texts the same one."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from streamspace_common.contracts import ids
from streamspace_common.contracts.ids import (
    CatalogId,
    CatalogIdText,
    CommandIdText,
    SessionIdText,
    TemplateIdText,
    UserIdText,
    slug,
)
from streamspace_common.contracts.subjects import token

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
HOSTILE = [
    "",
    "-",
    "--",
    "a--b",
    "a\n",
    "\n",
    "\uff21da",
    "admin\u200b",
    "adm\u0131n",
    "İstanbul",
    "\ud800",
    "a" * 1000,
    "../../etc/passwd",
    "$(reboot)",
    "a.b",
    ">",
    "*",
    "ß",
    "\u202eevil",
    "e\u0301",
    "é",
    "core",
    "x--deadbeef",
]
texts = st.one_of(
    st.text(alphabet=st.characters(codec=None)),
    st.text(alphabet="aA-1.\n", max_size=8),
    st.sampled_from(HOSTILE),
)
lengths = st.integers(min_value=11, max_value=63)


@given(texts, lengths)
@example("a\n", 40)
def test_a_slug_is_always_a_label_of_the_length_asked_for(text: str, length: int) -> None:
    made = slug(text, length)
    assert LABEL.fullmatch(made)
    assert 1 <= len(made) <= length
    assert token(made) == made


@given(texts, texts, lengths)
@example("a", "a\n", 40)
@example("A", "a", 40)
@example("e\u0301", "é", 40)
def test_two_texts_never_have_one_slug(one: str, other: str, length: int) -> None:
    assert (slug(one, length) == slug(other, length)) is (one == other)


@given(texts, lengths)
def test_no_text_can_be_chosen_to_collide_with_anothers_slug(text: str, length: int) -> None:
    made = slug(text, length)
    if made != text:
        assert slug(made, length) != made


@pytest.mark.parametrize("text", ["ada", "firefox-browser", "a1", "x"])
def test_a_label_stays_as_it_is(text: str) -> None:
    assert slug(text) == text


@given(texts, texts)
def test_a_session_id_is_valid_whoever_starts_whatever(username: str, template: str) -> None:
    made = ids.new_session_id(username, template)
    TypeAdapter(SessionIdText).validate_python(made)
    assert len(made) <= ids.SESSION_ID_LENGTH
    assert LABEL.fullmatch(made)


@given(texts, texts)
def test_a_template_id_is_valid_and_tells_catalogs_apart(catalog: str, name: str) -> None:
    of = TypeAdapter(CatalogIdText).validate_python(slug(catalog))
    made = ids.template_id(of, name)
    TypeAdapter(TemplateIdText).validate_python(made)
    token(made)
    assert made.split("_")[0] == of


def test_two_catalogs_never_clash() -> None:
    assert ids.template_id(CatalogId("a"), "b-c") != ids.template_id(CatalogId("a-b"), "c")


def test_new_ids_are_valid_and_new() -> None:
    assert len({ids.new_user_id() for _ in range(100)}) == 100
    TypeAdapter(UserIdText).validate_python(ids.new_user_id())
    TypeAdapter(CommandIdText).validate_python(ids.new_command_id())


@pytest.mark.parametrize("text", ["A", "-a", "a-", "a_b", "a.b", "a\n", "", "a" * 53, "ä"])
def test_what_is_no_session_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        TypeAdapter(SessionIdText).validate_python(text)
