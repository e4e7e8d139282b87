"""The few pages the relay itself shows at a session's address. Pure."""

from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus

from streamspace_vnc_proxy.apps.headers import Headers
from streamspace_vnc_proxy.domain import Close, Refusal

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;"
    "place-items:center;background:#f5f6f8;color:#1c2024}main{max-width:30rem;padding:2rem;"
    "margin:1rem;background:#fff;border-radius:12px;box-shadow:0 1px 3px #0002}h1{font-size:"
    "1.25rem;margin:0 0 .5rem}p{margin:.5rem 0 0}a{color:#3451b2}@media(prefers-color-scheme:"
    "dark){body{background:#111113;color:#edeef0}main{background:#18191b}a{color:#9eb1ff}}"
)
_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"

_STATUS = {
    Close.TICKET_REFUSED: 403,
    Close.WRONG_ORIGIN: 403,
    Close.NO_SESSION: 404,
    Close.NOT_RUNNING: 409,
    Close.ENDED: 410,
    Close.UNREACHABLE: 502,
    Close.TRY_AGAIN: 503,
    Close.TOO_SLOW: 504,
}
_RETRY = frozenset({502, 503, 504})


@dataclass(frozen=True)
class Page:
    """An answer of the relay's own: a sentence for a person, as HTML."""

    status: int
    text: str
    title: str = "This session cannot be shown"
    headers: Headers = field(default_factory=list)

    @classmethod
    def of(cls, refusal: Refusal) -> "Page":
        return cls(_STATUS.get(refusal.code, 500), refusal.reason)

    @property
    def body(self) -> bytes:
        again = '<p><a href="">Try again</a></p>' if self.status in _RETRY else ""
        title = escape(self.title)
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_STYLE}</style><main><h1>{title}</h1><p>{escape(self.text)}</p>{again}"
            "</main></html>"
        ).encode()

    @property
    def all_headers(self) -> Headers:
        always: Headers = [
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Length", str(len(self.body)).encode()),
            (b"Cache-Control", b"no-store"),
            (b"Content-Security-Policy", _POLICY),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Referrer-Policy", b"same-origin"),
        ]
        if self.status in _RETRY:
            always.append((b"Retry-After", b"2"))
        return always + self.headers

    @property
    def phrase(self) -> bytes:
        return HTTPStatus(self.status).phrase.encode()


NOT_ADMITTED = Page(
    401,
    "Open the session from StreamSpace: this address alone does not let anybody in, and a pass "
    "lasts for some hours only.",
    "Please open this session from StreamSpace",
)
VIEW_ONLY = Page(
    403,
    "This session serves its own web client, so it cannot be shared for viewing only.",
)
FOREIGN_PAGE = Page(403, "Only pages of this session may do that here.")
NO_SUCH_PAGE = Page(404, "There is no such page.")
