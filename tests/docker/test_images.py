"""The images of deploy/docker/Dockerfile, built for real and looked at from inside.

That their health checks pass is shown where they run: `test_compose_stack.py`.
"""

import pytest
from tests.support import built_images
from tests.support.engine import Engine

DESKTOP = built_images.compose_services()["desktop"]["image"]
NAMES = sorted({*built_images.names()} - {DESKTOP})
SERVICES = {name: b["args"]["SERVICE"] for name, b in built_images.names().items() if "args" in b}
TOOLS = "pip pip3 gcc cc make npm node go uv git"


def run(engine: Engine, image: str, command: str) -> str:
    """What a shell command prints in a container as confined as those of the compose file."""
    return engine.docker(
        "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--entrypoint", "sh",
        image, "-c", command,
    )  # fmt: skip


@pytest.mark.parametrize("image", NAMES)
def test_it_runs_as_an_ordinary_user(engine: Engine, built: None, image: str) -> None:
    assert run(engine, image, "id -u; id -g").split() == ["10001", "10001"]


@pytest.mark.parametrize("image", NAMES)
def test_it_has_nothing_to_build_with(engine: Engine, built: None, image: str) -> None:
    assert run(engine, image, f"for tool in {TOOLS}; do command -v $tool; done; true") == ""
    assert run(engine, image, "python -c 'import pip' 2>&1 | tail -1; true").endswith(
        "No module named 'pip'"
    )


@pytest.mark.parametrize("image", NAMES)
def test_nothing_in_it_can_be_written_but_its_own_folders(
    engine: Engine, built: None, image: str
) -> None:
    # Without the read-only root: the image's own rights.
    found = engine.docker(
        "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c",
        "find / -xdev -type d -writable -not -path '/proc/*' 2>/dev/null; true",
    )  # fmt: skip
    allowed = ("/tmp", "/var/tmp", "/run/lock", "/home/streamspace", "/state", "/enrolment",
               "/secrets", "/installation", "/data/nats")  # fmt: skip
    assert [path for path in found.split() if not path.startswith(allowed)] == []


@pytest.mark.parametrize(("image", "service"), SERVICES.items())
def test_its_service_says_what_it_lacks_and_ends(
    engine: Engine, built: None, image: str, service: str
) -> None:
    """On a read-only root, without a network, as an ordinary user: it comes to its settings."""
    command = "STREAMSPACE_DRAIN_TIMEOUT=soon service; echo ended with $?"
    said = run(engine, image, f"({command}) 2>&1")
    assert said.endswith("ended with 2")
    assert "DRAIN_TIMEOUT" in said


@pytest.mark.parametrize(("image", "service"), SERVICES.items())
def test_it_checks_its_own_health(engine: Engine, built: None, image: str, service: str) -> None:
    config = engine.inspect(image)["Config"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Entrypoint"] == ["service"]


def test_only_the_gateway_holds_the_web_app(engine: Engine, built: None) -> None:
    for image in NAMES:
        there = run(engine, image, "test -f /web/index.html && echo yes || echo no")
        assert there == ("yes" if SERVICES.get(image) == "gateway" else "no"), image


def test_sessions_are_an_ordinary_user_in_a_home_of_their_own(engine: Engine, built: None) -> None:
    said = run(engine, DESKTOP, "id -u; id -un; pwd; echo $HOME; stat -c %U $HOME")
    assert said.split() == ["1000", "user", "/home/user", "/home/user", "user"]


def test_a_session_of_no_known_kind_says_so(engine: Engine, built: None) -> None:
    said = run(engine, DESKTOP, "DESKTOP_KIND=movie session 2>&1; echo ended with $?")
    assert "'movie'" in said
    assert said.endswith("ended with 2")
