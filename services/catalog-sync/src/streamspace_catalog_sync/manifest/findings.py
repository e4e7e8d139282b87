"""What reading a manifest turned up, and the error that ends it."""

from dataclasses import dataclass, field

from streamspace_common.contracts.catalog import FileOutcome


class RefusedError(Exception):
    """The manifest cannot be published; the message names the field."""


class SkippedError(Exception):
    """The document is none of ours."""


@dataclass
class Findings:
    """Corrections change what was written; notes only tell how it was understood."""

    corrections: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def corrected(self, text: str) -> None:
        if text not in self.corrections:
            self.corrections.append(text)

    def noted(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    @property
    def outcome(self) -> FileOutcome:
        return FileOutcome.CORRECTED if self.corrections else FileOutcome.ACCEPTED

    @property
    def reasons(self) -> tuple[str, ...]:
        return (*self.corrections, *self.notes)
