"""Several replicas on one database, and replicas that die."""

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from streamspace_catalog_sync.domain import Snapshot, SourceFile
from streamspace_catalog_sync.manifest import rules_digest
from streamspace_catalog_sync.ports import SyncResult
from streamspace_catalog_sync.source.starter import starter_snapshot
from streamspace_catalog_sync.syncing import Republisher
from streamspace_common.contracts.catalog import CatalogState
from streamspace_common.contracts.events import TemplatePublished
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import CatalogRequest
from streamspace_common.testing.waiting import eventually

MANIFEST = (
    "apiVersion: stream.space/v1alpha1\nkind: Template\nmetadata: {name: one}\n"
    "spec: {displayName: One, baseImage: registry.example/one:1, ports: [{containerPort: 80}]}\n"
)


class HeldSource:
    """Gives a snapshot once it is let go; counts who asks."""

    def __init__(self) -> None:
        self.reads = 0
        self.let_go = asyncio.Event()

    async def read(self, *_: Any, **__: Any) -> Snapshot:
        self.reads += 1
        await self.let_go.wait()
        return Snapshot("c" * 40, (SourceFile("one.yaml", MANIFEST.encode()),))

    async def forget_all_but(self, catalogs: Any) -> None:
        return


class BrokenSource(HeldSource):
    """Fails in a way nobody has thought of."""

    async def read(self, *_: Any, **__: Any) -> Snapshot:
        raise ZeroDivisionError


