"""The process that reads one catalog: `python -m streamspace_catalog_sync.source.reader`.

It talks to servers and opens repositories that we do not control, so it is a process
of its own. One that hangs is killed, whatever it hangs in; one that is given a bomb
runs into its own memory and file size limits; and it knows nothing that is worth
having: no database, no bus, and one token that travels over its standard input.

It answers on standard output with a `ReadReply`. Should it die instead, the service
reports that, and the next sync is the next try.
"""

import base64
import errno
import os
import resource
import shutil
import signal
import socket
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import urllib3.exceptions
from dulwich.client import (
    GitClient,
    HttpGitClient,
    HTTPProxyUnauthorized,
    HTTPUnauthorized,
    SSHGitClient,
)
from dulwich.config import ConfigDict
from dulwich.errors import (
    ApplyDeltaError,
    ChecksumMismatch,
    GitProtocolError,
    HangupException,
    NotGitRepository,
    ObjectFormatException,
)
from dulwich.objects import ObjectID
from dulwich.refs import Ref
from dulwich.repo import Repo

from streamspace_catalog_sync.domain import (
    CatalogRefusedError,
    CatalogUnreachableError,
    SourceError,
    SourceFile,
)
from streamspace_catalog_sync.source.guarded_http import (
    ForbiddenAddressError,
    check_address,
    in_words,
    pool_manager,
)
from streamspace_catalog_sync.source.limits import ReadFile, ReadReply, ReadRequest
from streamspace_catalog_sync.source.trees import peel, yaml_files

TOKEN_USER = "oauth2"  # noqa: S105 - a user name: GitLab wants this one, others take any
_CACHED = Ref(b"refs/heads/catalog")
_MOST_PACKS = 20
_GRACE = 5
"""Seconds past its deadline after which a reader whose service died ends itself."""
_DAMAGED = (
    NotGitRepository,
    KeyError,
    ChecksumMismatch,
    ObjectFormatException,
    ApplyDeltaError,
    zlib.error,
)


def main() -> None:
    """Answer the one request on standard input."""
    request = ReadRequest.model_validate_json(sys.stdin.buffer.read())
    # Whatever a library prints must not end up inside the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_myself(request)
    with answer:
        answer.write(reply_to(request).model_dump_json().encode())


def _limit_myself(request: ReadRequest) -> None:
    limits = request.limits
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.download_bytes, limits.download_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    socket.setdefaulttimeout(limits.silence.total_seconds())
    signal.alarm(int(limits.deadline.total_seconds()) + _GRACE)


def reply_to(request: ReadRequest) -> ReadReply:
    """Read the catalog, or say in words why not."""
    try:
        return _read(request)
    except CatalogUnreachableError as error:
        return ReadReply(error="unreachable", message=str(error.args[0]))
    except CatalogRefusedError as error:
        return ReadReply(error="refused", message=str(error.args[0]))
    except SourceError as error:
        return ReadReply(error="invalid", message=str(error.args[0]))
    except MemoryError:
        return ReadReply(error="invalid", message="Reading the repository takes too much memory.")


def _read(request: ReadRequest) -> ReadReply:
    if request.transport == "local":
        return _read_local(request)
    _check_host(request)
    cache = Path(request.cache)
    existed = cache.exists()
    try:
        return _read_remote(request, cache)
    except _DAMAGED as error:
        # A reader may have been killed while it wrote; a fresh copy mends that.
        shutil.rmtree(cache, ignore_errors=True)
        if not existed:
            raise SourceError("The repository is damaged: objects are missing.") from error
    try:
        return _read_remote(request, cache)
    except _DAMAGED as error:
        raise SourceError("The repository is damaged: objects are missing.") from error


def _read_local(request: ReadRequest) -> ReadReply:
    try:
        repository = Repo(request.url)
    except (NotGitRepository, OSError) as error:
        raise SourceError(
            f"{request.url} is not a git repository that this service can read."
        ) from error
    with repository:
        try:
            chosen = _choose(repository.get_refs(), request.branch)
            return _answer(request, repository, chosen)
        except _DAMAGED as error:
            raise SourceError("The repository is damaged: objects are missing.") from error


def _read_remote(request: ReadRequest, cache: Path) -> ReadReply:
    repository = _open_cache(cache)
    with repository:
        chosen = _fetch(request, repository)
        reply = _answer(request, repository, chosen)
        if not reply.unchanged:
            repository.refs[_CACHED] = chosen
        return reply


def _open_cache(cache: Path) -> Repo:
    packs = cache / "objects" / "pack"
    if packs.is_dir() and len(list(packs.iterdir())) > 2 * _MOST_PACKS:
        # Each fetch adds a pack; a fresh copy is cheaper than repacking.
        shutil.rmtree(cache)
    if cache.exists():
        for leftover in (*packs.glob("tmp*"), *(cache / "objects").glob("incoming-*")):
            leftover.unlink(missing_ok=True)
        return Repo(str(cache))
    return Repo.init_bare(str(cache), mkdir=True)


