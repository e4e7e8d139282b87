"""The HTTP API as commands use it: signed in, refreshed, patient, errors in words.

A request that does no harm when it is carried out twice (a read, or one with an
idempotency key) is repeated when the connection breaks or the server asks for a moment.
"""

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from streamspace_cli.contexts import Context, Contexts, Tokens, is_loopback
from streamspace_cli.exits import CliError, ExitCode, from_problem

_TIMEOUT = 30.0
_TRIES = 4
_LONGEST_WAIT = 5.0
_SILENCE = 45.0
"""Seconds; the server says something each 15 s on an event stream."""

Json = dict[str, Any]


def open_client(context: Context, *, timeout: float = _TIMEOUT) -> httpx2.Client:
    """A client for the context's server.

    Raises:
        CliError: the certificate authorities of the context cannot be read.
    """
    verify: ssl.SSLContext | bool = True
    if context.ca_file:
        try:
            verify = ssl.create_default_context()
            verify.load_verify_locations(cafile=context.ca_file)
        except OSError as error:
            reason = error.strerror or "it holds no certificate"
            raise CliError(f"{context.ca_file} cannot be read: {reason}.") from error
    return httpx2.Client(
        base_url=f"{context.url}/api/v1",
        timeout=timeout,
        verify=verify,
        # No proxy leads to this machine itself.
        trust_env=not is_loopback(context.url),
        headers={"User-Agent": "streamspace-cli"},
    )


