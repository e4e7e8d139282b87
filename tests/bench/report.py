"""Figures with their bars, as a table for people and JSON for programs."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured value; `bar` is what we want of it, in words."""

    what: str
    value: str
    bar: str = ""


def machine() -> str:
    """The machine, in one line."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores = sum(
        line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines()
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    return (
        f"{cores} x {model}, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    )


def table(title: str, figures: list[Figure]) -> str:
    """A Markdown table."""
    lines = [f"## {title}", "", "| what | measured | bar |", "|---|---|---|"]
    lines += [f"| {figure.what} | {figure.value} | {figure.bar} |" for figure in figures]
    return "\n".join([*lines, ""])


def save(folder: Path, section: str, figures: list[Figure]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "figures": [asdict(figure) for figure in figures]}
    (folder / f"{section}.json").write_text(json.dumps(content, indent=2) + "\n")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
