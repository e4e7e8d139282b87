"""Catalogs over the network: a real git server, servers that hang, and tokens."""

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

import pytest
from dulwich.server import DictBackend
from dulwich.web import HTTPGitApplication, WSGIRequestHandlerLogger, WSGIServerLogger
from sqlalchemy import text

from streamspace_common.contracts.catalog import CatalogState
from streamspace_common.testing.waiting import eventually

TOKEN = "glpat-very-secret"


def manifest(name: str) -> str:
    return (
        "apiVersion: stream.space/v1alpha1\nkind: Template\n"
        f"metadata: {{name: {name}}}\nspec:\n  displayName: {name}\n"
        f"  baseImage: registry.example/{name}:1\n  ports: [{{containerPort: 8080}}]\n"
    )


class GitServer:
    """A smart HTTP git server in a thread, with basic authentication where a token is set."""

    def __init__(self, repository: Any, token: str | None = None) -> None:
        self.requests: list[str] = []
        self.redirect_to: str | None = None
        self._token = token
        self._app = HTTPGitApplication(DictBackend({"/lab": repository.backend}))
        self._server: WSGIServer = make_server(
            "127.0.0.1",
            0,
            self._answer,
            handler_class=WSGIRequestHandlerLogger,
            server_class=WSGIServerLogger,
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}/lab"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if self.redirect_to is not None:
            start("302 Found", [("Location", self.redirect_to), ("Content-Length", "0")])
            return [b""]
        if self._token is not None and not self._is_known(environ):
            start("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Length", "0")])
            return [b""]
        return self._app(environ, start)

    def _is_known(self, environ: dict[str, Any]) -> bool:
        _, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        return base64.b64decode(credentials).decode().endswith(f":{self._token}")


@pytest.fixture
def serve_git() -> Iterator[Callable[..., GitServer]]:
    servers: list[GitServer] = []

    def serve(repository: Any, token: str | None = None) -> GitServer:
        servers.append(GitServer(repository, token))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/lab"


