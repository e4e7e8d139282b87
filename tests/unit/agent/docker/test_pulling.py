"""What an engine tells of a pull, in words."""

from typing import Any

from streamspace_agent.runtimes.docker.pulling import Pulling


def line(status: str, layer: str = "", **detail: int) -> dict[str, Any]:
    return {"status": status, "id": layer, "progressDetail": detail}


def test_layers_are_added_up_as_far_as_they_are_known() -> None:
    pulling = Pulling()
    pulling.take(line("Pulling from library/debian", "bookworm"))
    pulling.take(line("Pulling fs layer", "a"))
    assert pulling.words() == "Fetching the image."
    pulling.take(line("Downloading", "a", current=10_000_000, total=40_000_000))
    assert pulling.words() == "Fetching the image: 25 % of 40 MB."
    pulling.take(line("Downloading", "b", current=0, total=60_000_000))
    assert pulling.words() == "Fetching the image: 10 % of 100 MB."


def test_what_is_here_is_unpacked_then() -> None:
    pulling = Pulling()
    for layer in ("a", "b"):
        pulling.take(line("Downloading", layer, current=1, total=50_000_000))
        pulling.take(line("Download complete", layer))
    assert pulling.words() == "Unpacking the image: 0 of 2 layers."
    pulling.take(line("Extracting", "a", current=1, total=50_000_000))
    pulling.take(line("Pull complete", "a"))
    assert pulling.words() == "Unpacking the image: 1 of 2 layers."
    pulling.take(line("Pull complete", "b"))
    assert pulling.words() == "Fetched 100 MB."


def test_a_layer_that_was_here_before_weighs_nothing() -> None:
    pulling = Pulling()
    pulling.take(line("Already exists", "a"))
    pulling.take(line("Status: Image is up to date for debian:bookworm"))
    assert (pulling.bytes, pulling.words()) == (0, "Fetching the image.")
