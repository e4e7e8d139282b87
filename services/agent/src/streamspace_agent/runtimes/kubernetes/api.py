"""What is asked of the API server: resources one by one, many, watched, and streams to pods.

How a request gets there, and how often, is `transport`'s part.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from streamspace_agent.runtimes.kubernetes import kinds
from streamspace_agent.runtimes.kubernetes.errors import (
    ApiError,
    NotFoundError,
    UnreachableError,
    error_of,
)
from streamspace_agent.runtimes.kubernetes.kinds import Kind, Manifest
from streamspace_agent.runtimes.kubernetes.options import Access
from streamspace_agent.runtimes.kubernetes.transport import Answer, Request, Transport
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_PAGE: Final = 250
_LONGEST_SILENCE: Final = 95.0
"""Bookmarks come each minute; a watch silent for longer may be a dead one."""


@dataclass(frozen=True)
class Change:
    """One line of a watch: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`."""

    type: str
    resource: Manifest


class ClusterApi:
    """One namespace of one cluster."""

    def __init__(self, access: Access, namespace: str) -> None:
        self._transport = Transport(access)
        self.namespace = namespace

    @property
    def in_cluster(self) -> bool:
        """Whether this process runs in the cluster, with the pod's own service account."""
        return self._transport.in_cluster

    async def open(self) -> None:
        """Read how the cluster is reached; speaks to nobody yet.

        Raises:
            ApiError: there is no configuration, or it cannot be used.
        """
        await self._transport.sign_in()

    async def close(self) -> None:
        await self._transport.close()

    # One resource

    async def get(self, kind: Kind, name: str) -> Manifest:
        return await self._json("GET", kind, name)

    async def create(self, kind: Kind, resource: Manifest) -> Manifest:
        query = {"fieldManager": kinds.FIELD_MANAGER}
        return await self._json("POST", kind, body=resource, query=query)

    async def replace(self, kind: Kind, resource: Manifest) -> Manifest:
        """Write over a resource; its `resourceVersion` must be the current one."""
        query = {"fieldManager": kinds.FIELD_MANAGER}
        name = resource["metadata"]["name"]
        return await self._json("PUT", kind, name, body=resource, query=query)

    async def apply(self, kind: Kind, resource: Manifest) -> Manifest:
        """Server-side apply: what we say holds, whoever else said otherwise."""
        query = {"fieldManager": kinds.FIELD_MANAGER, "force": "true"}
        name = resource["metadata"]["name"]
        return await self._json(
            "PATCH", kind, name, body=resource, query=query, content="application/apply-patch+yaml"
        )

    async def patch_status(
        self, kind: Kind, name: str, version: str, status: Mapping[str, Any]
    ) -> Manifest:
        """Change fields of a status, if `version` is still the current one."""
        body = {"metadata": {"resourceVersion": version}, "status": dict(status)}
        return await self._json(
            "PATCH",
            kind,
            name,
            "status",
            body=body,
            query={"fieldManager": kinds.FIELD_MANAGER},
            content="application/merge-patch+json",
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        *,
        uid: str | None = None,
        version: str | None = None,
        foreground: bool = False,
    ) -> Manifest | None:
        """Delete; None when there is no such resource.

        Args:
            kind: of what.
            name: which.
            uid: only this very one.
            version: only as it was read.
            foreground: it stays, on its way out, until all it owns is gone.
        """
        preconditions = {
            key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value
        }
        body: Manifest = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground" if foreground else "Background",
        }
        if preconditions:
            body["preconditions"] = preconditions
        try:
            return await self._json("DELETE", kind, name, body=body)
        except NotFoundError:
            return None

    async def read_log(self, pod: str, *, previous: bool, lines: int) -> str:
        """The last lines of a pod's log; empty when there is none to be had."""
        query = {"tailLines": str(lines), "limitBytes": str(16 * 1024)}
        if previous:
            query["previous"] = "true"
        try:
            answer = await self._send("GET", kinds.POD, pod, "log", query=query)
        except ApiError as error:
            log.info("no log to be had", pod=pod, error=str(error))
            return ""
        return answer.body.decode(errors="replace")

    # Many

    async def list(self, kind: Kind, selector: str | None = None) -> tuple[list[Manifest], str]:
        """All resources of a kind, and the version to watch from."""
        found: list[Manifest] = []
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._json("GET", kind, query=query, verb="list")
            found += page.get("items") or ()
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return found, metadata["resourceVersion"]
            query["continue"] = metadata["continue"]

    async def newest_version(self, kind: Kind) -> str:
        """The version to watch from, of a kind whose past is of no interest."""
        page = await self._json("GET", kind, query={"limit": "1"}, verb="list")
        version: str = page["metadata"]["resourceVersion"]
        return version

    async def watch(
        self, kind: Kind, version: str, selector: str | None = None, *, seconds: int = 300
    ) -> AsyncIterator[Change]:
        """What changes from `version` on, until the server ends it after some `seconds`.

        Raises:
            GoneError: `version` is too old by now.
            ApiError: the watch was refused, or was lost.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        } | ({"labelSelector": selector} if selector else {})
        request = Request("GET", kind.path(self._scope(kind)), "watch", kind.plural, query=query)
        silence = min(seconds + 5, _LONGEST_SILENCE)
        async with aclosing(self._transport.lines(request, silence=silence)) as lines:
            async for line in lines:
                yield _change(line)

    # Streams

    async def port_forward(self, pod: str, port: int) -> aiohttp.ClientWebSocketResponse:
        """Open the stream to a pod's port; see `dial` for what is spoken on it.

        Raises:
            ApiError: refused, or no answer.
        """
        path = kinds.POD.path(self.namespace, pod, "portforward")
        return await self._transport.channel(path, {"ports": str(port)})

    # How requests are made

    async def _json(
        self,
        method: str,
        kind: Kind,
        name: str | None = None,
        sub: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
        verb: str | None = None,
    ) -> Manifest:
        answer = await self._send(
            method, kind, name, sub, query=query, body=body, content=content, verb=verb
        )
        parsed: Manifest = json.loads(answer.body)
        return parsed

    async def _send(
        self,
        method: str,
        kind: Kind,
        name: str | None = None,
        sub: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
        verb: str | None = None,
    ) -> Answer:
        data = json.dumps(body, separators=(",", ":")).encode() if body is not None else None
        return await self._transport.send(
            Request(
                method,
                kind.path(self._scope(kind), name, sub),
                verb or method.lower(),
                f"{kind.plural}/{sub}" if sub else kind.plural,
                query=query or {},
                data=data,
                content=content,
            )
        )

    def _scope(self, kind: Kind) -> str | None:
        return None if kind is kinds.NODE else self.namespace


def _change(line: bytes) -> Change:
    try:
        told: Manifest = json.loads(line)
    except ValueError as error:
        raise UnreachableError(0, "Lost", "the watch was lost in the middle of a line") from error
    resource: Manifest = told["object"]
    if told["type"] == "ERROR":
        raise error_of(
            int(resource.get("code") or 0),
            resource.get("reason") or "",
            resource.get("message") or "",
        )
    return Change(told["type"], resource)
