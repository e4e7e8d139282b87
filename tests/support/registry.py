"""A small image registry: what it is told to serve, and every kind of trouble besides.

<host>/private/...   denied
<host>/broken/...    500, for ever
anything unknown     404
"""

import hashlib
import json
import re
import tarfile
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Self

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)")


@dataclass(frozen=True)
class _Blob:
    """A part of an archive, read where it lies."""

    archive: Path
    offset: int
    size: int


@dataclass
class Registry:
    """Use as a context: it answers at `address`, without encryption."""

    host: str
    _manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _blobs: dict[str, _Blob] = field(default_factory=dict)

    def __post_init__(self) -> None:
        registry = self

        class Handler(_Handler):
            served = registry

        self._server = ThreadingHTTPServer((self.host, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"{self.host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, name: str, tag: str, archive: Path) -> None:
        """Offer the image of an archive as `docker save` writes them."""
        with tarfile.open(archive) as tar:
            described = json.load(_member(tar, "manifest.json"))[0]
            config = self._add(tar, archive, described["Config"])
            layers = [self._add(tar, archive, layer) for layer in described["Layers"]]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, **config},
            "layers": [{"mediaType": _LAYER, **layer} for layer in layers],
        }
        self._manifests[name, tag] = json.dumps(manifest).encode()

    def _add(self, tar: tarfile.TarFile, archive: Path, member: str) -> dict[str, Any]:
        found = tar.getmember(member)
        digest = f"sha256:{hashlib.file_digest(_member(tar, member), 'sha256').hexdigest()}"
        self._blobs[digest] = _Blob(archive, found.offset_data, found.size)
        return {"digest": digest, "size": found.size}


def _member(tar: tarfile.TarFile, name: str) -> Any:
    content: IO[bytes] | None = tar.extractfile(name)
    assert content is not None
    return content


class _Handler(BaseHTTPRequestHandler):
    served: Registry
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base names it so
        """Says nothing."""

    def _answer(self, *, body: bool) -> None:
        if self.path.rstrip("/") == "/v2":
            self._send(HTTPStatus.OK, b"{}", "application/json", body=body)
            return
        asked = _PATH.fullmatch(self.path)
        if asked is None:
            self._refuse(HTTPStatus.NOT_FOUND, "NAME_UNKNOWN", body=body)
        elif asked["name"].startswith("private/"):
            self._refuse(HTTPStatus.FORBIDDEN, "DENIED", body=body)
        elif asked["name"].startswith("broken/"):
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", body=body)
        elif asked["kind"] == "manifests":
            manifest = self._manifest(asked["name"], asked["reference"])
            if manifest is None:
                self._refuse(HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN", body=body)
            else:
                self._send(HTTPStatus.OK, manifest, _MANIFEST, body=body)
        else:
            self._send_blob(asked["reference"], body=body)

    def _manifest(self, name: str, reference: str) -> bytes | None:
        for (known, tag), manifest in self.served._manifests.items():
            if known == name and reference in {tag, _digest(manifest)}:
                return manifest
        return None

    def _send_blob(self, digest: str, *, body: bool) -> None:
        blob = self.served._blobs.get(digest)
        if blob is None:
            self._refuse(HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN", body=body)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(blob.size))
        self.end_headers()
        if body:
            with blob.archive.open("rb") as source:
                source.seek(blob.offset)
                left = blob.size
                while left and (piece := source.read(min(left, 2**20))):
                    self.wfile.write(piece)
                    left -= len(piece)

    def _refuse(self, status: HTTPStatus, code: str, *, body: bool) -> None:
        words = {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}
        self._send(status, json.dumps(words).encode(), "application/json", body=body)

    def _send(self, status: HTTPStatus, content: bytes, kind: str, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if kind == _MANIFEST:
            self.send_header("Docker-Content-Digest", _digest(content))
        self.end_headers()
        if body:
            self.wfile.write(content)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
