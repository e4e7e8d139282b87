"""Serves the built web app, and the headers that keep a browser in bounds.

Every path that is no file of the build gives `index.html`, because the web app
routes by itself; hashed assets may be cached for ever, the rest never.
"""

from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOT_PAGES = frozenset({"api", "metrics", "healthz", "readyz"})
"""What a program asks for; probes and metrics are on the health port, not on this one."""
_IMMUTABLE = "public, max-age=31536000, immutable"


class WebApp(StaticFiles):
    """The build folder as a single-page application."""

    def __init__(self, root: Path) -> None:
        super().__init__(directory=root, html=True, check_dir=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path.split("/", 1)[0] in _NOT_PAGES:
            raise HTTPException(404)
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            # A missing asset stays missing: HTML in place of a script confuses a browser.
            if error.status_code != 404 or path.startswith("assets/"):
                raise
            response = await super().get_response("index.html", scope)
        hashed = path.startswith("assets/") and response.status_code in {200, 304}
        response.headers["Cache-Control"] = _IMMUTABLE if hashed else "no-cache"
        return response


class SecurityHeaders:
    """Content security policy and friends, on every answer."""

    def __init__(self, app: ASGIApp, *, apps_domain: str) -> None:
        self._app = app
        # Styles: the component base sets inline style attributes. Forms: a session with a
        # web client of its own is entered by posting a ticket to its own origin.
        policy = (
            "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; "
            "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; "
            f"frame-ancestors 'none'; form-action 'self' *.{apps_domain}:*"
        )
        self._headers = Headers(
            {
                "Content-Security-Policy": policy,
                "X-Content-Type-Options": "nosniff",
                # Not `no-referrer`: then the ticket's form would come from the origin `null`.
                "Referrer-Policy": "strict-origin",
                "X-Frame-Options": "DENY",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
            }
        ).raw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                given = {name for name, _ in headers}
                ours = (one for one in self._headers if one[0] not in given)
                message["headers"] = [*headers, *ours]
            await send(message)

        await self._app(scope, receive, send_with_headers)
