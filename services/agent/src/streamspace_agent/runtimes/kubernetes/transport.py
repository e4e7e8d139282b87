"""How requests reach an API server: signing in, one pool of connections, patience.

The only module that knows the cluster's client library. Requests go through its lowest
layer, which knows how to reach and to convince an API server; what comes back stays plain
JSON, since reading it into that library's models would cost more memory and time than all
the rest of the agent.
"""

import asyncio
import json
import os
import random
import re
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
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
from streamspace_agent.runtimes.kubernetes.errors import ApiError, UnreachableError, error_of
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

CHANNEL_LOST: Final = (aiohttp.ClientError, TypeError, OSError)
"""What a port-forward's channel raises once it is closed; `TypeError` is aiohttp's way of
saying that a close frame holds no bytes."""


@dataclass(frozen=True)
class Request:
    """What is asked; `verb` and `resource` are its names in the metrics."""

    method: str
    path: str
    verb: str
    resource: str
    query: Mapping[str, str] = field(default_factory=dict)
    data: bytes | None = None
    content: str = "application/json"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    retry_after: float | None = None

    def error(self) -> ApiError:
        try:
            told = json.loads(self.body)
        except ValueError:
            told = {}
        if not isinstance(told, dict):
            told = {}
        return error_of(self.status, told.get("reason") or "", told.get("message") or "")


class Transport:
    """One API server, and who we are to it."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._limit = RateLimit(access.qps, access.burst)
        self._client: ApiClient | None = None
        self._tunnels: aiohttp.ClientSession | None = None
        self._signed_in = 0.0
        self._signing_in = asyncio.Lock()

    @property
    def in_cluster(self) -> bool:
        """Whether this process runs in the cluster, with the pod's own service account."""
        return self._access.kubeconfig is None and _has_service_account()

    async def close(self) -> None:
        if self._tunnels is not None:
            await self._tunnels.close()
            self._tunnels = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def sign_in(self) -> None:
        """Read credentials anew: tokens of kubeconfigs and plugins end, certificates too.

        Raises:
            ApiError: there is no configuration, or it cannot be used.
        """
        async with self._signing_in:
            if time.monotonic() - self._signed_in < _SIGN_IN_AGAIN_AFTER and self._client:
                return
            client = await self._new_client()
            old, self._client = self._client, client
            self._signed_in = time.monotonic()
            if old is not None:
                # What is under way on it ends as lost and is asked again.
                await old.close()

    async def send(self, request: Request) -> Answer:
        """Ask until there is an answer that will stay the same, or patience runs out.

        Raises:
            ApiError: the answer is no, or there was none.
        """
        until = time.monotonic() + self._access.patience
        pause, signed_in_again, believed = _SHORTEST_PAUSE, False, False
        while True:
            await self._limit.take()
            error: ApiError
            try:
                answer = await self._ask(request)
            except (aiohttp.ClientError, TimeoutError, OSError) as lost:
                error, told = UnreachableError(0, "Unreachable", _words(lost)), None
            else:
                _count(request.verb, request.resource, answer.status)
                if answer.status < 300:
                    return answer
                error, told = answer.error(), answer.retry_after
                if answer.status == 401 and not signed_in_again:
                    signed_in_again = True
                    await self.sign_in()
                    continue
            passing = isinstance(error, UnreachableError)
            if _LACKS_RIGHTS.search(str(error)) and not believed:
                # One that has just started knows of nobody's rights yet, and says so to all.
                believed, passing = await self._is_ready(), True
            if not passing or time.monotonic() > until:
                raise error
            log.debug("asking again", method=request.method, path=request.path, error=str(error))
            await asyncio.sleep(told or pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def lines(self, request: Request, *, silence: float) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that goes on and on, once; for watches.

        Args:
            request: what is asked.
            silence: seconds without a byte after which the connection is taken for dead.

        Raises:
            ApiError: refused, or lost on the way.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=silence)
        url, headers = await self._address(request.path, request.query)
        try:
            response = await self._pool().get(
                url, headers=headers, timeout=timeout, **self._call_options()
            )
            _count(request.verb, request.resource, response.status)
            async with response:
                if response.status != 200:
                    raise Answer(response.status, await response.read()).error()
                async for line in response.content:
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(0, "Lost", f"the watch was lost: {_words(error)}") from error

    async def channel(self, path: str, query: Mapping[str, str]) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket of the API server's, on a connection of its own.

        Raises:
            ApiError: refused, or no answer.
        """
        url, headers = await self._address(path, query)
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
            _count("connect", "pods/portforward", error.status)
            raise error_of(
                error.status, "", f"port-forward was refused: {error.message}"
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(0, "Unreachable", _words(error)) from error
        _count("connect", "pods/portforward", 101)
        return opened

    async def _is_ready(self) -> bool:
        """Whether the API server says that it is; then it is asked once more and believed."""
        try:
            answer = await self._ask(Request("GET", "/readyz", "get", "readyz"))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        return answer.status == 200

    async def _ask(self, request: Request) -> Answer:
        url, headers = await self._address(request.path, request.query)
        if request.data is not None:
            headers["Content-Type"] = request.content
        async with self._pool().request(
            request.method,
            url,
            data=request.data,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT, sock_connect=5),
            **self._call_options(),
        ) as response:
            after = response.headers.get("Retry-After", "")
            return Answer(
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

    def _require_client(self) -> ApiClient:
        if self._client is None:
            raise UnreachableError(0, "Closed", "the connection to the cluster is closed")
        return self._client

    async def _new_client(self) -> ApiClient:
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
            return ApiClient(configuration)
        except (kube_config.ConfigException, OSError, TypeError) as error:
            raise ApiError(
                0, "NoConfiguration", f"How to reach the cluster cannot be read: {error}"
            ) from error


def _count(verb: str, resource: str, status: int) -> None:
    metrics.CLUSTER_REQUESTS.labels(verb, resource, str(status)).inc()


def _has_service_account() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and Path(SERVICE_TOKEN_FILENAME).exists()


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
