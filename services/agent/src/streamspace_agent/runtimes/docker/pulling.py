"""How far the fetching of an image is, in words; pure.

The engine tells of each layer by itself, and learns of their sizes as it goes: what is
known of them is added up.
"""

from collections.abc import Mapping
from typing import Any

from streamspace_agent.runtimes.containers.quantities import size

_DOWNLOADED = frozenset({"Verifying Checksum", "Download complete", "Extracting", "Pull complete"})


class Pulling:
    """Adds up what the engine tells of one image."""

    def __init__(self) -> None:
        self._here: dict[str, int] = {}
        self._whole: dict[str, int] = {}
        self._unpacked: set[str] = set()

    def take(self, line: Mapping[str, Any]) -> None:
        """One line of the engine's answer."""
        layer, status = str(line.get("id") or ""), str(line.get("status") or "")
        detail = line.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._whole[layer] = int(detail["total"])
            self._here[layer] = int(detail.get("current") or 0)
        elif status in _DOWNLOADED and layer in self._whole:
            self._here[layer] = self._whole[layer]
        if status == "Pull complete":
            self._unpacked.add(layer)

    @property
    def bytes(self) -> int:
        """What the layers that are known so far weigh."""
        return sum(self._whole.values())

    def words(self) -> str:
        """How far it is, as a person would say it."""
        whole, here = self.bytes, sum(self._here.values())
        if not whole:
            return "Fetching the image."
        if here < whole:
            return f"Fetching the image: {100 * here // whole} % of {size(whole)}."
        layers = len(self._whole)
        if (unpacked := len(self._unpacked & self._whole.keys())) < layers:
            return f"Unpacking the image: {unpacked} of {layers} layers."
        return f"Fetched {size(whole)}."
