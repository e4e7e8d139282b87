"""A clock that stands still until it is told to move."""

from datetime import UTC, datetime, timedelta

import pytest

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class FakeClock:
    """`runtime.clock.Clock` for tests: `advance` moves both of its readings."""

    def __init__(self, now: datetime = START) -> None:
        self._start = now
        self._elapsed = 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._elapsed += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