async def test_a_catalog_is_fetched_and_then_fetched_incrementally(
    replica: Any, make_repository: Any, serve_git: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    server = serve_git(repository)
    await replica.add("lab", server.url)
    catalog = await replica.settled("lab")
    assert catalog.error is None
    assert await replica.ids() == ["lab_one"]

    repository.commit({"two.yaml": manifest("two")})
    commit = repository.commit({"three.yaml": manifest("three")})
    catalog = await replica.sync("lab")
    assert (catalog.commit, catalog.error) == (commit, None)
    assert await replica.ids() == ["lab_one", "lab_three", "lab_two"]

    server.requests.clear()
    await replica.sync("lab")
    assert not [line for line in server.requests if "git-upload-pack" in line and "POST" in line]


async def test_a_damaged_copy_is_made_anew(
    replica: Any, make_repository: Any, serve_git: Any, tmp_path: Path
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("lab", serve_git(repository).url)
    await replica.settled("lab")
    (copy,) = tmp_path.glob("copies-*/lab-*.git")
    for pack in (copy / "objects" / "pack").iterdir():
        pack.unlink()
    repository.commit({"two.yaml": manifest("two")})
    catalog = await replica.sync("lab")
    assert catalog.error is None
    assert await replica.ids() == ["lab_one", "lab_two"]


async def test_the_copy_of_a_removed_catalog_is_deleted(
    replica: Any, make_repository: Any, serve_git: Any, tmp_path: Path
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("lab", serve_git(repository).url)
    await replica.settled("lab")
    await replica.remove("lab")
    await eventually(lambda: not list(tmp_path.glob("copies-*/lab-*.git")))


async def test_a_token_opens_a_private_repository_and_shows_nowhere(
    replica: Any,
    make_repository: Any,
    serve_git: Any,
    database: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    server = serve_git(repository, TOKEN)
    await replica.add("lab", server.url, token=TOKEN)
    catalog = await replica.settled("lab")
    assert catalog.error is None
    assert await replica.ids() == ["lab_one"]

    assert TOKEN.encode() not in catalog.to_json()
    async with database.transaction() as session:
        for table in ("catalogs", "outbox"):
            for row in await session.execute(text(f"SELECT t::text FROM {table} t")):
                assert TOKEN not in row[0]
                assert TOKEN.encode().hex() not in row[0]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path
    captured = capfd.readouterr()
    assert TOKEN not in captured.out + captured.err


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_a_private_repository_without_its_token_is_told(
    replica: Any, make_repository: Any, serve_git: Any, token: str | None
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("lab", serve_git(repository, TOKEN).url, token=token)
    catalog = await replica.settled("lab")
    assert catalog.state is CatalogState.FAILED
    assert catalog.error.startswith("catalog-refused: ")


async def test_a_token_does_not_follow_a_redirect_to_another_host(
    replica: Any, make_repository: Any, serve_git: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    elsewhere = serve_git(repository, TOKEN)
    asked = serve_git(repository, TOKEN)
    asked.redirect_to = f"{elsewhere.url}/info/refs?service=git-upload-pack"
    await replica.add("lab", asked.url, token=TOKEN)
    catalog = await replica.settled("lab")
    assert elsewhere.requests
    assert catalog.error.startswith("catalog-refused: ")


async def test_a_server_that_is_silent_ends_as_unreachable_and_holds_up_nobody(
    make_replica: Any, make_repository: Any, silent_server: str
) -> None:
    replica = make_replica(slots=2, silence=timedelta(seconds=2), deadline=timedelta(seconds=30))
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("silent", silent_server)
    await replica.add("lab", repository.path)
    assert (await replica.settled("lab")).state is CatalogState.SYNCED
    catalog = await replica.settled("silent")
    assert catalog.state is CatalogState.FAILED
    assert catalog.error.startswith("catalog-unreachable: 127.0.0.1 ")


async def test_a_server_that_drips_is_cut_off_at_the_deadline(
    make_replica: Any, silent_server: str
) -> None:
    # Longer silence allowed than time in all: only the deadline can end it.
    replica = make_replica(silence=timedelta(seconds=60), deadline=timedelta(seconds=2))
    await replica.add("drip", silent_server)
    catalog = await replica.settled("drip")
    assert catalog.error.startswith("catalog-unreachable: ")
    assert "within 2 seconds" in catalog.error


async def test_stopping_does_not_wait_for_a_server_that_is_silent(
    make_replica: Any, silent_server: str, database: Any
) -> None:
    replica = make_replica(silence=timedelta(seconds=60))
    await replica.add("silent", silent_server)
    await eventually(lambda: bool(replica.syncer._running))
    await replica.stop()
    async with database.transaction() as session:
        claim = (await session.execute(text("SELECT claim FROM catalogs"))).scalar()
    assert claim is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/lab", "catalog-unreachable: 127.0.0.1 "),
        ("https://no-such-host.invalid/lab", "catalog-unreachable: The host no-such-host.invalid"),
        ("http://169.254.169.254/latest", "catalog-invalid: 169.254.169.254 is refused"),
        ("ssh://git@127.0.0.1:1/lab", "catalog-"),
    ],
)
async def test_what_cannot_be_reached_is_told_in_a_sentence(
    make_replica: Any, url: str, said: str
) -> None:
    replica = make_replica(silence=timedelta(seconds=5))
    await replica.add("lab", url)
    catalog = await replica.settled("lab")
    assert catalog.state is CatalogState.FAILED
    assert catalog.error.startswith(said)


async def test_private_addresses_are_refused_where_that_is_set(
    make_replica: Any, make_repository: Any, serve_git: Any
) -> None:
    replica = make_replica(private_addresses=False)
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    server = serve_git(repository)
    await replica.add("lab", server.url)
    assert "private" in (await replica.settled("lab")).error
    assert server.requests == []


async def test_a_web_page_is_not_taken_for_a_repository(
    replica: Any, make_repository: Any, serve_git: Any
) -> None:
    server = serve_git(make_repository())
    await replica.add("lab", server.url.replace("/lab", "/other"))
    catalog = await replica.settled("lab")
    assert catalog.state is CatalogState.FAILED
    assert "no such git repository" in catalog.error
