"""Every oddity of real catalogs, one fixture each, and what becomes of it.

`catalog-outcomes.json` is the golden record. To change it on purpose, run this file
with STREAMSPACE_REWRITE_GOLDEN=1 and read the difference.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from streamspace_catalog_sync.domain import SourceFile
from streamspace_catalog_sync.manifest import shipped_corrections
from streamspace_catalog_sync.plan import Resolved
from streamspace_catalog_sync.syncing import read_all
from streamspace_common.contracts.catalog import FileOutcome
from streamspace_common.contracts.ids import CatalogId

FIXTURES = Path(__file__).parents[2] / "fixtures"
CATALOG = FIXTURES / "catalog"
GOLDEN = FIXTURES / "catalog-outcomes.json"


def files_of(folder: Path) -> list[SourceFile]:
    return [
        SourceFile(str(path.relative_to(folder)), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".yaml", ".yml"}
    ]


@pytest.fixture(scope="module")
def resolved() -> Resolved:
    return read_all(CatalogId("odd"), files_of(CATALOG), shipped_corrections())


def summary(resolved: Resolved) -> dict[str, Any]:
    wanted = {template.path: template for template in resolved.wanted}
    found: dict[str, Any] = {}
    for report in resolved.reports:
        entry: dict[str, Any] = {
            "outcome": report.outcome.value,
            "reasons": list(report.reasons),
        }
        if report.path in wanted:
            template = wanted[report.path].template
            connection = template.manifest.spec.connection
            entry["id"] = report.template_id
            entry["connection"] = (
                f"{connection.protocol} {connection.port} {connection.path}" if connection else None
            )
            if template.unusable:
                entry["unusable"] = template.unusable
        found[report.path] = entry
    return found


def test_every_oddity_has_the_outcome_of_the_golden_record(resolved: Resolved) -> None:
    found = summary(resolved)
    if os.environ.get("STREAMSPACE_REWRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_every_outcome_but_acceptance_gives_a_reason(resolved: Resolved) -> None:
    silent = [
        report.path
        for report in resolved.reports
        if report.outcome is not FileOutcome.ACCEPTED and not report.reasons
    ]
    assert silent == []


def test_the_record_covers_every_outcome(resolved: Resolved) -> None:
    assert {report.outcome for report in resolved.reports} == set(FileOutcome)


def test_reading_in_another_order_gives_the_same_result(resolved: Resolved) -> None:
    backwards = list(reversed(files_of(CATALOG)))
    assert read_all(CatalogId("odd"), backwards, shipped_corrections()) == resolved
