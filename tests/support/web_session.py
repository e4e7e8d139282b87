"""A session's own origin, as somebody reaches it who may have a cookie.

A browser resolves `*.localhost` to this machine by itself; here the host name is said in
the Host header.
"""

from typing import Any
from urllib.parse import urlsplit

import httpx2
import websockets
from tests.support.stack import Api


async def connect(user: Api, session_id: str) -> dict[str, Any]:
    """A ticket for a session with a web client."""
    answer = await user.post(f"/sessions/{session_id}/connect", json={"role": "control"})
    assert answer.status_code == 200, answer.text
    ticket: dict[str, Any] = answer.json()
    assert ticket["protocol"] == "http"
    return ticket


class Address:
    def __init__(
        self, client: httpx2.AsyncClient, enter_url: str, *, port: int | None = None
    ) -> None:
        parts = urlsplit(enter_url)
        self.client = client
        self.host = parts.netloc
        self.port = port or parts.port
        self.base = f"http://127.0.0.1:{self.port}"
        self.cookie: dict[str, str] = {}

    async def enter(self, ticket: str, origin: str) -> httpx2.Response:
        headers = {"Host": self.host, "Origin": origin}
        answer = await self.client.post(
            f"{self.base}/_streamspace/enter", headers=headers, data={"ticket": ticket}
        )
        if "set-cookie" in answer.headers:
            self.cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        self.client.cookies.clear()
        return answer

    async def get(self, path: str, cookie: dict[str, str] | None = None) -> httpx2.Response:
        headers = {"Host": self.host, **(self.cookie if cookie is None else cookie)}
        return await self.client.get(f"{self.base}{path}", headers=headers)

    def socket(self, path: str) -> websockets.connect:
        """A WebSocket to the session, opened by a page of its own."""
        return websockets.connect(
            f"ws://{self.host}{path}",
            host="127.0.0.1",
            port=self.port,
            origin=websockets.Origin(f"http://{self.host}"),
            additional_headers=self.cookie,
            proxy=None,
        )
