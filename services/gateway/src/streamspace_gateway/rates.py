"""How often one caller may use an expensive route: a moving window in this process.

Several gateways each count for themselves, so the real limit is at most the
configured one times the replicas; it guards the services, it is not a quota.
"""

import math
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from streamspace_common.contracts.problems import Code, ProblemError


class RateLimiter:
    """Counts calls per (what, who)."""

    def __init__(self, rates: dict[str, str]) -> None:
        """`rates` maps what is limited to `<count>/<period>`, for instance `120/minute`.

        Raises:
            ValueError: a rate is not of that form.
        """
        self._rates: dict[str, RateLimitItem] = {what: parse(rate) for what, rate in rates.items()}
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def check(self, what: str, who: str) -> None:
        """Count one call.

        Raises:
            ProblemError: `too-many-requests` with the seconds to wait.
        """
        rate = self._rates[what]
        if self._window.hit(rate, what, who):
            return
        reset = self._window.get_window_stats(rate, what, who).reset_time
        wait = max(1, math.ceil(reset - time.time()))
        raise ProblemError.of(
            Code.TOO_MANY_REQUESTS,
            f"At most {rate.amount} of these in {rate.get_expiry()} seconds; "
            f"try again in {wait} s.",
            retry_after=wait,
        )
