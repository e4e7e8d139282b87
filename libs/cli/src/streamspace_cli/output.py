"""What is printed: tables for people, JSON and YAML for programs, progress on stderr."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_NOT_IN_JSON = re.compile(r"[\x7f-\x9f]")
_COLOURS = {
    **dict.fromkeys(("running", "online", "synced", "completed"), "32"),
    **dict.fromkeys(("failed", "offline", "expired", "open"), "31"),
    **dict.fromkeys(
        ("starting", "pending", "waking", "hibernating", "terminating", "syncing", "unknown",
         "degraded", "draining"),
        "33",
    ),
}  # fmt: skip
_DASH = "-"


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True)
class Column:
    """A table's column: its title, and where its text comes from."""

    title: str
    of: str | Callable[[Mapping[str, Any]], Any]

    def text(self, item: Mapping[str, Any]) -> str:
        if not isinstance(self.of, str):
            return plain(self.of(item))
        value: Any = item
        for name in self.of.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return plain(value)


class Printer:
    """Writes data to `out` and words to `err`.

    Colours only on a terminal, and never where `NO_COLOR` is set.
    """

    def __init__(
        self,
        format: Format,  # noqa: A002 - the option's name
        *,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.format = format
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        told = os.environ if environment is None else environment
        may = not told.get("NO_COLOR") and told.get("TERM") != "dumb"
        self._colour = may and self._out.isatty()
        self._colour_err = may and self._err.isatty()

    @property
    def columns(self) -> int | None:
        """How wide the terminal is; None when what is printed goes elsewhere."""
        return shutil.get_terminal_size().columns if self._out.isatty() else None

    def many(self, items: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> None:
        """A list: one row each, or an array."""
        found = list(items)
        if self.format is not Format.TABLE:
            self._document(found)
            return
        if not found:
            self.note("There is nothing to show.")
            return
        self._table([[column.text(item) for column in columns] for item in found], columns)

    def one(self, item: Mapping[str, Any], columns: Sequence[Column]) -> None:
        """A single thing: a line for each of its properties, or an object."""
        if self.format is not Format.TABLE:
            self._document(item)
            return
        width = max(len(column.title) for column in columns)
        for column in columns:
            text = column.text(item)
            self.line(f"{column.title:<{width}}  {self._painted(text, text)}")

    def record(self, item: Mapping[str, Any], text: str) -> None:
        """One of an endless row: a line of text, a line of JSON, or a YAML document."""
        if self.format is Format.JSON:
            self.line(_json(item, indent=None))
        elif self.format is Format.YAML:
            self.line("---")
            self._document(item)
        else:
            self.line(text)
        self._out.flush()

    def line(self, text: str) -> None:
        self._out.write(f"{text}\n")

    def note(self, text: str) -> None:
        """For people only; scripts that read stdout do not see it."""
        self._err.write(f"{text}\n")
        self._err.flush()

    def error(self, text: str) -> None:
        head = "\x1b[31mError:\x1b[0m" if self._colour_err else "Error:"
        self.note(f"{head} {plain(text)}")

    def _document(self, content: Any) -> None:
        if self.format is Format.YAML:
            import yaml

            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            self._out.write(text)
        else:
            self.line(_json(content, indent=2))

    def _table(self, rows: Sequence[Sequence[str]], columns: Sequence[Column]) -> None:
        titles = [column.title.upper() for column in columns]
        widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
        self.line("  ".join(f"{t:<{w}}" for t, w in zip(titles, widths, strict=True)).rstrip())
        for row in rows:
            padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            painted = (self._painted(c, p) for c, p in zip(row, padded, strict=True))
            self.line("  ".join(painted).rstrip())

    def _painted(self, text: str, padded: str) -> str:
        colour = _COLOURS.get(text) if self._colour else None
        return f"\x1b[{colour}m{padded}\x1b[0m" if colour else padded


def plain(value: Any) -> str:
    """A value as a cell's text; what could steer a terminal is made visible instead."""
    match value:
        case None | "":
            return _DASH
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(map(plain, value)) or _DASH
        case _:
            return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value))


def moment(text: str | None) -> str:
    """A time of the API in this machine's own zone, to the second."""
    if not text:
        return _DASH
    return read_moment(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(text: str | None, now: datetime | None = None) -> str:
    """How long ago, in the largest unit that says something: `3 min`."""
    if not text:
        return _DASH
    return span(((now or datetime.now(UTC)) - read_moment(text)).total_seconds())


def span(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (seconds >= size and unit == "min"):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def counted(number: int, thing: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def size(amount: float) -> str:
    """Bytes in binary units: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def read_moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def at(title: str, name: str) -> Column:
    """A column with a time."""
    return Column(title, lambda item: moment(item.get(name)))


def since(title: str, name: str) -> Column:
    """A column with a time's age."""
    return Column(title, lambda item: age(item.get(name)))


def _json(content: Any, *, indent: int | None) -> str:
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