def _answer(request: ReadRequest, repository: Repo, chosen: ObjectID) -> ReadReply:
    if chosen.decode() == request.known_commit:
        return ReadReply(commit=chosen.decode(), unchanged=True)
    commit = peel(repository.object_store, chosen)
    files = yaml_files(repository.object_store, commit, request.limits)
    return ReadReply(commit=chosen.decode(), files=tuple(_wire(file) for file in files))


def _wire(file: SourceFile) -> ReadFile:
    content = base64.b64encode(file.content).decode()
    return ReadFile(path=file.path, content=content, problem=file.problem)


def _choose(refs: Mapping[Ref, ObjectID], branch: str | None) -> ObjectID:
    """The commit of a branch or tag, or of the repository's own default branch."""
    if branch is None:
        if Ref(b"HEAD") in refs:
            return refs[Ref(b"HEAD")]
        raise SourceError("The repository has no commits on its default branch; name a branch.")
    for kind in ("heads", "tags"):
        name = Ref(f"refs/{kind}/{branch}".encode())
        if name in refs:
            return refs[name]
    raise SourceError(f"The repository has no branch or tag {branch!r}.")


def _fetch(request: ReadRequest, repository: Repo) -> ObjectID:
    chosen: list[ObjectID] = []

    def wants(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        chosen.append(_choose(refs, request.branch))
        known = chosen[0].decode() == request.known_commit
        return [] if known or chosen[0] in repository.object_store else [chosen[0]]

    client, path = _client(request)
    _translated(request, lambda: client.fetch(path, repository, determine_wants=wants, depth=1))
    if not chosen:
        raise SourceError("The repository has no commits yet.")
    return chosen[0]


def _client(request: ReadRequest) -> tuple[GitClient, str]:
    parts = urlsplit(request.url)
    silence = request.limits.silence.total_seconds()
    if request.transport == "http":
        proxied = any(os.environ.get(name) for name in ("https_proxy", "http_proxy", "all_proxy"))
        client = HttpGitClient(
            f"{parts.scheme}://{parts.netloc}",
            # Settings of whoever runs this service are not the catalog's business.
            config=ConfigDict(),
            username=TOKEN_USER if request.token else None,
            password=request.token.get_secret_value() if request.token else None,
            timeout=silence,
            pool_manager=None
            if proxied
            else pool_manager(private_addresses=request.private_addresses, timeout=silence),
        )
        return client, parts.path
    if shutil.which("ssh") is None:
        raise SourceError(
            "The program ssh is not installed where catalog-sync runs; install it, or use https."
        )
    options = f"-oBatchMode=yes -oConnectTimeout={int(silence)} -oServerAliveInterval=5"
    ssh = SSHGitClient(
        parts.hostname or "",
        port=parts.port,
        username=parts.username,
        ssh_command=f"ssh {options}",
        key_filename=request.ssh_key,
        config=ConfigDict(),
    )
    return ssh, parts.path


def _check_host(request: ReadRequest) -> None:
    """Know before connecting that the host exists; http checks the connection once more."""
    parts = urlsplit(request.url)
    port = parts.port or {"http": 80, "ssh": 22}.get(parts.scheme, 443)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CatalogUnreachableError(
            f"The host {parts.hostname} is not known here. Check the address."
        ) from error
    try:
        for *_, address in found:
            check_address(str(address[0]), private_addresses=request.private_addresses)
    except ForbiddenAddressError as error:
        raise SourceError(f"{parts.hostname} is refused: {error}.") from error


def _translated(request: ReadRequest, fetch: Callable[[], object]) -> None:
    """Run a fetch and put what goes wrong into words for the person who added the catalog."""
    host = urlsplit(request.url).hostname
    try:
        fetch()
    except ForbiddenAddressError as error:
        raise SourceError(f"{host} is refused: {error}.") from error
    except (HTTPUnauthorized, HTTPProxyUnauthorized) as error:
        raise CatalogRefusedError(
            f"{host} wants a valid token for this repository. It may be private, or misspelt."
        ) from error
    except NotGitRepository as error:
        if request.transport == "local":
            raise
        raise SourceError(
            f"{host} has no such git repository, or hides it from whoever has no token."
        ) from error
    except HangupException as error:
        said = b" ".join(error.stderr_lines or ()).decode("utf-8", "replace")[-300:].strip()
        raise CatalogUnreachableError(
            f"{host} closed the connection{': ' + said if said else '.'}"
        ) from error
    except (GitProtocolError, urllib3.exceptions.HTTPError) as error:
        raise CatalogUnreachableError(
            f"{host} did not answer as a git server: {in_words(error)}"
        ) from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            size = request.limits.download_bytes // (1024 * 1024)
            raise SourceError(f"The repository is larger than {size} MiB.") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise SourceError(f"The copy cannot be written here: {error.strerror}.") from error
        raise CatalogUnreachableError(f"{host} cannot be reached: {error}") from error


if __name__ == "__main__":
    main()
