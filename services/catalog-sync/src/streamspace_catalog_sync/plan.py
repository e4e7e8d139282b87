"""What a sync changes: pure decisions from readings and stored templates.

A name may be used once in a catalog. Where several files use it, one wins by a rule
that depends on nothing but the files: one whose declared port its image really
listens on comes first, then the order of paths.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from streamspace_catalog_sync.domain import Changes, Reading, Stored, Wanted
from streamspace_common.contracts.catalog import FileOutcome, FileReport, SyncCounts
from streamspace_common.contracts.ids import CatalogId, TemplateId, template_id


@dataclass(frozen=True)
class Resolved:
    """The templates a catalog wants, each id once, and the report of all its files."""

    wanted: tuple[Wanted, ...]
    reports: tuple[FileReport, ...]


def resolve(catalog: CatalogId, readings: Iterable[Reading]) -> Resolved:
    """Settle duplicate names and make the report, in the order of paths."""
    in_order = sorted(readings, key=lambda reading: reading.path)
    winners = _winners(catalog, in_order)
    wanted: list[Wanted] = []
    reports: list[FileReport] = []
    for reading in in_order:
        id_ = _id(catalog, reading)
        if id_ is None or reading.template is None:
            reports.append(_report(reading, None))
        elif winners[id_] is reading:
            wanted.append(Wanted(id_, reading.path, reading.template))
            reports.append(_report(reading, id_))
        else:
            reports.append(_report(_refused_duplicate(reading, winners[id_]), id_))
    return Resolved(tuple(wanted), tuple(reports))


def plan(wanted: Iterable[Wanted], stored: Iterable[Stored]) -> Changes:
    """What to publish, withdraw and move so that the stored templates are the wanted ones."""
    before = {template.id: template for template in stored}
    publish: list[Wanted] = []
    moved: list[Wanted] = []
    for item in wanted:
        known = before.pop(item.id, None)
        if (
            known is None
            or known.digest != item.template.digest
            or known.unusable != item.template.unusable
        ):
            publish.append(item)
        elif known.path != item.path:
            moved.append(item)
    return Changes(tuple(publish), tuple(sorted(before)), tuple(moved))


def count(reports: Sequence[FileReport], *, removed: int) -> SyncCounts:
    """How many files had which outcome."""
    outcomes = [report.outcome for report in reports]
    return SyncCounts(
        accepted=outcomes.count(FileOutcome.ACCEPTED),
        corrected=outcomes.count(FileOutcome.CORRECTED),
        skipped=outcomes.count(FileOutcome.SKIPPED),
        refused=outcomes.count(FileOutcome.REFUSED),
        removed=removed,
    )


def _winners(catalog: CatalogId, in_order: Iterable[Reading]) -> dict[TemplateId, Reading]:
    winners: dict[TemplateId, Reading] = {}
    for reading in in_order:
        id_ = _id(catalog, reading)
        if id_ is None:
            continue
        best = winners.get(id_)
        if best is None or (reading.port_agrees and not best.port_agrees):
            winners[id_] = reading
    return winners


def _id(catalog: CatalogId, reading: Reading) -> TemplateId | None:
    if reading.template is None:
        return None
    return template_id(catalog, reading.template.manifest.metadata.name)


def _refused_duplicate(loser: Reading, winner: Reading) -> Reading:
    name = loser.template.manifest.metadata.name if loser.template else ""
    why = (
        "its port is the one the image listens on"
        if winner.port_agrees and not loser.port_agrees
        else "its path comes first"
    )
    reason = f"metadata.name: {name!r} is taken by {winner.path}, which is kept because {why}"
    return replace(loser, outcome=FileOutcome.REFUSED, reasons=(reason,), template=None)


def _report(reading: Reading, id_: TemplateId | None) -> FileReport:
    return FileReport(
        path=reading.path, outcome=reading.outcome, template_id=id_, reasons=reading.reasons
    )
