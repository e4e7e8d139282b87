"""Rotation, reuse, and the two tabs that refresh in one moment."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from streamspace_auth.domain.families import (
    Family,
    FamilyRules,
    RefreshToken,
    Verdict,
    digest,
    judge,
    revoked,
    start_family,
    successor,
)
from streamspace_common.contracts.ids import new_user_id

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
RULES = FamilyRules()


def started() -> tuple[Family, RefreshToken]:
    family, issued = start_family(new_user_id(), NOW, RULES)
    return family, issued.kept


def test_a_token_is_long_random_and_kept_as_a_digest_only() -> None:
    family, issued = start_family(new_user_id(), NOW, RULES)
    _, another = start_family(new_user_id(), NOW, RULES)
    assert issued.text != another.text
    assert len(issued.text) >= 43
    assert issued.kept.digest == digest(issued.text)
    assert issued.text.encode() not in issued.kept.digest
    assert issued.kept.family_id == family.id


def test_a_live_token_is_rotated() -> None:
    family, token = started()
    assert judge(family, token, NOW, RULES) is Verdict.ROTATE
    after = successor(family, token, NOW + timedelta(days=1), RULES).kept
    assert (after.family_id, after.generation) == (family.id, 2)
    assert after.expires_at == NOW + timedelta(days=8)


def test_no_token_outlives_its_family() -> None:
    family, token = started()
    late = successor(family, token, NOW + timedelta(days=29), RULES).kept
    assert late.expires_at == family.expires_at == NOW + timedelta(days=30)
    assert judge(family, late, NOW + timedelta(days=30), RULES) is Verdict.EXPIRED


def test_a_token_nobody_used_expires() -> None:
    family, token = started()
    assert judge(family, token, NOW + timedelta(days=7), RULES) is Verdict.EXPIRED


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (timedelta(seconds=-0.2), Verdict.GRACE),
        (timedelta(0), Verdict.GRACE),
        (timedelta(seconds=10), Verdict.GRACE),
        (timedelta(seconds=10.001), Verdict.REUSED),
        (timedelta(days=9), Verdict.REUSED),
    ],
)
def test_a_spent_token_has_its_grace_and_is_a_reuse_after_it(
    after: timedelta, verdict: Verdict
) -> None:
    family, token = started()
    spent = replace(token, rotated_at=NOW)
    assert judge(family, spent, NOW + after, RULES) is verdict


def test_nothing_of_a_revoked_family_is_good() -> None:
    family, token = started()
    gone = revoked(family, NOW)
    assert judge(gone, token, NOW, RULES) is Verdict.REVOKED
    assert judge(gone, replace(token, rotated_at=NOW), NOW, RULES) is Verdict.REVOKED
    assert revoked(gone, NOW + timedelta(days=1)) == gone
