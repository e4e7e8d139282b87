"""The starter catalog that comes with StreamSpace."""

from pathlib import Path

import pytest
import yaml

from streamspace_catalog_sync.domain import STARTER
from streamspace_catalog_sync.manifest import shipped_corrections
from streamspace_catalog_sync.plan import Resolved
from streamspace_catalog_sync.source.starter import starter_snapshot
from streamspace_catalog_sync.syncing import read_all
from streamspace_common.contracts.catalog import FileOutcome, Protocol, RuntimeKind

COMPOSE = Path(__file__).parents[3] / "docker-compose.yml"
OURS = yaml.safe_load(COMPOSE.read_text())["services"]["desktop"]["image"]


@pytest.fixture(scope="module")
def starter() -> Resolved:
    return read_all(STARTER, starter_snapshot().files, shipped_corrections())


def test_every_starter_template_is_accepted_and_usable(starter: Resolved) -> None:
    assert {report.outcome for report in starter.reports} == {FileOutcome.ACCEPTED}
    assert [template.id for template in starter.wanted if template.template.unusable] == []


def test_a_desktop_and_a_terminal_run_as_plain_processes(starter: Resolved) -> None:
    by_id = {template.id: template.template.manifest for template in starter.wanted}
    for name in ("desktop", "terminal"):
        manifest = by_id[f"starter_{name}"]  # type: ignore[index]
        assert manifest.runtimes == set(RuntimeKind)
        assert manifest.spec.connection is not None
        assert manifest.spec.connection.protocol is Protocol.VNC


def test_files_serve_a_web_client_without_a_display(starter: Resolved) -> None:
    [files] = [each.template.manifest for each in starter.wanted if each.id == "starter_files"]
    assert files.runtimes == set(RuntimeKind)
    assert files.spec.process_serves_http
    assert files.spec.process is not None
    assert not files.spec.process.display


def test_what_needs_no_foreign_image_opens_on_every_runtime_from_our_own(
    starter: Resolved,
) -> None:
    ours = {
        each.id: each.template.manifest.spec
        for each in starter.wanted
        if each.template.manifest.spec.process is not None
    }
    assert set(ours) == {"starter_desktop", "starter_files", "starter_terminal"}
    assert {spec.base_image for spec in ours.values()} == {OURS}
    kinds = {id_: {v.name: v.value for v in spec.env}["DESKTOP_KIND"] for id_, spec in ours.items()}
    assert kinds == {id_: id_.removeprefix("starter_") for id_ in ours}


def test_ten_images_are_there_on_ports_that_are_known_to_be_right(starter: Resolved) -> None:
    corrections = shipped_corrections()
    images = [
        template.template.manifest.spec
        for template in starter.wanted
        if template.template.manifest.spec.base_image not in {None, OURS}
    ]
    assert len(images) >= 10
    for spec in images:
        known = corrections.find(spec.base_image)
        assert known is not None, spec.base_image
        assert spec.connection is not None
        assert spec.connection.port == known.port


def test_every_starter_template_is_presentable(starter: Resolved) -> None:
    for template in starter.wanted:
        spec = template.template.manifest.spec
        assert spec.description, template.id
        assert spec.categories, template.id
        assert spec.icon is not None, template.id
        assert spec.icon.startswith("tabler:"), template.id


def test_its_commit_changes_only_with_its_files() -> None:
    assert starter_snapshot().commit == starter_snapshot().commit