async def test_two_replicas_sync_a_catalog_once_and_publish_once(
    make_replica: Any, make_repository: Any, events: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": MANIFEST})
    first, second = make_replica(), make_replica()
    await first.add("lab", repository.path)
    second.syncer.wake()
    await first.settled("lab")
    kinds = [event.KIND for event in await events()]
    assert kinds == ["added", "published", "synced"]


async def test_a_catalog_is_read_by_one_replica_at_a_time(make_replica: Any) -> None:
    source = HeldSource()
    first, second = make_replica(source=source), make_replica(source=source)
    await first.add("lab", "/srv/lab")
    await eventually(lambda: source.reads == 1)
    second.syncer.wake()
    await second.handlers.sync_catalog(_about("lab"))
    source.let_go.set()
    # The request that came meanwhile is not lost: it is carried out afterwards.
    await eventually(lambda: source.reads == 2)
    await first.settled("lab")
    assert source.reads == 2


async def test_a_catalog_left_syncing_by_a_dead_replica_is_taken_over(
    make_replica: Any, database: Any
) -> None:
    held = HeldSource()
    dead = make_replica(source=held)
    await dead.add("lab", "/srv/lab")
    await eventually(lambda: held.reads == 1)
    await dead.kill()
    assert await _state(database) == "syncing"

    source = HeldSource()
    source.let_go.set()
    heir = make_replica(source=source, start=False)
    assert await heir.syncs.claim(timedelta(seconds=60)) is None
    await _let_lease_run_out(database)
    heir.start()
    assert (await heir.settled("lab")).template_count == 1


async def test_what_a_replica_writes_after_losing_its_claim_is_not_kept(
    make_replica: Any, make_repository: Any, database: Any, events: Any
) -> None:
    replica = make_replica(start=False)
    await replica.add("lab", "/srv/lab")
    late = await replica.syncs.claim(timedelta(seconds=60))
    await _let_lease_run_out(database)
    current = await replica.syncs.claim(timedelta(seconds=60))
    before = await events()
    assert await replica.syncs.fail(late, "too late") is SyncResult.LOST
    assert await replica.syncs.unchanged(late) is SyncResult.LOST
    assert await events() == before
    assert await replica.syncs.fail(current, "in time") is SyncResult.FAILED


async def test_a_catalog_removed_while_it_is_read_stays_removed(make_replica: Any) -> None:
    source = HeldSource()
    replica = make_replica(source=source)
    await replica.add("lab", "/srv/lab")
    await eventually(lambda: source.reads == 1)
    await replica.remove("lab")
    source.let_go.set()
    await eventually(lambda: not replica.syncer._running)
    assert await replica.ids() == []


async def test_a_sync_that_crashes_ends_as_failed_and_is_not_repeated_at_once(
    make_replica: Any,
) -> None:
    replica = make_replica(source=BrokenSource())
    await replica.add("lab", "/srv/lab")
    catalog = await replica.settled("lab")
    assert catalog.state is CatalogState.FAILED
    assert "failed on our side" in catalog.error
    due = await replica.syncs.next_due()
    assert due is not None
    assert due > timedelta(seconds=30)


async def test_catalogs_are_looked_at_again_after_the_interval(
    make_replica: Any, make_repository: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": MANIFEST})
    replica = make_replica(interval=timedelta(milliseconds=100))
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    repository.commit({"two.yaml": MANIFEST.replace("one", "two")})

    async def two() -> bool:
        return bool(await replica.ids() == ["lab_one", "lab_two"])

    await eventually(two, timeout=30)


async def test_syncs_go_on_after_the_database_was_away(
    make_replica: Any, make_repository: Any, postgres_server: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": MANIFEST})
    replica = make_replica()
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    postgres_server.restart()
    repository.commit({"two.yaml": MANIFEST.replace("one", "two")})

    async def asked() -> bool:
        try:
            await replica.handlers.sync_catalog(_about("lab"))
        except ProblemError as error:
            assert error.problem.code is Code.SERVICE_UNAVAILABLE
            return False
        return True

    await eventually(asked)
    assert (await replica.settled("lab")).template_count == 2


async def test_the_starter_catalog_is_kept_as_the_settings_say(replica: Any, events: Any) -> None:
    snapshot = starter_snapshot()
    for _ in range(2):
        await replica.catalogs.keep_starter(
            wanted=True, commit=snapshot.commit, rules=rules_digest()
        )
        replica.syncer.wake()
        catalog = await replica.settled("starter")
    assert catalog.built_in
    assert catalog.counts.accepted == len(snapshot.files)
    assert "starter_desktop" in await replica.ids()
    kinds = [event.KIND for event in await events()]
    assert kinds.count("published") == len(snapshot.files)
    await replica.catalogs.keep_starter(wanted=False, commit=snapshot.commit, rules=rules_digest())
    assert await replica.ids() == []


async def test_templates_are_published_again_before_the_stream_forgets_them(
    replica: Any, make_repository: Any, events: Any, database: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": MANIFEST, "two.yaml": MANIFEST.replace("one", "two")})
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    async with database.transaction() as session:
        await session.execute(
            text("UPDATE templates SET published_at = now() - interval '8 days' WHERE id = :id"),
            {"id": "lab_two"},
        )
    week = timedelta(days=7)
    assert await replica.syncs.republish(week, limit=10) == 1
    assert await replica.syncs.republish(week, limit=10) == 0
    first, _, again = [e for e in await events() if isinstance(e, TemplatePublished)]
    assert again.about == "lab_two"
    assert again.id != first.id
    assert again.manifest.spec.base_image == "registry.example/two:1"


async def test_everything_is_published_again_at_start_when_asked(
    replica: Any, make_repository: Any, events: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": MANIFEST})
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    republisher = Republisher(replica.syncs, after=timedelta(days=7), everything_first=True)
    task = asyncio.create_task(republisher.run())

    async def twice() -> bool:
        kinds = [event.KIND for event in await events()]
        return kinds.count("published") == 2

    await eventually(twice)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _about(id_: str) -> CatalogRequest:
    return CatalogRequest.model_validate(
        {
            "principal": {"userId": "usr-" + "1" * 32, "username": "olga", "role": "operator"},
            "catalogId": id_,
        }
    )


async def _state(database: Any) -> str:
    async with database.transaction() as session:
        return str((await session.execute(text("SELECT state FROM catalogs"))).scalar())


async def _let_lease_run_out(database: Any) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE catalogs SET claimed_until = now() - interval '1s'"))
