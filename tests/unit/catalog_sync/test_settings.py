"""Settings from the environment."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from streamspace_catalog_sync.settings import Settings

PREFIX = "STREAMSPACE_CATALOG_SYNC_"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", "postgresql://catalog@localhost/catalog")


@pytest.mark.parametrize("written", ["900", "900.0", "PT15M"])
def test_durations_are_seconds_or_iso_8601(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv(f"{PREFIX}SYNC_INTERVAL", written)
    assert Settings().sync_interval == timedelta(minutes=15)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKEN_KEY", "short"),
        ("SYNC_INTERVAL", "soon"),
        ("SYNC_INTERVAL", "0"),
        ("REPUBLISH_AFTER", "P29D"),
        ("CONCURRENT_SYNCS", "0"),
    ],
)
def test_values_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ValidationError):
        Settings()
