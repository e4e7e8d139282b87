"""What one user may hold at a time; every session that has not ended counts."""

from dataclasses import dataclass

_GIB = 1024**3


class QuotaExceededError(Exception):
    """The message tells which limit, what is used and what was asked for."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Sessions, CPU in thousandths of a core, memory in bytes."""

    sessions: int
    cpu_milli: int
    memory_bytes: int

    def plus(self, more: "Usage") -> "Usage":
        return Usage(
            self.sessions + more.sessions,
            self.cpu_milli + more.cpu_milli,
            self.memory_bytes + more.memory_bytes,
        )


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits in the same units; 0 stands for no limit."""

    sessions: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0


def check(after: Usage, quota: Quota) -> None:
    """Refuse what would exceed a limit; `after` includes the session asked for.

    Raises:
        QuotaExceededError: with the limit in words.
    """
    if quota.sessions and after.sessions > quota.sessions:
        raise QuotaExceededError(
            f"You have {after.sessions - 1} sessions of {quota.sessions} allowed. "
            "Delete one to start another; hibernated ones count too."
        )
    if quota.cpu_milli and after.cpu_milli > quota.cpu_milli:
        raise QuotaExceededError(
            f"Your sessions would hold {after.cpu_milli / 1000:g} CPU cores of "
            f"{quota.cpu_milli / 1000:g} allowed. Delete one, or ask for less."
        )
    if quota.memory_bytes and after.memory_bytes > quota.memory_bytes:
        raise QuotaExceededError(
            f"Your sessions would hold {after.memory_bytes / _GIB:.2f} GiB of memory of "
            f"{quota.memory_bytes / _GIB:.2f} GiB allowed. Delete one, or ask for less."
        )
