"""Writes the figures of a run into docs/reference/reliability.md, between two marks."""

from tests.bench.report import machine
from tests.chaos.fleet import Shape
from tests.chaos.run import Tally
from tests.support.stack import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "reliability.md"
BEGIN = "<!-- figures: written by `make chaos ARGS=--record` -->"
END = "<!-- end of figures -->"


def write(tally: Tally, *, seed: str, shape: Shape) -> None:
    """Replace what stands between the marks; the rest of the page is for people to write."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{figures(tally, seed=seed, shape=shape)}\n{END}{after}")


def figures(tally: Tally, *, seed: str, shape: Shape) -> str:
    """The table."""
    clusters = ", ".join(f"{c.name} ({c.runtime}, {c.replicas} agents)" for c in shape.clusters)
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.faults.items()))
    wrong = tally.violations
    rows = [
        ("requests accepted", f"{tally.accepted:,}"),
        ("requests without an answer, which may or may not count", f"{tally.unknown:,}"),
        ("requests refused", f"{tally.refused:,}"),
        ("sessions", f"{tally.sessions:,}"),
        ("effects carried out by agents", f"{tally.effects:,}"),
        ("kills (SIGKILL)", str(tally.faults["kill"])),
        ("all faults", f"{sum(tally.faults.values())}: {faults}"),
        ("processes that ended by themselves", str(tally.incidents)),
        ("answers that were 500", str(tally.internal_errors)),
        ("lost", str(wrong["lost"])),
        ("doubled", str(wrong["doubled"])),
        (
            "reordered, wrong, strangers, orphans",
            str(wrong["reordered"] + wrong["wrong"] + wrong["stranger"] + wrong["orphan"]),
        ),
        ("stuck for more than 30 s after the last fault", str(wrong["stuck"])),
        ("longest until everybody agreed after the last fault", f"{tally.slowest:.1f} s"),
        ("all sessions built anew from their events, beside the live ones", tally.rebuilt),
    ]
    lines = [
        f"Seed {seed}, {tally.rounds} rounds, {tally.seconds / 60:.0f} minutes. Clusters: {clusters}.",
        "",
        f"Machine: {machine()}.",
        "",
        "| what | figure |",
        "|---|---|",
        *(f"| {what} | {figure} |" for what, figure in rows),
    ]
    return "\n".join([*lines, ""])
