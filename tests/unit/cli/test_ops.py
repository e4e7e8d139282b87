"""Operators' commands, as far as they need no server."""

import base64
import hashlib
import hmac
import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from streamspace_cli.commands.bus_options import STREAM_NAMES
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.ops.connection import Target, with_streams
from streamspace_cli.ops.feed import FileSink, Webhook, feed, read_secret
from streamspace_cli.ops.reading import cloud_event, decoded, parse_start
from streamspace_common.bus import StreamMessage
from streamspace_common.contracts.streams import STREAMS

URL = "https://hook.example/in"


def message(number: int, payload: bytes = b'{"a": 1}') -> StreamMessage:
    return StreamMessage(
        subject="evt.core.session.one.created",
        sequence=number,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        type="session.created.v1",
        payload=payload,
        headers={"ce-id": f"id-{number}", "ce-source": "session", "ce-subject": "one"},
    )


async def messages(count: int) -> AsyncIterator[StreamMessage]:
    for number in range(1, count + 1):
        yield message(number)


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def webhook(answer: Callable[[httpx2.Request], httpx2.Response], time: Time, **more) -> Webhook:
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return Webhook(client, URL, sleep=time.sleep, **more)


def test_the_streams_are_those_of_the_contract():
    assert tuple(stream.name for stream in STREAMS) == STREAM_NAMES


def test_messages_are_decoded_also_when_they_are_no_json():
    assert decoded(message(1))["payload"] == {"a": 1}
    assert decoded(message(1, b"\xff{"))["payload"] == "\ufffd{"


def test_starts_are_numbers_or_times():
    assert parse_start("seq:12") == 12
    assert parse_start("start") == 1
    assert isinstance(parse_start("5m"), datetime)
    for text in ("seq:x", "seq:", "tomorrow"):
        with pytest.raises(CliError):
            parse_start(text)


async def test_a_webhook_gets_events_in_order_signed_and_at_the_rate_asked_for():
    taken: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        taken.append(request)
        return httpx2.Response(204)

    time, told = Time(), []
    sink = webhook(answer, time, secret=b"key")
    count = await feed(messages(3), sink, rate=2, tell=told.append, sleep=time.sleep, clock=time)
    assert (count, told) == (3, [1, 2, 3])
    assert time.now == 1.0
    assert [each.headers["webhook-id"] for each in taken] == ["id-1", "id-2", "id-3"]
    first = taken[0]
    signed = f"id-1.{first.headers['webhook-timestamp']}.".encode() + first.content
    digest = base64.b64encode(hmac.new(b"key", signed, hashlib.sha256).digest()).decode()
    assert first.headers["webhook-signature"] == f"v1,{digest}"
    assert json.loads(first.content) == cloud_event(message(1))


async def test_what_does_not_work_now_is_tried_again_in_growing_pauses():
    answers = iter([500, 503, 429, 200])
    time = Time()
    await webhook(lambda _: httpx2.Response(next(answers)), time).put(cloud_event(message(1)))
    assert time.slept == [0.5, 1.0, 2.0]


async def test_a_webhook_that_stays_away_ends_the_feed_and_says_where_to_go_on():
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.headers["webhook-id"] == "id-1":
            return httpx2.Response(200)
        raise httpx2.ConnectError("refused")

    time = Time()
    with pytest.raises(CliError, match="did not take event id-2 in 6 tries") as raised:
        await feed(messages(3), webhook(answer, time), rate=1e9, tell=lambda _: None)
    assert raised.value.hint == "1 were handed on. Go on with --from seq:2."
    assert raised.value.code is ExitCode.UNREACHABLE


async def test_a_refusal_is_not_tried_again():
    time = Time()
    with pytest.raises(CliError, match="refuses event id-1: status 400"):
        await webhook(lambda _: httpx2.Response(400), time).put(cloud_event(message(1)))
    assert time.slept == []


async def test_a_file_gets_a_line_for_each_event():
    file = io.StringIO()
    assert await feed(messages(2), FileSink(file), rate=float("inf"), tell=lambda _: None) == 2
    assert [json.loads(line)["sequence"] for line in file.getvalue().splitlines()] == ["1", "2"]


def test_a_secret_is_base64():
    assert read_secret("whsec_a2V5\n") == b"key"
    with pytest.raises(CliError, match="base64"):
        read_secret("whsec_?")


def test_the_local_installation_is_found_by_its_folder(tmp_path: Path):
    target = Target(None, None, None, tmp_path)
    with pytest.raises(CliError, match="no StreamSpace has run") as refused:
        target.found_url()
    assert refused.value.code is ExitCode.USAGE
    (tmp_path / "ports.json").write_text('{"nats": 4222}')
    assert target.found_url() == "nats://127.0.0.1:4222"
    with pytest.raises(CliError, match="no credentials file"):
        target.found_credentials("ops")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ops.creds").write_text("x")
    assert target.found_credentials("ops") == tmp_path / "secrets" / "ops.creds"


def test_a_server_that_was_named_gets_no_credentials_of_another_one(tmp_path: Path):
    assert Target("nats://far", None, None, tmp_path).found_credentials("ops") is None


def test_no_server_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("streamspace_cli.ops.connection._PATIENCE", 0.2)

    async def never(_: object) -> None:
        raise AssertionError

    with pytest.raises(CliError, match="cannot be reached") as raised:
        with_streams(Target("nats://127.0.0.1:1", None, None, tmp_path), "ops", never)
    assert raised.value.code is ExitCode.UNREACHABLE
