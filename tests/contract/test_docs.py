"""The written part of the repository: links lead somewhere, and nothing tells of a machine."""

import re
import subprocess
from pathlib import Path

import pytest

from streamspace_embedded import settings_reference

REPOSITORY = Path(__file__).parents[2]
NOT_OURS = {".venv", "node_modules", ".git", ".cache", ".streamspace", "dist", "test-results"}
BINARY = {".png", ".ico", ".woff2", ".jpg"}
MADE_BY_TOOLS = {"package-lock.json"}


def files() -> list[Path]:
    return [
        path
        for path in REPOSITORY.rglob("*")
        if path.is_file()
        and path.suffix not in BINARY
        and not NOT_OURS & set(path.relative_to(REPOSITORY).parts)
        and not any(
            part.startswith((".mypy", ".ruff", ".pytest", ".import", ".hypo"))
            or part in {"__pycache__", ".schemathesis"}
            for part in path.parts
        )
    ]


FILES = files()
PAGES = [path for path in FILES if path.suffix == ".md"]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_what_exists(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        if heading:
            assert heading in anchors(found), target


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in headings}


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", text_of(page)):
            found = (page.parent / target).resolve()
            if found.is_file():
                waiting.append(found)
    unreached = {page for page in PAGES if (REPOSITORY / "docs") in page.parents} - seen
    assert not unreached


def test_help_lists_every_target() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    targets = re.findall(r"^\.PHONY: (.*)$", text_of(REPOSITORY / "Makefile"), flags=re.MULTILINE)
    for target in " ".join(targets).split():
        assert re.search(rf"^  {target} +\S", told, flags=re.MULTILINE), target


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    ours = re.escape(str(REPOSITORY)) + r"(?![\w-])"
    homes = r"/(?:home|Users)/(?!streamspace\b|ada\b|user\b|me\b|kasm|jovyan)[a-z][\w-]+/"
    for path in FILES:
        places = re.findall(f"{ours}|{homes}", text_of(path))
        assert not places, f"{path.relative_to(REPOSITORY)}: {places}"


def test_no_lock_file_names_an_address() -> None:
    """Where packages come from is the machine's to say, by its own settings."""
    constraints = text_of(REPOSITORY / "constraints.txt")
    assert "://" not in constraints
    assert "index-url" not in constraints
    for path in FILES:
        if path.name in MADE_BY_TOOLS:
            assert '"resolved"' not in text_of(path), path
        if path.name in {"pip.conf", ".npmrc", "uv.toml"}:
            assert not re.search(r"registry *=|index", text_of(path)), path
    for path in FILES:
        if path.name in {"pyproject.toml", "Makefile", "Dockerfile", "docker-compose.yml"}:
            found = re.search(r"index-url|extra-index|registry=|--registry", text_of(path))
            assert found is None, path


def test_the_reference_of_settings_is_current() -> None:
    assert text_of(REPOSITORY / "docs/reference/settings.md") == settings_reference.document()


@pytest.mark.parametrize("service", sorted(settings_reference.SETTINGS))
def test_every_setting_says_what_it_is(service: str) -> None:
    for name, field in settings_reference.SETTINGS[service].model_fields.items():
        assert field.description, f"{service}: {name}"


def test_every_service_and_library_has_a_readme() -> None:
    for folder in (*REPOSITORY.glob("services/*/"), *REPOSITORY.glob("libs/*/")):
        page = folder / "README.md"
        assert page.is_file(), folder.name
        assert len(text_of(page).splitlines()) <= 60, f"{page}: say the rest in docs/"
