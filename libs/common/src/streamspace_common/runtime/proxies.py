"""The way out where only a forward proxy leads there: which proxy, and a connection through it.

`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` mean what they mean to other programs; their
names in small letters win, as they do there. A setting may name the proxy instead. The
proxy is asked to connect (`CONNECT host:port`) and passes bytes from then on: it sees
where we go, and nothing of what is said there by TLS.
"""

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_SECURE = frozenset({"wss", "https"})
_LONGEST_ANSWER = 16 * 1024
_HEAD_END = b"\r\n\r\n"


class ProxyRefusedError(OSError):
    """The proxy does not connect us; the message says what it answered."""


@dataclass(frozen=True)
class Proxies:
    """Which proxy leads where; addresses as `http://[user:password@]host:port`.

    `direct` names what is reached without one: hosts, domains (which include what is
    below them), networks, each perhaps with a port, or `*` for everything.
    """

    secure: str | None = None
    plain: str | None = None
    direct: tuple[str, ...] = ()

    @classmethod
    def of(cls, environment: Mapping[str, str], setting: str | None = None) -> Self:
        """What a setting says, or else the environment's usual variables."""
        direct = _variable(environment, "NO_PROXY") or ""
        return cls(
            secure=setting or _variable(environment, "HTTPS_PROXY"),
            plain=setting or _variable(environment, "HTTP_PROXY"),
            direct=tuple(part.strip() for part in direct.split(",") if part.strip()),
        )

    def way_to(self, url: str) -> str | None:
        """The proxy that leads to `url` (`ws`, `wss`, `http`, `https`); None for straight there.

        Raises:
            ValueError: the proxy's own address is none.
        """
        parts = urlsplit(url)
        proxy = self.secure if parts.scheme in _SECURE else self.plain
        if proxy is None or any(_covers(rule, parts) for rule in self.direct):
            return None
        return checked(proxy)


def checked(proxy: str) -> str:
    """The proxy's address, its scheme filled in where it is left out.

    Raises:
        ValueError: it is no address of a proxy that we can use; the text does not quote it.
    """
    whole = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(whole)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("a proxy's address is http://host:port")
    _ = parts.port  # raises ValueError for what is no number
    return whole


async def connect_through(proxy: str, host: str, port: int) -> socket.socket:
    """A connected socket to `host`, by way of a proxy; says nothing on it yet.

    Raises:
        ProxyRefusedError: the proxy refuses.
        OSError: the proxy cannot be reached.
    """
    parts = urlsplit(proxy)
    opened = await _connected(str(parts.hostname), parts.port or 80)
    try:
        await _ask(opened, parts, host, port)
    except BaseException:
        opened.close()
        raise
    return opened


async def _connected(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    problem: OSError = ConnectionError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        one = socket.socket(family, kind, protocol)
        one.setblocking(False)
        try:
            await loop.sock_connect(one, address)
        except OSError as error:
            one.close()
            problem = error
        except BaseException:
            one.close()
            raise
        else:
            return one
    raise ConnectionError(f"the proxy {host}:{port} cannot be reached: {problem}") from problem


async def _ask(opened: socket.socket, proxy: SplitResult, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username is not None:
        known = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(known.encode()).decode()}")
    await loop.sock_sendall(opened, "\r\n".join([*lines, "", ""]).encode())
    answer = b""
    # Whoever is behind the proxy waits for us to speak: nothing of theirs can be in here.
    while _HEAD_END not in answer:
        part = await loop.sock_recv(opened, 4096)
        answer += part
        if not part or len(answer) > _LONGEST_ANSWER:
            raise ProxyRefusedError(f"the proxy {proxy.hostname} gave no valid answer")
    status = answer.split(b"\r\n", 1)[0].decode("ascii", "replace")
    match status.split(" ", 2):
        case [version, code, *_] if version.startswith("HTTP/1.") and code.startswith("2"):
            return
    raise ProxyRefusedError(f"the proxy {proxy.hostname} does not connect to {target}: {status}")


def _variable(environment: Mapping[str, str], name: str) -> str | None:
    return environment.get(name.lower()) or environment.get(name) or None


def _covers(rule: str, url: SplitResult) -> bool:
    """Whether a rule of `NO_PROXY` is about this address."""
    if rule == "*":
        return True
    host = (url.hostname or "").lower().rstrip(".")
    name, port = _parted(rule.lower())
    if port is not None and port != (url.port or _DEFAULT_PORTS.get(url.scheme)):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:
        bare = name.removeprefix("*").strip(".")
        return bool(bare) and (host == bare or host.endswith(f".{bare}"))


def _parted(rule: str) -> tuple[str, int | None]:
    """A rule's host or network, and its port if it has one."""
    name, colon, port = rule.rpartition(":")
    if colon and port.isdigit() and (":" not in name or name.endswith("]")):
        return name.strip("[]"), int(port)
    return rule.strip("[]"), None
