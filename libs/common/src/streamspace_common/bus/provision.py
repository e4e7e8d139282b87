"""Make the server's streams and durables agree with the table in `contracts.streams`.

Idempotent and safe to run from several replicas at once. What exists is compared
field by field and updated in place; nothing is deleted or made anew for that, which
would lose messages (`remove_durable` is for a consumer whose agents are gone for good). A
difference the server refuses to update is an error that a
person has to look at.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import structlog

from streamspace_common.bus.connection import Bus
from streamspace_common.bus.errors import ApiError, ProvisioningError
from streamspace_common.bus.link import Link
from streamspace_common.contracts.streams import SERVICE_DURABLES, STREAMS, Durable, Stream

log = structlog.get_logger(__name__)

_CREATE_TRIES = 5
_CONSUMER_MISSING = 10014
_STREAM_MISSING = 10059


async def provision(
    bus: Bus,
    streams: Iterable[Stream] = STREAMS,
    durables: Iterable[Durable] = SERVICE_DURABLES,
    *,
    num_replicas: int = 1,
) -> None:
    """Ensure all `streams`, then all `durables`.

    Args:
        bus: a connection with the rights of the session service.
        streams: by default all of StreamSpace's.
        durables: by default those of services; clusters get theirs by `ensure_durable`.
        num_replicas: copies of each stream, 3 on a cluster of three servers.

    Raises:
        ProvisioningError: one exists in a shape that cannot be changed to the wanted one.
        BusUnavailableError: JetStream does not answer.
    """
    for stream in streams:
        await ensure_stream(bus, stream, num_replicas=num_replicas)
    for durable in durables:
        await ensure_durable(bus, durable)


async def ensure_stream(bus: Bus, stream: Stream, *, num_replicas: int = 1) -> None:
    """Create the stream, or change what differs; raises as `provision` does."""
    wanted = stream_config(stream, num_replicas=num_replicas)
    try:
        current = await _existing_or_created(bus.link, wanted)
        changes = _differences(current, wanted)
        if changes:
            await bus.link.api(f"STREAM.UPDATE.{stream.name}", {**current, **wanted})
            log.info("bus.stream_updated", stream=stream.name, changes=sorted(changes))
    except ApiError as error:
        raise ProvisioningError(
            f"stream {stream.name} cannot be made as it should be: {error.description}"
        ) from error


async def _existing_or_created(link: Link, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The stream's configuration, after making it where it is missing.

    Replicas that start together race: to one of them the server says that the name is
    taken, or that storage is short, for it counts the other's share twice meanwhile.
    So a refusal counts only when the stream does not appear either.
    """
    name = wanted["name"]
    for tries_left in reversed(range(_CREATE_TRIES)):
        current = await _stream(link, name)
        if current is not None:
            return current
        try:
            created = await link.api(f"STREAM.CREATE.{name}", wanted)
        except ApiError:
            if not tries_left:
                raise
            await asyncio.sleep(random.uniform(0.05, 0.2))
        else:
            log.info("bus.stream_created", stream=name)
            return dict(created["config"])
    raise AssertionError("the last try returns or raises")


async def ensure_durable(bus: Bus, durable: Durable) -> None:
    """Create the durable consumer, or change what differs.

    Raises:
        ProvisioningError: its stream is missing, or it cannot be changed so.
        BusUnavailableError: JetStream does not answer.
    """
    wanted = durable_config(durable)
    current = await _consumer(bus.link, durable)
    if current is not None and not _differences(current, wanted):
        return
    subject = f"CONSUMER.CREATE.{durable.stream}.{durable.name}"
    if len(durable.filters) == 1:
        subject = f"{subject}.{durable.filters[0]}"
    merged = {**_without_filters(current or {}), **wanted}
    try:
        await bus.link.api(subject, {"stream_name": durable.stream, "config": merged})
    except ApiError as error:
        raise ProvisioningError(
            f"consumer {durable.name} of stream {durable.stream} cannot be made as it should "
            f"be: {error.description}"
        ) from error
    log.info(
        "bus.durable_updated" if current else "bus.durable_created",
        durable=durable.name,
        stream=durable.stream,
    )


async def remove_durable(bus: Bus, durable: Durable) -> None:
    """Delete the durable consumer, if there is one.

    Raises:
        ApiError: the server refuses.
        BusUnavailableError: JetStream does not answer.
    """
    try:
        await bus.link.api(f"CONSUMER.DELETE.{durable.stream}.{durable.name}")
    except ApiError as error:
        if error.error_code not in {_CONSUMER_MISSING, _STREAM_MISSING}:
            raise
    else:
        log.info("bus.durable_removed", durable=durable.name, stream=durable.stream)


def stream_config(stream: Stream, *, num_replicas: int = 1) -> dict[str, Any]:
    """The stream as JetStream's API wants it: durations in nanoseconds."""
    return {
        "name": stream.name,
        "description": stream.description,
        "subjects": list(stream.subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        # See docs/decisions/0009: servers damaged their last block with it.
        "compression": "none",
        "num_replicas": num_replicas,
        "max_age": _nanoseconds(stream.max_age),
        "max_bytes": stream.max_bytes,
        "max_msgs": -1,
        "max_msg_size": stream.max_message_size,
        "max_msgs_per_subject": stream.max_messages_per_subject,
        "max_consumers": stream.max_consumers,
        "duplicate_window": _nanoseconds(stream.duplicate_window),
        "allow_direct": True,
        "allow_msg_ttl": stream.message_ttl,
        "deny_delete": stream.immutable,
        "deny_purge": stream.immutable,
    }


def durable_config(durable: Durable) -> dict[str, Any]:
    """The consumer as JetStream's API wants it."""
    config: dict[str, Any] = {
        "durable_name": durable.name,
        "name": durable.name,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_wait": _nanoseconds(durable.ack_wait),
        "max_deliver": durable.max_deliver,
        "max_ack_pending": durable.max_ack_pending,
    }
    if len(durable.filters) == 1:
        config["filter_subject"] = durable.filters[0]
    else:
        config["filter_subjects"] = list(durable.filters)
    return config


async def _stream(link: Link, name: str) -> dict[str, Any] | None:
    try:
        info = await link.api(f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.error_code == _STREAM_MISSING:
            return None
        raise
    config: dict[str, Any] = info["config"]
    return config


async def _consumer(link: Link, durable: Durable) -> dict[str, Any] | None:
    try:
        info = await link.api(f"CONSUMER.INFO.{durable.stream}.{durable.name}")
    except ApiError as error:
        if error.error_code == _CONSUMER_MISSING:
            return None
        if error.error_code == _STREAM_MISSING:
            raise ProvisioningError(f"there is no stream {durable.stream}") from error
        raise
    config: dict[str, Any] = info["config"]
    return config


def _differences(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> frozenset[str]:
    """Names of the wanted fields that differ; the server leaves out what is false or empty."""
    return frozenset(
        name for name, value in wanted.items() if current.get(name, type(value)()) != value
    )


def _without_filters(config: Mapping[str, Any]) -> dict[str, Any]:
    """One filter and several stand in different fields, of which only one may be set."""
    return {k: v for k, v in config.items() if k not in {"filter_subject", "filter_subjects"}}


def _nanoseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
