"""Dashboard, rules and alerts against the metrics that the services really have."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import typer
import yaml
from prometheus_client import REGISTRY

import streamspace_cli.main

# Importing them registers their metrics.
for module in (
    "streamspace_agent.metrics",
    "streamspace_auth.meters",
    "streamspace_catalog_sync.syncing",
    "streamspace_common.store.outbox_publish",
    "streamspace_common.store.outbox_relay",
    "streamspace_common.web.metrics",
    "streamspace_gateway.live",
    "streamspace_session.metrics",
    "streamspace_vnc_proxy.agent_ingress.metrics",
    "streamspace_vnc_proxy.metrics",
):
    importlib.import_module(module)

REPOSITORY = Path(__file__).parents[2]
RULES = yaml.safe_load((REPOSITORY / "deploy/prometheus/rules.yaml").read_text())
ALERTS = yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.yaml").read_text())
DASHBOARD = json.loads((REPOSITORY / "deploy/grafana/streamspace.json").read_text())
ADDED_BY_PROMETHEUS = {"instance", "job", "namespace", "pod", "le"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def rules(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [rule for group in document["groups"] for rule in group["rules"] if kind in rule]


RECORDED = {rule["record"]: rule["expr"] for rule in rules(RULES, "record")}
ALARMS = {rule["alert"]: rule for rule in rules(ALERTS, "alert")}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    **{f"rule {name}": expression for name, expression in RECORDED.items()},
    **{f"alert {name}": rule["expr"] for name, rule in ALARMS.items()},
    **{
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel["targets"]
    },
}


def series() -> dict[str, set[str]]:
    """The name of every series our processes expose, with its labels."""
    found: dict[str, set[str]] = {}
    for collector in set(REGISTRY._names_to_collectors.values()):
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.describe() if hasattr(collector, "describe") else ():
            for suffix in SUFFIXES.get(family.type, ()):
                found[family.name + suffix] = labels
    return {name: labels for name, labels in found.items() if name.startswith("streamspace_")}


SERIES = series()


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return iter(found)


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_names_only_what_exists(where):
    named = list(selectors(EXPRESSIONS[where]))
    assert named or "vector(" in EXPRESSIONS[where]
    for selector in named:
        assert selector.name in {*SERIES, *RECORDED}
        if selector.name in SERIES:
            known = SERIES[selector.name] | ADDED_BY_PROMETHEUS
            assert {matcher.name for matcher in selector.matchers.matchers} <= known


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_groups_by_labels_that_its_metrics_have(where):
    expression = EXPRESSIONS[where]
    grouped = {
        label.strip()
        for labels in re.findall(r"\bby\s*\(([^)]*)\)", expression)
        for label in labels.split(",")
    }
    known = set(ADDED_BY_PROMETHEUS)
    for selector in selectors(expression):
        source = RECORDED.get(selector.name)
        for inner in selectors(source) if source else (selector,):
            known |= SERIES[inner.name]
    assert grouped <= known


@pytest.mark.parametrize("name", ALARMS)
def test_an_alert_says_what_is_wrong_and_where_to_read_on(name):
    rule = ALARMS[name]
    assert rule["for"]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (REPOSITORY / page).read_text(), flags=re.MULTILINE)
    assert anchor in {heading.strip().lower().replace(" ", "-") for heading in headings}
    assert anchor == name.lower()


def test_the_page_on_operating_explains_no_alert_that_is_gone():
    page = (REPOSITORY / "docs/how-to/operate.md").read_text()
    assert set(re.findall(r"^### (StreamSpace\w+)$", page, flags=re.MULTILINE)) == set(ALARMS)


def test_every_recording_rule_is_used():
    used = {
        selector.name
        for where, expression in EXPRESSIONS.items()
        if not where.startswith("rule")
        for selector in selectors(expression)
    }
    assert set(RECORDED) <= used


def test_the_dashboard_fits_its_grid_and_repeats_no_id():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in PANELS)


def test_no_metric_has_a_label_that_grows_with_use():
    growing = {
        "session",
        "session_id",
        "user",
        "user_id",
        "username",
        "path_info",
        "id",
        "trace_id",
    }
    for name, labels in SERIES.items():
        assert not labels & growing, name


def test_every_command_of_the_page_exists():
    page = (REPOSITORY / "docs/how-to/operate.md").read_text()
    told = {
        tuple(re.findall(r"[a-z]+", words))
        for words in re.findall(r"(?<!-n )\bstreamspace ((?:[a-z]+ ?){1,2})", page)
    }
    assert told
    tree = typer.main.get_command(streamspace_cli.main.app)
    for words in told:
        group: Any = tree
        for word in words:
            if not hasattr(group, "commands"):
                break
            assert word in group.commands, " ".join(words)
            group = group.commands[word]


def test_every_metric_of_the_page_exists():
    page = (REPOSITORY / "docs/how-to/operate.md").read_text()
    for name in re.findall(r"\bstreamspace_[a-z_]+", page):
        assert any(known.startswith(name) for known in SERIES), name
