"""Forgets what can no longer matter: ended sign-ins, and failures of another day."""

import asyncio
from datetime import timedelta

from streamspace_auth.ports import Store
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

EVERY = 3600.0
"""Seconds."""
FAILURES_KEPT = timedelta(days=1)
"""At least the longest window that may be configured."""


async def clean(store: Store) -> None:
    """One round. Replicas may do it at the same time."""
    async with store.transaction() as tx:
        sign_ins = await tx.families.forget_before(tx.now)
        failures = await tx.failures.forget_before(tx.now - FAILURES_KEPT)
    if sign_ins or failures:
        log.info("housekeeping", sign_ins=sign_ins, failures=failures)


async def keep_clean(store: Store) -> None:
    """A round each hour, for ever; an absent database is waited out."""
    while True:
        try:
            await clean(store)
        except ProblemError as error:
            log.warning("housekeeping put off", reason=error.problem.detail)
        await asyncio.sleep(EVERY)
