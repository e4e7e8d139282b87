"""What the pages of docs/how-to tell people to type is there to be typed."""

import re
from pathlib import Path

import pytest

from streamspace_common.runtime.settings import SHARED_PREFIX
from streamspace_embedded import containers
from streamspace_embedded.settings_reference import SETTINGS

REPOSITORY = Path(__file__).parents[2]
PAGES = [*sorted((REPOSITORY / "docs/how-to").glob("*.md")), REPOSITORY / "deploy/k8s/README.md"]
VARIABLE = re.compile(rf"\b{SHARED_PREFIX}[A-Z_]+[A-Z]\b")
# Of the command line and of the launcher, which are no services: wherever their code names them.
OTHERS = (REPOSITORY / "libs/cli", REPOSITORY / "libs/embedded")


def names() -> set[str]:
    found = {"STREAMSPACE_PORT"}  # an application's, told by the process runtime
    for folder in OTHERS:
        for path in folder.rglob("*.py"):
            found |= set(VARIABLE.findall(path.read_text()))
    found.add(containers.ADMIN_URL)
    for cls in SETTINGS.values():
        prefix = str(cls.model_config["env_prefix"])
        for field in cls.model_fields:
            found |= {f"{prefix}{field.upper()}", f"{SHARED_PREFIX}{field.upper()}"}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_variables_are_settings(page: Path) -> None:
    assert set(VARIABLE.findall(page.read_text())) <= names()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_folders_of_manifests_exist(page: Path) -> None:
    for folder in re.findall(r"(?:-k|-f) (deploy/k8s[\w./-]*)", page.read_text()):
        found = REPOSITORY / folder.rstrip(".")
        assert found.is_file() or (found / "kustomization.yaml").is_file(), folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_modules_and_their_options_exist(page: Path) -> None:
    for module, line in re.findall(r"python -m (streamspace_\w+\.\w+)(.*)", page.read_text()):
        package, _, name = module.partition(".")
        (source,) = REPOSITORY.glob(f"*/*/src/{package}/{name}.py")
        text = source.read_text()
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", line.partition("|")[0]):
            assert f'"{option}"' in text, f"{module} {option}"
