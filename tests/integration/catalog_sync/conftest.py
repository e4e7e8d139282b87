"""Replicas of catalog-sync on a real database, and git repositories to feed them.

Repositories are made by dulwich below the test's folder. A replica has everything a
service has but the bus; what it would publish is read from its outbox.
"""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from dulwich.object_store import BaseObjectStore
from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo
from pydantic import SecretStr
from sqlalchemy import text

from streamspace_catalog_sync import manifest
from streamspace_catalog_sync.addresses import AddressRules
from streamspace_catalog_sync.handlers import CatalogHandlers
from streamspace_catalog_sync.sealing import TokenVault
from streamspace_catalog_sync.source.git import GitSource
from streamspace_catalog_sync.source.limits import Limits
from streamspace_catalog_sync.source.starter import starter_snapshot
from streamspace_catalog_sync.store import CatalogStore, SyncStore, TemplateStore
from streamspace_catalog_sync.syncing import Syncer
from streamspace_common.contracts.catalog import Catalog, CatalogState
from streamspace_common.contracts.events import Event, parse_event
from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.ids import CatalogId, UserId
from streamspace_common.contracts.requests import (
    AddCatalog,
    CatalogRequest,
    ListTemplates,
    SyncReport,
    TemplatePage,
)
from streamspace_common.store.engine import Database
from streamspace_common.testing.waiting import eventually

LINK, SUBMODULE, FILE = 0o120000, 0o160000, 0o100644
OPERATOR = Principal(user_id=UserId("usr-" + "1" * 32), username="olga", role=Role.OPERATOR)


class GitRepository:
    """A bare repository whose branch is moved by `commit`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.path = folder
        self.branch = "main"
        self._repo = Repo.init_bare(str(folder), default_branch=b"main")
        self._files: dict[str, tuple[int, ObjectID]] = {}

    def commit(
        self,
        files: Mapping[str, str | bytes | None] | None = None,
        *,
        links: Mapping[str, str] | None = None,
        submodules: Mapping[str, str] | None = None,
    ) -> str:
        """Write files (None deletes), move the branch, return the commit."""
        store = self._repo.object_store
        for path, content in (files or {}).items():
            if content is None:
                del self._files[path]
                continue
            raw = content.encode() if isinstance(content, str) else content
            self._files[path] = (FILE, self._blob(raw))
        for path, target in (links or {}).items():
            self._files[path] = (LINK, self._blob(target.encode()))
        for path, sha in (submodules or {}).items():
            self._files[path] = (SUBMODULE, ObjectID(sha.encode()))
        return self._move_branch(_tree(store, self._files))

    def commit_endless_folders(self) -> str:
        """A few small objects that unfold to 10**10 files."""
        store = self._repo.object_store
        inside = _tree(store, {"file.txt": (FILE, self._blob(b"x"))})
        for _ in range(10):
            tree = Tree()
            for name in range(10):
                tree.add(f"f{name}".encode(), stat.S_IFDIR, inside)
            store.add_object(tree)
            inside = tree.id
        return self._move_branch(inside)

    def _move_branch(self, tree: ObjectID) -> str:
        commit = Commit()
        commit.tree = tree
        commit.author = commit.committer = b"Ann <ann@example.org>"
        commit.author_time = commit.commit_time = 1_700_000_000
        commit.author_timezone = commit.commit_timezone = 0
        commit.message = b"change"
        ref = Ref(f"refs/heads/{self.branch}".encode())
        if ref in self._repo.refs:
            commit.parents = [self._repo.refs[ref]]
        self._repo.object_store.add_object(commit)
        self._repo.refs[ref] = commit.id
        return commit.id.decode()

    def add_folder(self, folder: Path) -> None:
        """Commit all files below a folder."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.commit({str(path.relative_to(folder)): path.read_bytes() for path in paths})

    def close(self) -> None:
        self._repo.close()

    @property
    def backend(self) -> Repo:
        """For a git server."""
        return self._repo

    def _blob(self, content: bytes) -> ObjectID:
        blob = Blob.from_string(content)
        self._repo.object_store.add_object(blob)
        return blob.id


def _tree(store: BaseObjectStore, files: Mapping[str, tuple[int, ObjectID]]) -> ObjectID:
    tree = Tree()
    folders: dict[str, dict[str, tuple[int, ObjectID]]] = {}
    for path, entry in files.items():
        head, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(head, {})[rest] = entry
        else:
            tree.add(head.encode(), *entry)
    for name, inside in folders.items():
        tree.add(name.encode(), stat.S_IFDIR, _tree(store, inside))
    store.add_object(tree)
    return tree.id