class Api:
    """One context's API.

    Args:
        client: its base address is the API's root.
        context: whose tokens are used.
        contexts: where new tokens are kept; None for a token nobody can renew.
        log: told each request and answer (`--debug`).
        pause: waits so many seconds; tests do not.
    """

    def __init__(
        self,
        client: httpx2.Client,
        context: Context,
        contexts: Contexts | None,
        *,
        log: Callable[[str], None] = lambda _line: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._context = context
        self._contexts = contexts
        self._log = log
        self._pause = pause

    @property
    def url(self) -> str:
        return self._context.url

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Json:
        return self._json(self._send("GET", path, params=_query(query), repeatable=True))

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        anonymous: bool = False,
    ) -> Json:
        """`key` is an idempotency key: with it, the request is repeated where that helps."""
        headers = {"Idempotency-Key": key} if key else {}
        answer = self._send(
            "POST",
            path,
            json=body,
            headers=headers,
            repeatable=key is not None,
            anonymous=anonymous,
        )
        return self._json(answer)

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        return self._json(self._send("PATCH", path, json=body))

    def delete(self, path: str, **query: Any) -> Json:
        return self._json(self._send("DELETE", path, params=_query(query), repeatable=True))

    def pages(self, path: str, *, limit: int | None = None, **query: Any) -> Iterator[Json]:
        """The items of a list, page after page, `limit` of them at most."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = self.get(path, **query, limit=min(left or 200, 200), cursor=cursor)
            yield from page["items"]
            cursor = page.get("nextCursor")
            if cursor is None:
                return
            left = None if left is None else left - len(page["items"])

    @contextmanager
    def events(
        self, path: str, last_id: str | None = None, *, timeout: float = _SILENCE
    ) -> Iterator[Iterator[tuple[str, str, Json]]]:
        """An event stream's (id, name, data), until it ends or is silent for `timeout` seconds.

        Raises:
            CliError: the server refuses, or cannot be reached.
        """
        _refuse_odd(path)
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        for last_try in (False, True):
            request = self._client.build_request(
                "GET",
                path.lstrip("/"),
                headers={**headers, **self._authorization()},
                timeout=httpx2.Timeout(_TIMEOUT, read=min(timeout, _SILENCE)),
            )
            try:
                answer = self._client.send(request, stream=True)
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                raise self._unreachable(error) from error
            try:
                if answer.status_code == 401 and not last_try and self._renew():
                    continue
                if answer.status_code != 200:
                    answer.read()
                    raise self._refusal(answer)
                yield _events(answer)
            finally:
                answer.close()
            return

    def sign_in(self, username: str, password: str) -> Json:
        """Tokens for a name and a password; the caller keeps them."""
        return self.post(
            "/auth/login", {"username": username, "password": password}, anonymous=True
        )

    def sign_out(self) -> None:
        tokens = self._context.tokens
        if tokens is not None and tokens.refresh is not None:
            self.post("/auth/logout", {"refreshToken": tokens.refresh}, anonymous=True)

    def access_token(self) -> str:
        """One that is good for a while.

        Raises:
            CliError: nobody is signed in, or the sign-in has ended.
        """
        tokens = self._context.tokens
        if tokens is None:
            raise not_signed_in(self._context)
        if self._contexts is not None and tokens.stale:
            self._renew()
        assert self._context.tokens is not None  # noqa: S101 - `_renew` raises otherwise
        return self._context.tokens.access

    # Beneath.

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token()}"}

    def _renew(self) -> bool:
        """Use the refresh token; False where there is none to use."""
        if self._contexts is None:
            return False
        with self._contexts.locked():
            used = self._context.tokens
            kept = self._contexts.get(self._context.name)
            if kept is not None and kept.tokens is not None and kept.tokens != used:
                # Another command was faster; its tokens are ours too.
                self._context = kept
                return True
            if used is None or used.refresh is None:
                return False
            try:
                answer = self.post("/auth/refresh", {"refreshToken": used.refresh}, anonymous=True)
            except CliError as error:
                if error.code not in {ExitCode.NOT_SIGNED_IN, ExitCode.NOT_ALLOWED}:
                    raise
                self._contexts.replace_tokens(self._context, None)
                raise CliError(
                    f"The sign-in at {self.url} has ended.",
                    ExitCode.NOT_SIGNED_IN,
                    hint="Sign in again with `streamspace login`.",
                    more=error.more,
                ) from error
            self._context = self._contexts.replace_tokens(self._context, Tokens.of(answer))
        return True

    def _send(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = False,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx2.Response:
        _refuse_odd(path)
        renewed = anonymous
        tries = 0
        while True:
            tries += 1
            again = repeatable and tries < _TRIES
            sent = {**(headers or {}), **({} if anonymous else self._authorization())}
            began = time.monotonic()
            try:
                answer = self._client.request(method, path.lstrip("/"), headers=sent, **more)
            except (httpx2.RequestError, httpx2.InvalidURL) as error:
                self._log(f"{method} {path}: {type(error).__name__} {error}")
                if not again or isinstance(error, httpx2.ConnectError):
                    raise self._unreachable(error) from error
                self._pause(0.2 * 2**tries)
                continue
            self._log(f"{method} {path}: {answer.status_code}, {time.monotonic() - began:.3f} s")
            if answer.status_code == 401 and not renewed:
                renewed = True
                if self._renew():
                    continue
            if answer.is_success:
                return answer
            refusal = self._refusal(answer)
            wait = answer.headers.get("Retry-After", "")
            patient = wait.isdigit() and int(wait) <= _LONGEST_WAIT
            if not (again and answer.status_code in {429, 503} and patient):
                raise refusal
            self._pause(max(float(wait), 0.2))

    def _json(self, answer: httpx2.Response) -> Json:
        if answer.status_code == 204 or not answer.content:
            return {}
        try:
            body: Any = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise self._not_ours(answer)
        return body

    def _refusal(self, answer: httpx2.Response) -> CliError:
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind == "application/problem+json":
            try:
                return from_problem(answer.status_code, answer.json())
            except (ValueError, AttributeError):
                pass
        return self._not_ours(answer)

    def _not_ours(self, answer: httpx2.Response) -> CliError:
        if answer.status_code in {502, 503, 504}:
            return CliError(
                f"{self.url} answers, but StreamSpace behind it does not.",
                ExitCode.UNREACHABLE,
                hint="Try again in a moment.",
                more={"status": answer.status_code},
            )
        return CliError(
            f"What answers at {self.url} is not StreamSpace (status {answer.status_code}).",
            ExitCode.UNREACHABLE,
            hint="Check the address: `streamspace context list` shows it.",
        )

    def _unreachable(self, error: Exception) -> CliError:
        if isinstance(error, httpx2.ReadTimeout):
            return CliError(
                f"{self.url} did not answer in time.",
                ExitCode.UNREACHABLE,
                hint="Try again in a moment.",
                more={"error": repr(error)},
            )
        return CliError(
            f"{self.url} cannot be reached ({_reason(error)}).",
            ExitCode.UNREACHABLE,
            hint="Is it running, and is the address right?",
            more={"error": repr(error)},
        )


def not_signed_in(context: Context) -> CliError:
    return CliError(
        f"Nobody is signed in at {context.url}.",
        ExitCode.NOT_SIGNED_IN,
        hint=f"Run `streamspace login {context.url}`.",
    )


def _refuse_odd(path: str) -> None:
    """An id is one segment of a path, and must not lead anywhere else.

    Raises:
        CliError: something in it is no id.
    """
    for segment in path.split("/")[1:]:
        if segment in {"", ".", ".."} or set(segment) & set("?#%\\") or not segment.isprintable():
            raise CliError(f"{segment!r} is not an id.", ExitCode.USAGE)


def _reason(error: BaseException) -> str:
    """The innermost cause's own words, which the client wraps several times."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _query(given: Mapping[str, Any]) -> dict[str, Any]:
    """Query parameters in the API's spelling; None is left out."""
    found = {}
    for name, value in given.items():
        if value is None or value == ():
            continue
        head, *tail = name.split("_")
        key = head + "".join(word.capitalize() for word in tail)
        found[key] = str(value).lower() if isinstance(value, bool) else value
    return found


def _events(answer: httpx2.Response) -> Iterator[tuple[str, str, Json]]:
    """Events of a stream; a comment gives an event with no name, so that clocks are looked at."""
    fields: dict[str, str] = {}
    try:
        for line in answer.iter_lines():
            if line.startswith(":"):
                yield "", "", {}
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            elif fields:
                if "data" in fields:
                    data = json.loads(fields["data"])
                    yield fields.get("id", ""), fields.get("event", "message"), data
                fields = {}
    except httpx2.TransportError:
        return
    except ValueError as error:
        raise CliError("The server sent an event that is not JSON.") from error
