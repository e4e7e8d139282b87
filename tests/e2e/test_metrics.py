"""What Prometheus reads from every process: names, units, and labels that stay few."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import httpx2
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.support.stack import FINAL

from streamspace_common.testing.waiting import eventually

FOREIGN = ("python_", "process_")
PROMISED = {
    # name: (process, labels)
    "streamspace_session_start_duration_seconds": ("session", {"template", "agent", "path"}),
    "streamspace_session_start_phase_duration_seconds": ("agent-local", {"phase"}),
    "streamspace_sessions": ("session", {"state", "agent"}),
    "streamspace_commands": ("session", {"type", "result"}),
    "streamspace_command_delivery_duration_seconds": ("session", {"type"}),
    "streamspace_command_redeliveries": ("agent-local", set()),
    "streamspace_command_queue_age_seconds": ("session", set()),
    "streamspace_agent_last_seen_timestamp_seconds": ("session", {"agent"}),
    "streamspace_agent_commands": ("agent-local", {"type", "result"}),
    "streamspace_agent_sessions": ("agent-local", {"state"}),
    "streamspace_projection_lag_seconds": ("session", set()),
    "streamspace_consumer_pending_messages": ("session", {"consumer"}),
    "streamspace_dead_letters": ("session", set()),
    "streamspace_outbox_backlog_messages": ("session", set()),
    "streamspace_outbox_age_seconds": ("catalog-sync", set()),
    "streamspace_catalog_sync_duration_seconds": ("catalog-sync", set()),
    "streamspace_catalog_syncs": ("catalog-sync", {"result"}),
    "streamspace_logins": ("auth", {"result"}),
    "streamspace_http_request_duration_seconds": ("gateway", {"method", "route", "code"}),
    "streamspace_event_followers": ("gateway", set()),
    "streamspace_proxy_streams": ("vnc-proxy", set()),
    "streamspace_proxy_bytes": ("vnc-proxy", {"direction"}),
    "streamspace_proxy_added_latency_seconds": ("vnc-proxy", set()),
    "streamspace_proxy_open_duration_seconds": ("vnc-proxy", set()),
    "streamspace_build_info": ("gateway", {"service", "version"}),
}
"""Counters by their family's name; their samples end in `_total`."""
BOUNDS = {
    "method": 8,
    "route": 100,
    "code": 30,
    "state": 15,
    "agent": 102,
    "template": 52,
    "path": 2,
    "type": 5,
    "result": 20,
    "phase": 10,
    "consumer": 110,
    "direction": 2,
    "service": 1,
    "version": 1,
    "verb": 10,
    "resource": 20,
}
"""The most values each label may ever have."""
UNITS = ("seconds", "bytes", "ratio", "messages")
WRONG_UNITS = ("_ms", "_millis", "_milliseconds", "_minutes", "_mb", "_kb", "_percent")
MOST_SERIES = 3_000


@dataclass(frozen=True)
class Scrape:
    """One process's metrics."""

    text: str

    @property
    def families(self) -> dict[str, Metric]:
        found = {family.name: family for family in text_string_to_metric_families(self.text)}
        return {name: one for name, one in found.items() if not name.startswith(FOREIGN)}

    @property
    def samples(self) -> Iterable[Sample]:
        return (sample for family in self.families.values() for sample in family.samples)


async def scrape(stack) -> dict[str, Scrape]:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:

        async def one(url: str) -> Scrape:
            answer = await client.get(f"{url}/metrics")
            assert answer.status_code == 200
            return Scrape(answer.text)

        health = stack.state()["health"]
        answers = await asyncio.gather(*(one(url) for url in health.values()))
        return dict(zip(health, answers, strict=True))


@pytest.fixture
async def used(stack, user) -> tuple[dict[str, Scrape], list[str]]:
    """All scrapes after somebody has had a session, and that user's ids and names."""
    session = await user.launch("starter_terminal")
    await user.wait_for(session["id"], "running")
    await user.get(f"/sessions/{session['id']}/commands")
    await user.delete(session["id"])
    await user.wait_for(session["id"], *FINAL)
    found: dict[str, Scrape] = {}

    async def complete() -> bool:
        found.update(await scrape(stack))
        missing = {
            name
            for name, (process, labels) in PROMISED.items()
            if not has(found[process].families.get(name), labels)
        }
        assert not missing
        return True

    try:
        await eventually(complete, timeout=30)
    except AssertionError as error:
        raise (error.__cause__ or error) from None
    return found, [session["id"], user.username, user.user["id"]]


def has(family: Metric | None, labels: set[str]) -> bool:
    return family is not None and any(
        labels == set(sample.labels) - {"le"} for sample in family.samples
    )


async def test_every_promised_metric_is_there_and_is_well_made(used):
    scrapes, names = used
    for process, found in scrapes.items():
        for name, family in found.families.items():
            assert name.startswith("streamspace_"), f"{process}: {name}"
            assert family.documentation, f"{process}: {name} says nothing"
            assert not name.endswith(WRONG_UNITS), f"{process}: {name} is in no base unit"
            if family.type == "histogram":
                assert name.endswith(UNITS), f"{process}: {name} names no unit"
            if family.type == "counter":
                assert {sample.name for sample in family.samples} <= {
                    f"{name}_total",
                    f"{name}_created",
                }

    for process, found in scrapes.items():
        values: dict[str, set[str]] = {}
        for sample in found.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    assert label in BOUNDS, f"{process}: {sample.name} has the label {label}"
                    values.setdefault(label, set()).add(value)
        for label, seen in values.items():
            assert len(seen) <= BOUNDS[label], f"{process}: {label} has {len(seen)} values"
        assert sum(1 for _ in found.samples) <= MOST_SERIES, process

    for process, found in scrapes.items():
        for name in names:
            assert name not in found.text, f"{process} shows {name}"


async def test_a_route_is_a_template_and_an_unknown_path_no_label(stack, http):
    await http.get("/api/v1/sessions/nobody-desktop-0a1b2c3d")
    await http.get("/api/v1/no/such/thing")
    gateway = (await scrape(stack))["gateway"]
    routes = {sample.labels["route"] for sample in gateway.samples if "route" in sample.labels}
    assert "/sessions/{session_id}" in routes
    assert not any("0a1b2c3d" in route or "such" in route for route in routes)
