"""Catalogs from repositories on this machine: first sync, changes, removal."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from streamspace_common.contracts.catalog import CatalogState, FileOutcome
from streamspace_common.contracts.events import Event
from streamspace_common.contracts.problems import Code, ProblemError

FIXTURES = Path(__file__).parents[2] / "fixtures"
SAMPLE = Path(__file__).parents[4] / "shared" / "catalog-sample"

Events = Callable[[], Awaitable[list[Event]]]


def manifest(name: str, text: str = "A sample.", **spec: str) -> str:
    more = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    return (
        "apiVersion: stream.space/v1alpha1\nkind: Template\n"
        f"metadata: {{name: {name}}}\nspec:\n  displayName: {name.title()}\n"
        f"  description: {text}\n  baseImage: registry.example/{name}:1\n"
        f"  ports: [{{name: http, containerPort: 8080}}]\n{more}"
    )


def kinds(found: list[Event]) -> list[str]:
    return [event.KIND for event in found]


async def test_adding_a_catalog_answers_at_once_and_publishes_its_templates(
    replica: Any, make_repository: Any, events: Events
) -> None:
    repository = make_repository()
    commit = repository.commit({"a/one.yaml": manifest("one"), "two.yml": manifest("two")})
    added = await replica.add("Lab", repository.path)
    assert added.state is CatalogState.SYNCING
    catalog = await replica.settled("lab")
    assert (catalog.state, catalog.commit, catalog.template_count) == ("synced", commit, 2)
    assert catalog.counts.accepted == 2
    assert catalog.last_sync_at is not None
    assert await replica.ids() == ["lab_one", "lab_two"]
    assert kinds(await events()) == ["added", "published", "published", "synced"]


async def test_every_oddity_syncs_with_the_outcome_of_the_golden_record(
    replica: Any, make_repository: Any
) -> None:
    repository = make_repository()
    repository.add_folder(FIXTURES / "catalog")
    await replica.add("odd", repository.path)
    catalog = await replica.settled("odd")
    golden = json.loads((FIXTURES / "catalog-outcomes.json").read_text())
    report = await replica.report("odd")
    assert {file.path: file.outcome.value for file in report.files} == {
        path: entry["outcome"] for path, entry in golden.items()
    }
    assert {file.path: list(file.reasons) for file in report.files} == {
        path: entry["reasons"] for path, entry in golden.items()
    }
    counted = Counter(entry["outcome"] for entry in golden.values())
    assert catalog.counts.model_dump(exclude={"removed"}) == dict(counted)
    assert report.omitted == 0


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(FIXTURES / "catalog", id="our-own"),
        *([pytest.param(SAMPLE, id="sample")] if SAMPLE.is_dir() else []),
    ],
)
async def test_a_whole_catalog_syncs_completely(
    replica: Any, make_repository: Any, folder: Path
) -> None:
    repository = make_repository()
    repository.add_folder(folder)
    await replica.add("whole", repository.path)
    catalog = await replica.settled("whole")
    assert catalog.state is CatalogState.SYNCED
    report = await replica.report("whole")
    on_disk = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix in {".yaml", ".yml"}
    }
    assert {file.path.partition("#")[0] for file in report.files} == on_disk
    listed = await replica.templates()
    published = [
        file
        for file in report.files
        if file.outcome in {FileOutcome.ACCEPTED, FileOutcome.CORRECTED}
    ]
    assert {item.id for item in listed.items} == {file.template_id for file in published}
    for item in listed.items:
        assert item.unusable or item.protocol, item.id


async def test_only_what_changed_is_published(
    replica: Any, make_repository: Any, events: Events
) -> None:
    repository = make_repository()
    repository.commit({f"{name}.yaml": manifest(name) for name in ("one", "two", "three")})
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    before = len(await events())
    repository.commit(
        {"one.yaml": manifest("one", "Another text."), "two.yaml": None, "README.md": "hello"}
    )
    catalog = await replica.sync("lab")
    told = (await events())[before:]
    assert [(event.KIND, event.about) for event in told] == [
        ("published", "lab_one"),
        ("withdrawn", "lab_two"),
        ("synced", "lab"),
    ]
    assert catalog.counts.removed == 1
    assert await replica.ids() == ["lab_one", "lab_three"]


async def test_an_unchanged_commit_tells_nothing(
    replica: Any, make_repository: Any, events: Events
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("lab", repository.path)
    first = await replica.settled("lab")
    before = await events()
    again = await replica.sync("lab")
    assert again.last_sync_at > first.last_sync_at
    assert await events() == before


async def test_a_file_that_breaks_withdraws_its_template_and_says_why(
    replica: Any, make_repository: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one"), "two.yaml": manifest("two")})
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    repository.commit({"one.yaml": "kind: Template\n bad: ["})
    catalog = await replica.sync("lab")
    assert catalog.state is CatalogState.SYNCED
    assert await replica.ids() == ["lab_two"]
    broken = (await replica.report("lab")).files[0]
    assert broken.outcome is FileOutcome.REFUSED
    assert "not valid YAML" in broken.reasons[0]


async def test_a_commit_without_templates_withdraws_all(replica: Any, make_repository: Any) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    repository.commit({"one.yaml": None})
    catalog = await replica.sync("lab")
    assert (catalog.state, catalog.template_count) == (CatalogState.SYNCED, 0)
    assert await replica.ids() == []


async def test_a_repository_that_goes_away_withdraws_nothing(
    replica: Any, make_repository: Any, events: Events
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    repository.path.rename(repository.path.with_name("elsewhere"))
    catalog = await replica.sync("lab")
    assert catalog.state is CatalogState.FAILED
    assert "is not a git repository" in catalog.error
    assert await replica.ids() == ["lab_one"]
    assert kinds(await events())[-1] == "sync_failed"
    repository.path.with_name("elsewhere").rename(repository.path)
    catalog = await replica.sync("lab")
    assert (catalog.state, catalog.error) == (CatalogState.SYNCED, None)


async def test_a_branch_may_be_named_and_a_missing_one_is_told(
    replica: Any, make_repository: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    repository.branch = "next"
    repository.commit({"two.yaml": manifest("two")})
    await replica.add("next", repository.path, branch="next")
    await replica.settled("next")
    assert await replica.ids() == ["next_one", "next_two"]
    await replica.add("none", repository.path, branch="none")
    catalog = await replica.settled("none")
    assert catalog.state is CatalogState.FAILED
    assert "no branch or tag 'none'" in catalog.error


async def test_an_empty_repository_is_told(replica: Any, make_repository: Any) -> None:
    await replica.add("empty", make_repository().path)
    catalog = await replica.settled("empty")
    assert catalog.state is CatalogState.FAILED
    assert "no commits" in catalog.error


async def test_links_and_submodules_are_not_followed(replica: Any, make_repository: Any) -> None:
    repository = make_repository()
    repository.commit(
        {"one.yaml": manifest("one"), "a/two.yaml": manifest("two")},
        links={"passwd.yaml": "/etc/passwd"},
        submodules={"vendored": "0" * 39 + "1"},
    )
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    skipped = {
        file.path: file.reasons[0]
        for file in (await replica.report("lab")).files
        if file.outcome is FileOutcome.SKIPPED
    }
    assert set(skipped) == {"passwd.yaml", "vendored"}
    assert "symbolic link" in skipped["passwd.yaml"]
    assert "submodule" in skipped["vendored"]


async def test_a_catalog_with_too_many_files_fails_and_says_so(
    make_replica: Any, make_repository: Any
) -> None:
    replica = make_replica(limits={"files": 3})
    repository = make_repository()
    repository.commit({f"{number}.yaml": manifest(f"t{number}") for number in range(4)})
    await replica.add("lab", repository.path)
    catalog = await replica.settled("lab")
    assert catalog.error == "catalog-invalid: The catalog holds more than 3 YAML files."


async def test_a_tree_that_unfolds_without_end_is_refused(
    replica: Any, make_repository: Any
) -> None:
    repository = make_repository()
    repository.commit_endless_folders()
    await replica.add("bomb", repository.path)
    catalog = await replica.settled("bomb")
    assert "too many files" in catalog.error


async def test_removing_a_catalog_withdraws_its_templates(
    replica: Any, make_repository: Any, events: Events
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    await replica.remove("lab")
    assert await replica.ids() == []
    assert kinds(await events())[-2:] == ["withdrawn", "removed"]
    with pytest.raises(ProblemError) as caught:
        await replica.report("lab")
    assert caught.value.problem.code is Code.NOT_FOUND
    await replica.add("lab", repository.path)
    await replica.settled("lab")
    assert await replica.ids() == ["lab_one"]


async def test_the_same_repository_is_not_added_under_a_second_name(
    replica: Any, make_repository: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    await replica.add("lab", repository.path)
    with pytest.raises(ProblemError) as caught:
        await replica.add("other", repository.path)
    assert caught.value.problem.code is Code.ALREADY_EXISTS


async def test_new_rules_read_an_unchanged_commit_again(
    make_replica: Any, make_repository: Any, database: Any
) -> None:
    repository = make_repository()
    repository.commit({"one.yaml": manifest("one")})
    old = make_replica(rules="old rules")
    await old.add("lab", repository.path)
    await old.settled("lab")
    await old.stop()
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM file_reports"))
    new = make_replica(rules="new rules")
    await new.sync("lab")
    assert [file.path for file in (await new.report("lab")).files] == ["one.yaml"]


async def test_thousands_of_templates_sync_and_stay_within_a_reply(
    replica: Any, make_repository: Any
) -> None:
    prose = "Long words. " * 150
    repository = make_repository()
    repository.commit(
        {f"{n // 100}/t{n:04}.yaml": manifest(f"t{n:04}", prose) for n in range(1500)}
    )
    await replica.add("many", repository.path)
    catalog = await replica.settled("many", timeout=90)
    assert catalog.template_count == 1500
    page = await replica.templates()
    assert len(page.to_json()) < 1_000_000
    assert page.total == 1500
    assert page.next_cursor is not None
    assert len((await replica.report("many")).to_json()) < 1_000_000