class Replica:
    """One catalog-sync without a bus."""

    def __init__(self, database: Database, folder: Path, **options: Any) -> None:
        interval = options.pop("interval", timedelta(hours=1))
        rules = options.pop("rules", manifest.rules_digest())
        limits = Limits(
            deadline=options.pop("deadline", timedelta(seconds=60)),
            silence=options.pop("silence", timedelta(seconds=10)),
            **options.pop("limits", {}),
        )
        addresses = AddressRules(plain_http=True)
        vault = TokenVault(SecretStr("a-key-of-more-than-thirty-two-characters"))
        self.database = database
        self.catalogs = CatalogStore(database)
        self.syncs = SyncStore(database, interval=interval, rules=rules)
        self.source = options.pop("source", None) or GitSource(
            folder,
            limits=limits,
            private_addresses=options.pop("private_addresses", True),
        )
        self.syncer = Syncer(
            self.syncs,
            self.source,
            starter=starter_snapshot,
            vault=vault,
            corrections=manifest.shipped_corrections(),
            rules=addresses,
            deadline=limits.deadline,
            slots=options.pop("slots", 4),
        )
        self.handlers = CatalogHandlers(
            TemplateStore(database),
            self.catalogs,
            vault=vault,
            rules=addresses,
            wake=self.syncer.wake,
        )
        assert not options, options
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self.syncer.run())

    async def stop(self) -> None:
        await self.syncer.stop()
        await self._end()

    async def kill(self) -> None:
        """End without giving anything back, as a killed process would."""

        async def keep(_claim: object) -> None:
            return

        self.syncs.release = keep  # type: ignore[method-assign, assignment]
        await self._end(cancel=True)

    async def _end(self, *, cancel: bool = False) -> None:
        if self._task is None:
            return
        if cancel:
            self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def add(self, name: str, url: object, **fields: object) -> Catalog:
        values = {"principal": OPERATOR, "name": name, "url": str(url), **fields}
        return await self.handlers.add_catalog(AddCatalog.model_validate(values))

    async def sync(self, id_: str) -> Catalog:
        """Ask for a sync and wait for its end."""
        await self.handlers.sync_catalog(about(id_))
        return await self.settled(id_)

    async def settled(self, id_: str, timeout: float = 40) -> Catalog:
        """The catalog once no sync of it is running."""
        await eventually(
            lambda: self._is_settled(id_), timeout=timeout, message=f"sync of {id_} ends"
        )
        return await self.handlers.get_catalog(about(id_))

    async def _is_settled(self, id_: str) -> bool:
        catalog = await self.handlers.get_catalog(about(id_))
        return catalog.state in {CatalogState.SYNCED, CatalogState.FAILED}

    async def remove(self, id_: str) -> None:
        await self.handlers.remove_catalog(about(id_))

    async def report(self, id_: str) -> SyncReport:
        return await self.handlers.sync_report(about(id_))

    async def templates(self, **query: object) -> TemplatePage:
        values = {"principal": OPERATOR, "limit": 200, **query}
        return await self.handlers.list_templates(ListTemplates.model_validate(values))

    async def ids(self, **query: object) -> list[str]:
        return [template.id for template in (await self.templates(**query)).items]


def about(id_: str) -> CatalogRequest:
    return CatalogRequest(principal=OPERATOR, catalog_id=CatalogId(id_))


async def outbox_events(database: Database) -> list[Event]:
    async with database.transaction() as session:
        rows = await session.execute(text("SELECT headers, payload FROM outbox ORDER BY id"))
        return [parse_event(row.headers["ce-type"], row.payload) for row in rows]


@pytest.fixture(scope="session")
def migrations_package() -> str:
    return "streamspace_catalog_sync"


@pytest.fixture
def make_repository(tmp_path: Path) -> Any:
    made: list[GitRepository] = []

    def make(name: str = "catalog") -> GitRepository:
        made.append(GitRepository(tmp_path / "repositories" / name))
        return made[-1]

    yield make
    for repository in made:
        repository.close()


@pytest_asyncio.fixture
async def make_replica(database: Database, tmp_path: Path) -> AsyncIterator[Callable[..., Replica]]:
    made: list[Replica] = []

    def make(*, start: bool = True, **options: Any) -> Replica:
        replica = Replica(database, tmp_path / f"copies-{len(made)}", **options)
        made.append(replica)
        if start:
            replica.start()
        return replica

    yield make
    for replica in made:
        await replica.stop()


@pytest_asyncio.fixture
async def replica(make_replica: Callable[..., Replica]) -> Replica:
    return make_replica()


@pytest.fixture
def events(database: Database) -> Callable[[], Any]:
    """Everything that was told so far, oldest first."""
    return lambda: outbox_events(database)
