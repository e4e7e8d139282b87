"""What a sync publishes and withdraws."""

from dataclasses import replace

from streamspace_catalog_sync.domain import (
    CanonicalTemplate,
    Changes,
    Reading,
    Stored,
    Wanted,
    digest_of,
)
from streamspace_catalog_sync.plan import count, plan, resolve
from streamspace_common.contracts.catalog import FileOutcome, SyncCounts, TemplateManifest
from streamspace_common.contracts.ids import CatalogId, template_id

CATALOG = CatalogId("lab")


def canonical(name: str, text: str = "", unusable: str | None = None) -> CanonicalTemplate:
    document = {"metadata": {"name": name}, "spec": {"displayName": name, "description": text}}
    manifest = TemplateManifest.model_validate(document)
    return CanonicalTemplate(manifest, document, digest_of(document), unusable)


def reading(path: str, name: str, *, agrees: bool = True) -> Reading:
    return Reading(path, FileOutcome.ACCEPTED, (), canonical(name), port_agrees=agrees)


def wanted(name: str, path: str = "a.yaml", **facts: str) -> Wanted:
    return Wanted(template_id(CATALOG, name), path, canonical(name, **facts))


def stored(of: Wanted) -> Stored:
    return Stored(of.id, of.template.digest, of.path, of.template.unusable)


def test_a_new_template_is_published_and_a_gone_one_withdrawn() -> None:
    new, old = wanted("new"), wanted("old")
    assert plan([new], [stored(old)]) == Changes(publish=(new,), withdraw=(old.id,))


def test_nothing_is_done_about_what_is_the_same() -> None:
    same = wanted("same")
    assert plan([same], [stored(same)]) == Changes()


def test_a_changed_manifest_is_published_under_the_same_id() -> None:
    before, after = wanted("one", text="before"), wanted("one", text="after")
    assert before.id == after.id
    assert plan([after], [stored(before)]).publish == (after,)


def test_a_change_of_usability_alone_is_published() -> None:
    usable = wanted("one")
    unusable = wanted("one", unusable="no port")
    assert plan([unusable], [stored(usable)]).publish == (unusable,)


def test_a_file_that_only_moved_tells_nobody() -> None:
    before, after = wanted("one", path="a.yaml"), wanted("one", path="b.yaml")
    changes = plan([after], [stored(before)])
    assert changes.moved == (after,)
    assert changes.is_empty


def test_an_empty_catalog_withdraws_everything() -> None:
    old = wanted("old")
    assert plan([], [stored(old)]).withdraw == (old.id,)


def test_of_two_files_with_one_name_the_first_path_wins() -> None:
    resolved = resolve(CATALOG, [reading("b.yaml", "one"), reading("a.yaml", "one")])
    assert [template.path for template in resolved.wanted] == ["a.yaml"]
    loser = resolved.reports[1]
    assert (loser.path, loser.outcome) == ("b.yaml", FileOutcome.REFUSED)
    assert "a.yaml" in loser.reasons[0]


def test_a_file_with_the_right_port_wins_over_an_earlier_path() -> None:
    files = [reading("a.yaml", "one", agrees=False), reading("b.yaml", "one")]
    assert [template.path for template in resolve(CATALOG, files).wanted] == ["b.yaml"]


def test_the_winner_does_not_depend_on_the_order_of_reading() -> None:
    files = [
        reading("c.yaml", "one"),
        reading("a.yaml", "one", agrees=False),
        reading("b.yaml", "one"),
    ]
    assert resolve(CATALOG, files) == resolve(CATALOG, list(reversed(files)))


def test_the_same_name_in_two_catalogs_is_two_templates() -> None:
    assert template_id(CatalogId("a"), "one") != template_id(CatalogId("b"), "one")


def test_counts_are_of_files_and_of_withdrawn_templates() -> None:
    readings = [
        reading("a.yaml", "one"),
        replace(reading("b.yaml", "two"), outcome=FileOutcome.CORRECTED, reasons=("why",)),
        Reading("c.yaml", FileOutcome.SKIPPED, ("why",)),
        Reading("d.yaml", FileOutcome.REFUSED, ("why",)),
        reading("e.yaml", "one"),
    ]
    assert count(resolve(CATALOG, readings).reports, removed=3) == SyncCounts(
        accepted=1, corrected=1, skipped=1, refused=2, removed=3
    )
