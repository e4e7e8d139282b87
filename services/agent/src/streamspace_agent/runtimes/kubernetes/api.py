"""The one who speaks Kubernetes: the only module that knows its client library.

Requests go through the official client's lowest layer, which knows how to reach and to
convince an API server; what comes back stays plain JSON, since reading it into that
library's models would cost more memory and time than all the rest of the agent.
"""

import asyncio
import json
import os
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

from streamspace_agent import metrics
from streamspace_agent.runtimes.kubernetes import kinds
from streamspace_agent.runtimes.kubernetes.errors import (
    ApiError,
    NotFoundError,
    UnreachableError,
    error_of,
)
from streamspace_agent.runtimes.kubernetes.kinds import Kind, Manifest
from streamspace_agent.runtimes.kubernetes.options import Access
from streamspace_agent.runtimes.kubernetes.pacing import RateLimit
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_CONNECTIONS: Final = 32
_READ_LIMIT: Final = 2**21
"""Bytes of one line of a watch; a resource is at most 1.5 MB."""
_REQUEST_TIMEOUT: Final = 30.0
_LACKS_RIGHTS = re.compile(r"^Unauthorized$|\bcannot \w+ (resource|path)\b")
"""How it is said that the role lacks a rule; a quota that is used up is forbidden, too."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_SIGN_IN_AGAIN_AFTER: Final = 5.0
_PAGE: Final = 250


CHANNEL_LOST: Final = (aiohttp.ClientError, TypeError, OSError)
"""What a port-forward's channel raises once it is closed; `TypeError` is aiohttp's way of
saying that a close frame holds no bytes."""


@dataclass(frozen=True)
class Change:
    """One line of a watch: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`."""

    type: str
    resource: Manifest


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    retry_after: float | None

    def error(self) -> ApiError:
        try:
            told = json.loads(self.body)
        except ValueError:
            told = {}
        if not isinstance(told, dict):
            told = {}
        return error_of(self.status, told.get("reason") or "", told.get("message") or "")


class ClusterApi:
    """One namespace of one cluster."""

    def __init__(self, access: Access, namespace: str) -> None:
        self._access = access
        self.namespace = namespace
        self._limit = RateLimit(access.qps, access.burst)
        self._client: ApiClient | None = None
        self._tunnels: aiohttp.ClientSession | None = None
        self._signed_in = 0.0
        self._signing_in = asyncio.Lock()

    @property
    def in_cluster(self) -> bool:
        """Whether this process runs in the cluster, with the pod's own service account."""
        return self._access.kubeconfig is None and _has_service_account()

    async def open(self) -> None:
        """Read how the cluster is reached; speaks to nobody yet.

        Raises:
            ApiError: there is no configuration, or it cannot be used.
        """
        await self._sign_in()

    async def close(self) -> None:
        if self._tunnels is not None:
            await self._tunnels.close()
            self._tunnels = None
        if self._client is not None:
            await self._client.close()
            self._client = None

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
        # Bookmarks come each minute; a connection silent for longer may be a dead one.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=min(seconds, 90) + 5)
        url, headers = await self._address(kind.path(self._scope(kind)), query)
        try:
            response = await self._pool().get(
                url, headers=headers, timeout=timeout, **self._call_options()
            )
            metrics.CLUSTER_REQUESTS.labels("watch", kind.plural, str(response.status)).inc()
            async with response:
                if response.status != 200:
                    raise _Answer(response.status, await response.read(), None).error()
                async for line in response.content:
                    yield _change(json.loads(line))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(0, "Lost", f"the watch was lost: {_words(error)}") from error

    # Streams

    async def port_forward(self, pod: str, port: int) -> aiohttp.ClientWebSocketResponse:
        """Open the stream to a pod's port; see `dial` for what is spoken on it.

        Raises:
            ApiError: refused, or no answer.
        """
        url, headers = await self._address(
            kinds.POD.path(self.namespace, pod, "portforward"), {"ports": str(port)}
        )
        # An upgrade answers with no document; the API server takes the header at its word.
        del headers["Accept"]
        if self._tunnels is None:
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls())
            self._tunnels = aiohttp.ClientSession(connector=connector, trust_env=True)
        try:
            opened: aiohttp.ClientWebSocketResponse = await self._tunnels.ws_connect(
                url,
                headers=headers,
                protocols=("v4.channel.k8s.io",),
                max_msg_size=_READ_LIMIT,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                **self._call_options(),
            )
        except aiohttp.WSServerHandshakeError as error:
            metrics.CLUSTER_REQUESTS.labels("connect", "pods/portforward", str(error.status)).inc()
            raise error_of(
                error.status, "", f"port-forward was refused: {error.message}"
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(0, "Unreachable", _words(error)) from error
        metrics.CLUSTER_REQUESTS.labels("connect", "pods/portforward", "101").inc()
        return opened

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
    ) -> _Answer:
        """Ask until there is an answer that will stay the same, or patience runs out."""
        path = kind.path(self._scope(kind), name, sub)
        resource = f"{kind.plural}/{sub}" if sub else kind.plural
        data = json.dumps(body, separators=(",", ":")).encode() if body is not None else None
        until = time.monotonic() + self._access.patience
        pause, signed_in_again, believed = _SHORTEST_PAUSE, False, False
        while True:
            await self._limit.take()
            error: ApiError
            try:
                answer = await self._ask(method, path, query or {}, data, content)
            except (aiohttp.ClientError, TimeoutError, OSError) as lost:
                error, told = UnreachableError(0, "Unreachable", _words(lost)), None
            else:
                metrics.CLUSTER_REQUESTS.labels(
                    verb or method.lower(), resource, str(answer.status)
                ).inc()
                if answer.status < 300:
                    return answer
                error, told = answer.error(), answer.retry_after
                if answer.status == 401 and not signed_in_again:
                    signed_in_again = True
                    await self._sign_in()
                    continue
            passing = isinstance(error, UnreachableError)
            if _LACKS_RIGHTS.search(str(error)) and not believed:
                # One that has just started knows of nobody's rights yet, and says so to all.
                believed, passing = await self._is_ready(), True
            if not passing or time.monotonic() > until:
                raise error
            log.debug("asking again", method=method, path=path, error=str(error))
            await asyncio.sleep(told or pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _is_ready(self) -> bool:
        """Whether the API server says that it is; then it is asked once more and believed."""
        try:
            answer = await self._ask("GET", "/readyz", {}, None, "")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        return answer.status == 200

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str], data: bytes | None, content: str
    ) -> _Answer:
        url, headers = await self._address(path, query)
        if data is not None:
            headers["Content-Type"] = content
        async with self._pool().request(
            method,
            url,
            data=data,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT, sock_connect=5),
            **self._call_options(),
        ) as response:
            after = response.headers.get("Retry-After", "")
            return _Answer(
                response.status, await response.read(), float(after) if after.isdecimal() else None
            )

    async def _address(self, path: str, query: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        client = self._require_client()
        headers = {"Accept": "application/json", "User-Agent": kinds.FIELD_MANAGER}
        for setting in (await client.configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        return f"{client.configuration.host}{path}?{urlencode(query, quote_via=quote)}", headers

    def _pool(self) -> aiohttp.ClientSession:
        rest = self._require_client().rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()  # noqa: SLF001 - made lazily there
        pool: aiohttp.ClientSession = rest.pool_manager
        return pool

    def _tls(self) -> ssl.SSLContext:
        context: ssl.SSLContext = self._require_client().rest_client.ssl_context
        return context

    def _call_options(self) -> dict[str, Any]:
        settings = self._require_client().configuration
        options: dict[str, Any] = {}
        if settings.tls_server_name:
            options["server_hostname"] = settings.tls_server_name
        if settings.proxy:
            options["proxy"] = settings.proxy
        return options

    def _scope(self, kind: Kind) -> str | None:
        return None if kind is kinds.NODE else self.namespace

    def _require_client(self) -> ApiClient:
        if self._client is None:
            raise UnreachableError(0, "Closed", "the connection to the cluster is closed")
        return self._client

    async def _sign_in(self) -> None:
        """Read credentials anew: tokens of kubeconfigs and plugins end, certificates too."""
        async with self._signing_in:
            if time.monotonic() - self._signed_in < _SIGN_IN_AGAIN_AFTER and self._client:
                return
            configuration = Configuration(connection_pool_maxsize=_CONNECTIONS)
            try:
                if self.in_cluster:
                    InClusterConfigLoader(
                        token_filename=SERVICE_TOKEN_FILENAME, cert_filename=SERVICE_CERT_FILENAME
                    ).load_and_set(configuration)
                else:
                    path = self._access.kubeconfig
                    await kube_config.load_kube_config(
                        config_file=str(path) if path else None,
                        context=self._access.context,
                        client_configuration=configuration,
                        persist_config=False,
                    )
                client = ApiClient(configuration)
            except (kube_config.ConfigException, OSError, TypeError) as error:
                raise ApiError(
                    0, "NoConfiguration", f"How to reach the cluster cannot be read: {error}"
                ) from error
            old, self._client = self._client, client
            self._signed_in = time.monotonic()
            if old is not None:
                # What is under way on it ends as lost and is asked again.
                await old.close()


def _has_service_account() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and Path(SERVICE_TOKEN_FILENAME).exists()


def _change(line: Manifest) -> Change:
    resource: Manifest = line["object"]
    if line["type"] == "ERROR":
        raise error_of(
            int(resource.get("code") or 0),
            resource.get("reason") or "",
            resource.get("message") or "",
        )
    return Change(line["type"], resource)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
