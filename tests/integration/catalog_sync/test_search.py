"""Listing templates: search, filters, pages."""

from typing import Any, ClassVar

import pytest
import pytest_asyncio

from streamspace_catalog_sync.domain import Snapshot, SourceFile
from streamspace_common.contracts.ids import CatalogId
from streamspace_common.contracts.problems import Code, ProblemError


def manifest(name: str, display: str, description: str, category: str, tag: str) -> str:
    return (
        "apiVersion: stream.space/v1alpha1\nkind: Template\n"
        f"metadata: {{name: {name}}}\nspec:\n  displayName: {display}\n"
        f"  description: {description}\n  category: {category}\n  tags: [{tag}]\n"
        f"  baseImage: registry.example/{name}:1\n  ports: [{{containerPort: 8080}}]\n"
    )


class WrittenSource:
    """Catalogs that stand here instead of in a repository."""

    CATALOGS: ClassVar[dict[str, list[tuple[str, str, str, str, str]]]] = {
        "a": [
            ("firefox", "Firefox", "A browser, 100% free", "Web Browsers", "mozilla"),
            ("chromium", "Chromium", "Another browser", "browser", "google"),
            ("paint", "Paint_It", "Draws back\\slashes", "Design,Productivity", "art"),
        ],
        "b": [("firefox", "firefox beta", "Newer", "Web Browsers", "mozilla")],
    }

    async def read(self, catalog: CatalogId, *_: Any, **__: Any) -> Snapshot:
        files = (
            SourceFile(f"{entry[0]}.yaml", manifest(*entry).encode())
            for entry in self.CATALOGS[catalog]
        )
        return Snapshot("c" * 40, tuple(files))

    async def forget_all_but(self, catalogs: object) -> None:
        return


@pytest_asyncio.fixture
async def lab(make_replica: Any) -> Any:
    replica = make_replica(source=WrittenSource())
    for catalog in WrittenSource.CATALOGS:
        await replica.add(catalog, f"/srv/{catalog}")
        await replica.settled(catalog)
    return replica


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["a_chromium", "a_firefox", "b_firefox", "a_paint"]),
        ({"search": "FIREFOX"}, ["a_firefox", "b_firefox"]),
        ({"search": "browser another"}, ["a_chromium"]),
        ({"search": "design"}, ["a_paint"]),
        ({"search": "mozilla"}, ["a_firefox", "b_firefox"]),
        ({"search": "100%"}, ["a_firefox"]),
        ({"search": "%"}, ["a_firefox"]),
        ({"search": "_"}, ["a_paint"]),
        ({"search": "\\"}, ["a_paint"]),
        ({"search": "nothing like it"}, []),
        ({"search": "a\x00b"}, []),
        ({"search": "' OR 1=1 --"}, []),
        ({"category": "web browsers"}, ["a_chromium", "a_firefox", "b_firefox"]),
        ({"category": "Productivity"}, ["a_paint"]),
        ({"category": "Web"}, []),
        ({"tag": "Mozilla"}, ["a_firefox", "b_firefox"]),
        ({"catalog_id": "b"}, ["b_firefox"]),
        ({"catalog_id": "b", "search": "chromium"}, []),
    ],
)
async def test_templates_are_found_by_what_they_say(
    lab: Any, query: dict[str, str], found: list[str]
) -> None:
    page = await lab.templates(**query)
    assert [template.id for template in page.items] == found
    assert page.total == len(found)


async def test_categories_are_counted_over_the_whole_catalog(lab: Any) -> None:
    counted = {"Web Browsers": 3, "Design & Graphics": 1, "Productivity": 1}
    assert (await lab.templates(search="paint")).categories == counted
    assert (await lab.templates(catalog_id="b")).categories == {"Web Browsers": 1}


async def test_pages_follow_each_other_without_gap_or_repetition(lab: Any) -> None:
    found: list[str] = []
    cursor = None
    while True:
        page = await lab.templates(limit=1, cursor=cursor)
        found += [template.id for template in page.items]
        assert page.total == 4
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == ["a_chromium", "a_firefox", "b_firefox", "a_paint"]


@pytest.mark.parametrize("cursor", ["x", "ä", "bnVsbA", "WzEsMl0", "e30", ""])
async def test_a_cursor_that_is_not_ours_is_a_clear_problem(lab: Any, cursor: str) -> None:
    with pytest.raises(ProblemError) as caught:
        await lab.templates(cursor=cursor)
    assert caught.value.problem.code is Code.INVALID_REQUEST
