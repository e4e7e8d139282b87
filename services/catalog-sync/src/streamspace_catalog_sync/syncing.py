"""Keeps catalogs up to date: takes what is due, reads it, and stores what came of it.

Several catalogs are read at once, each under a claim of its own, so one that hangs
holds up none of the others. Every replica runs this; a catalog is read by one of
them at a time. A catalog that cannot be read keeps its templates: only a commit that
was read completely may withdraw any.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

from prometheus_client import Counter, Histogram

from streamspace_catalog_sync.addresses import AddressError, AddressRules, parse_address
from streamspace_catalog_sync.domain import (
    Reading,
    Snapshot,
    SourceError,
    SourceFile,
    Unchanged,
)
from streamspace_catalog_sync.manifest import Corrections, read_file
from streamspace_catalog_sync.plan import Resolved, resolve
from streamspace_catalog_sync.ports import Claim, SealError, Source, SyncResult, Syncs, Vault
from streamspace_common.contracts.ids import CatalogId
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.runtime.logging import bind, get_logger

log = get_logger(__name__)

SYNCS: Final = Counter(
    "streamspace_catalog_syncs_total",
    "Syncs that ended, by result: changed, unchanged, failed, or lost to another replica.",
    labelnames=("result",),
)
SYNC_DURATION: Final = Histogram(
    "streamspace_catalog_sync_duration_seconds",
    "Time from taking a catalog to having stored what came of it.",
    buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)

_LOOK: Final = timedelta(seconds=15)
"""The longest wait between looks: finds what a replica that died has left behind."""
_LEASE_MARGIN: Final = timedelta(seconds=60)
"""What a claim lasts beyond the deadline of reading: time to parse and to store."""
_CRASHED: Final = "catalog-invalid: Reading the catalog failed on our side; the log says more."
_DATABASE_PAUSE: Final = 2.0
"""Seconds between looks while the database is away."""
_REPUBLISH_EVERY: Final = timedelta(hours=1)
_REPUBLISH_BATCH: Final = 200


class Syncer:
    """Runs the syncs of this replica.

    Args:
        syncs: claims and results, in the database.
        source: git.
        starter: gives the files of the starter catalog.
        vault: opens stored tokens.
        corrections: what is known of images.
        rules: which addresses are allowed now, whatever was when they were added.
        deadline: of reading one catalog.
        slots: how many are read at once.
    """

    def __init__(
        self,
        syncs: Syncs,
        source: Source,
        *,
        starter: "Starter",
        vault: Vault,
        corrections: Corrections,
        rules: AddressRules,
        deadline: timedelta,
        slots: int,
    ) -> None:
        self._syncs = syncs
        self._source = source
        self._starter = starter
        self._vault = vault
        self._corrections = corrections
        self._rules = rules
        self._lease = deadline + _LEASE_MARGIN
        self._slots = asyncio.Semaphore(slots)
        # Every result exists from the start: a rate over a missing series is no rate.
        self._results = {result: SYNCS.labels(result=result.value) for result in SyncResult}
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._woken = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Something may be due now."""
        self._woken.set()

    async def run(self) -> None:
        """Sync what is due, until `stop`."""
        try:
            while not self._stopping:
                self._woken.clear()
                try:
                    await self._forget_removed()
                    await self._take_all()
                    await self._pause()
                except ProblemError as error:
                    # What is being read goes on meanwhile.
                    log.warning("no syncs can begin", reason=error.problem.detail)
                    await asyncio.sleep(_DATABASE_PAUSE)
        finally:
            await self._abandon()

    async def stop(self) -> None:
        """Take nothing more and give back what is being read."""
        self._stopping = True
        self.wake()
        await self._abandon()

    async def _take_all(self) -> None:
        """Begin all that is due; waits while all slots are taken."""
        while not self._stopping:
            await self._slots.acquire()
            try:
                claim = await self._syncs.claim(self._lease)
            except BaseException:
                self._slots.release()
                raise
            if claim is None:
                self._slots.release()
                return
            task = asyncio.create_task(self._sync(claim), name=f"sync:{claim.catalog}")
            self._running[task] = claim
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        claim = self._running.pop(task)
        self._slots.release()
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sync not settled", catalog_id=claim.catalog, exc_info=error)

    async def _pause(self) -> None:
        due = await self._syncs.next_due()
        wait = _LOOK if due is None else min(max(due, timedelta(milliseconds=50)), _LOOK)
        try:
            async with asyncio.timeout(wait.total_seconds()):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _abandon(self) -> None:
        """End the running syncs; each kills its reader and gives its catalog back."""
        running = dict(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # Here and not in the task: one that is cancelled before its first step runs nothing.
        for claim in running.values():
            await self._release(claim)

    async def _sync(self, claim: Claim) -> None:
        with bind(catalog_id=claim.catalog), SYNC_DURATION.time():
            attempt = asyncio.create_task(self._outcome(claim))
            try:
                await asyncio.wait({attempt})
            except asyncio.CancelledError:
                attempt.cancel()
                await asyncio.wait({attempt})
                raise
            result = await self._settle(claim, attempt)
            self._results[result].inc()
            log.info("catalog synced", result=result.value, url=claim.url)

    async def _settle(self, claim: Claim, attempt: asyncio.Task[SyncResult]) -> SyncResult:
        crash = attempt.exception()
        if crash is None:
            return attempt.result()
        if isinstance(crash, ProblemError):
            # The database is away: the lease runs out and somebody tries again.
            log.warning("sync not stored", reason=crash.problem.detail)
            return SyncResult.LOST
        log.error("sync crashed", exc_info=crash)
        return await self._syncs.fail(claim, _CRASHED)

    async def _outcome(self, claim: Claim) -> SyncResult:
        try:
            found = await self._read(claim)
        except (SourceError, SealError, AddressError) as error:
            reason = str(error) if isinstance(error, SourceError) else f"catalog-invalid: {error}"
            log.warning("catalog cannot be read", url=claim.url, reason=reason)
            return await self._syncs.fail(claim, reason)
        if isinstance(found, Unchanged):
            return await self._syncs.unchanged(claim)
        # Thousands of manifests take seconds; the event loop answers requests meanwhile.
        resolved = await asyncio.to_thread(read_all, claim.catalog, found.files, self._corrections)
        return await self._syncs.finish(claim, found.commit, resolved)

    async def _read(self, claim: Claim) -> Snapshot | Unchanged:
        if claim.built_in:
            snapshot = self._starter()
            return Unchanged(snapshot.commit) if snapshot.commit == claim.known_commit else snapshot
        token = claim.sealed_token
        return await self._source.read(
            claim.catalog,
            parse_address(claim.url, self._rules),
            branch=claim.branch,
            token=self._vault.open(claim.catalog, token) if token is not None else None,
            known_commit=claim.known_commit,
        )

    async def _release(self, claim: Claim) -> None:
        try:
            await self._syncs.release(claim)
        except ProblemError:
            log.warning("claim not given back; it runs out by itself", catalog_id=claim.catalog)

    async def _forget_removed(self) -> None:
        """Delete copies nobody needs, while no reader may be writing a new one."""
        if self._running:
            return
        known = []
        for catalog, url in await self._syncs.addresses():
            try:
                known.append((catalog, parse_address(url, self._rules)))
            except AddressError:
                continue
        await self._source.forget_all_but(known)


class Starter(Protocol):
    def __call__(self) -> Snapshot: ...


class Republishing(Protocol):
    async def republish(self, older_than: timedelta, *, limit: int) -> int: ...


class Republisher:
    """Publishes templates anew before the event stream forgets them.

    A session service with a new database learns all templates from EVENTS, which keeps
    30 days; so each template's newest event must never be that old.
    """

    def __init__(self, store: Republishing, *, after: timedelta, everything_first: bool) -> None:
        self._store = store
        self._after = after
        self._everything = everything_first

    async def run(self) -> None:
        """Look every hour, for ever."""
        while True:
            if self._everything:
                await self._publish(timedelta(0))
                self._everything = False
            await self._publish(self._after)
            await asyncio.sleep(_REPUBLISH_EVERY.total_seconds())

    async def _publish(self, older_than: timedelta) -> None:
        total = 0
        while True:
            published = await self._store.republish(older_than, limit=_REPUBLISH_BATCH)
            total += published
            if published < _REPUBLISH_BATCH:
                break
        if total:
            log.info("templates published again", templates=total)


def read_all(catalog: CatalogId, files: Sequence[SourceFile], corrections: Corrections) -> Resolved:
    """What a catalog's files make, all of them."""
    readings: list[Reading] = []
    for file in files:
        readings.extend(read_file(file, corrections))
    return resolve(catalog, readings)
