"""What a runtime reports of a start, remembered."""

import asyncio

from streamspace_common.contracts.sessions import Phase


class Heard:
    """Takes a start's reports: the phases that were reached, and what was said of each."""

    def __init__(self) -> None:
        self.reached: list[Phase] = []
        self.words: list[tuple[Phase, str | None]] = []
        """Of phases that went on."""
        self.outcomes: dict[Phase, str | None] = {}
        self.something = asyncio.Event()
        """Set by the first report."""

    def __call__(self, phase: Phase, message: str | None = None, *, ongoing: bool = False) -> None:
        self.something.set()
        if ongoing:
            self.words.append((phase, message))
        else:
            self.reached.append(phase)
            self.outcomes[phase] = message


def ignore(_phase: Phase, _message: str | None = None, *, ongoing: bool = False) -> None:
    """Hears nothing."""
