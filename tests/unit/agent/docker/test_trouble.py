"""Engines' and registries' words, as real ones say them, and what is made of them."""

import pytest

from streamspace_agent.ports import PassingFailure, PermanentFailure
from streamspace_agent.runtimes.docker import trouble
from streamspace_agent.runtimes.docker.views import Ending
from streamspace_common.contracts.sessions import Reason

IMAGE = "registry.test/desk:3"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("manifest for registry.test/desk:3 not found: manifest unknown: manifest unknown",
         Reason.IMAGE_NOT_FOUND),
        ("manifest unknown", Reason.IMAGE_NOT_FOUND),
        ("name unknown: repository not found", Reason.IMAGE_NOT_FOUND),
        ("invalid reference format", Reason.IMAGE_NOT_FOUND),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries",
         Reason.IMAGE_NOT_FOUND),
        (("pull access denied for desk, repository does not exist or may require 'docker login': "
         "denied: requested access to the resource is denied"), Reason.IMAGE_DENIED),
        ("Head https://registry.test/v2/desk/manifests/3: unauthorized", Reason.IMAGE_DENIED),
        ("failed to register layer: write /usr/lib/x: no space left on device", Reason.NO_SPACE),
    ],
)  # fmt: skip
def test_what_will_never_be_fetched_fails_for_good(words: str, reason: Reason) -> None:
    failure = trouble.of_pull(IMAGE, words)
    assert isinstance(failure, PermanentFailure)
    assert failure.reason is reason
    assert IMAGE in str(failure)


@pytest.mark.parametrize(
    "words",
    [
        'Get "https://registry.test/v2/": dial tcp: lookup registry.test: no such host',
        'Get "https://registry.test/v2/": net/http: request canceled while waiting for connection',
        'Get "https://registry.test/v2/": dial tcp 10.0.0.1:443: connect: connection refused',
        "toomanyrequests: You have reached your pull rate limit.",
        "received unexpected HTTP status: 502 Bad Gateway",
        "unexpected EOF",
        "something nobody has seen before",
    ],
)
def test_what_may_pass_is_tried_again(words: str) -> None:
    assert isinstance(trouble.of_pull(IMAGE, words), PassingFailure)


def test_a_program_that_is_missing_in_the_image_is_the_templates_fault() -> None:
    words = (
        "failed to create shim task: OCI runtime create failed: runc create failed: exec: "
        '"/no/program": stat /no/program: no such file or directory: unknown'
    )
    failure = trouble.of_start(IMAGE, words)
    assert isinstance(failure, PermanentFailure)
    assert failure.reason is Reason.UNSUPPORTED_TEMPLATE
    assert isinstance(trouble.of_start(IMAGE, "driver failed programming"), PassingFailure)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Ending(0, False, ""), "The desktop was closed. Its last words: one | two"),
        (Ending(3, False, ""), "The desktop failed with exit code 3. Its last words: one | two"),
        (Ending(137, False, ""), "The desktop was killed by SIGKILL. Its last words: one | two"),
    ],
)
def test_a_death_is_told_with_its_last_words(ending: Ending, words: str) -> None:
    assert trouble.death(ending, "one\n\ntwo\n") == (Reason.DESKTOP_DIED, words)


def test_memory_that_ran_out_is_told_as_that() -> None:
    reason, message = trouble.death(Ending(137, True, ""), "")
    assert reason is Reason.OUT_OF_MEMORY
    assert "more memory" in message


def test_a_death_with_the_engine_says_so() -> None:
    _, message = trouble.death(Ending(255, False, ""), "", engine_was_away=True)
    assert message == "The desktop failed with exit code 255 together with the container engine."
