"""The relay beside websockify (PyPI) and HAProxy (Debian, TCP mode), in one run.

Rounds of all relays alternate, so that whatever else the machine does meets them alike;
medians are reported. Ratios mean something on any machine, MB/s on this one only. Ours
does more than the other two in the same hop: WebSocket on both sides, where the agent's
is masked, and a reader of the viewer's RFB messages.

    python -m tests.bench.relay [--json FILE] [--rounds N]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench import relay_load as load
from tests.bench.relay_wires import Ends, Wire, available, clipboard
from tests.bench.report import Figure

MESSAGE_SIZES = (16 * 1024, 64 * 1024)
WINDOW = 0.8
"""Seconds of each throughput measurement, after a warm-up of a quarter of it."""
STREAMS = 50
PING_RATE = 20.0
"""Round trips per second and stream."""
KEY_PRESS = bytes((4, 1, 0, 0, 0, 0, 0, 0x61))
MB = 1e6


@dataclass
class Outcome:
    """All that was measured of one relay: throughput in MB/s, CPU in s/GB, times in ms."""

    throughput: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    ping: list[list[float]] = field(default_factory=list)
    keystroke: list[list[float]] = field(default_factory=list)
    stalled_mb: float = 0.0
    absorbed_mb: float = 0.0


def flow(wire: Wire, direction: str, size: int) -> tuple[float, float]:
    """MB/s and CPU seconds per GB of one saturated stream."""
    ends = wire.connect()
    if direction == "down":
        sender, receiver, message = ends.session, ends.viewer, wire.down(bytes(size))
    else:
        sender, receiver, message = ends.viewer, ends.session, wire.up(clipboard(size))
    count = load.counter()
    with (
        load.running(load.swallow, receiver, count),
        load.running(load.send_for_ever, sender, message),
    ):
        time.sleep(WINDOW / 4)
        bytes_before, cpu_before, began = count.value, wire.cpu(), time.perf_counter()
        time.sleep(WINDOW)
        moved, cpu = count.value - bytes_before, wire.cpu() - cpu_before
        took = time.perf_counter() - began
    ends.close()
    return moved / took / MB, cpu / (moved / 1e9) if moved else float("inf")


def pings(wire: Wire, seconds: float) -> list[float]:
    """Round-trip times over many streams at once."""
    streams = [wire.connect() for _ in range(STREAMS)]
    answer = wire.down(KEY_PRESS)
    with load.running(
        load.echo, [each.session for each in streams], wire.arrives_up(len(KEY_PRESS)), answer
    ):
        times = load.round_trips(
            [each.viewer for each in streams],
            wire.up(KEY_PRESS),
            wire.arrives_down(len(KEY_PRESS)),
            seconds=seconds,
            rate=PING_RATE,
        )
    _close(streams)
    return times


def keystrokes(wire: Wire, seconds: float) -> list[float]:
    """Round-trip times of one stream beside one that is saturated."""
    busy, typing = wire.connect(), wire.connect()
    with (
        load.running(load.swallow, busy.viewer, load.counter()),
        load.running(load.send_for_ever, busy.session, wire.down(bytes(64 * 1024))),
        load.running(
            load.echo, [typing.session], wire.arrives_up(len(KEY_PRESS)), wire.down(KEY_PRESS)
        ),
    ):
        time.sleep(0.2)
        times = load.round_trips(
            [typing.viewer],
            wire.up(KEY_PRESS),
            wire.arrives_down(len(KEY_PRESS)),
            seconds=seconds,
            rate=100,
        )
    _close([busy, typing])
    return times


def stall(wire: Wire, seconds: float) -> tuple[float, float]:
    """MB of memory, and MB taken from the session, for a viewer that reads nothing."""
    ends = wire.connect()
    before = wire.memory()
    sent = load.counter()
    with load.running(load.send_counted, ends.session, wire.down(bytes(64 * 1024)), sent):
        time.sleep(seconds)
        grown, taken = wire.memory() - before, sent.value
    ends.close()
    return grown / MB, taken / MB


def _close(streams: list[Ends]) -> None:
    for each in streams:
        each.close()


def run(rounds: int, progress: Callable[[str], None] = print) -> dict[str, Outcome]:
    """Measure all relays that are there, `rounds` times in turn."""
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        wires = list(available(Path(folder)))
        direct = Wire()
        outcomes = {wire.name: Outcome() for wire in (*wires, direct)}
        try:
            for number in range(rounds):
                progress(f"round {number + 1} of {rounds}")
                for wire in wires:
                    _throughput(wire, outcomes[wire.name])
                for wire in (*wires, direct):
                    outcomes[wire.name].ping.append(pings(wire, 1.0))
                for wire in (*wires, direct):
                    outcomes[wire.name].keystroke.append(keystrokes(wire, 1.0))
            progress("stalled viewers")
            for wire in wires:
                outcome = outcomes[wire.name]
                outcome.stalled_mb, outcome.absorbed_mb = stall(wire, 2.0)
        finally:
            for wire in (*wires, direct):
                wire.stop()
    return outcomes


def _throughput(wire: Wire, outcome: Outcome) -> None:
    for direction in ("down", "up"):
        for size in MESSAGE_SIZES:
            key = f"{direction} {size // 1024} KiB"
            speed, cost = flow(wire, direction, size)
            outcome.throughput.setdefault(key, []).append(speed)
            outcome.cpu.setdefault(key, []).append(cost)


def _ms(rounds: list[list[float]], share: float) -> float:
    """The median over the rounds of a percentile, in ms."""
    return statistics.median(load.percentile(times, share) * 1000 for times in rounds)


def summary(outcomes: dict[str, Outcome]) -> dict[str, dict[str, float]]:
    """Medians, one flat mapping per relay."""
    result = {}
    for name, outcome in outcomes.items():
        figures = {f"{k} MB/s": statistics.median(v) for k, v in outcome.throughput.items()}
        figures |= {f"{k} s/GB": statistics.median(v) for k, v in outcome.cpu.items()}
        figures |= {
            f"{kind} {label} ms": _ms(times, share)
            for kind, times in (("ping", outcome.ping), ("keystroke", outcome.keystroke))
            for label, share in (("p50", 0.5), ("p99", 0.99))
        }
        figures |= {"stalled MB": outcome.stalled_mb, "absorbed MB": outcome.absorbed_mb}
        result[name] = {key: round(value, 3) for key, value in figures.items()}
    return result


def figures(results: dict[str, dict[str, float]]) -> list[Figure]:
    """The lines of the page, each with its bar."""
    ours, direct = results["streamspace"], results["direct"]
    lines = []
    for key in [k for k in ours if k.endswith("MB/s")]:
        beside = [
            f"{name} {results[name][key]:.0f} (x{ours[key] / results[name][key]:.2f})"
            for name in ("websockify", "haproxy")
            if name in results
        ]
        bar = "x1.3" if key.startswith("down") else "x3.5"
        lines.append(
            Figure(
                f"relay {key}",
                f"{ours[key]:.0f}; " + ", ".join(beside),
                f">= {bar} websockify, >= x1.0 HAProxy",
            )
        )
    for key in [k for k in ours if k.endswith("s/GB")]:
        beside = [
            f"{name} {results[name][key]:.2f}"
            for name in ("websockify", "haproxy")
            if name in results
        ]
        lines.append(
            Figure(f"relay CPU, {key}", f"{ours[key]:.2f}; " + ", ".join(beside), "<= HAProxy's")
        )
    for label in ("p50", "p99"):
        key = f"ping {label} ms"
        added = {
            name: each[key] - direct[key] for name, each in results.items() if name != "direct"
        }
        value = ", ".join(f"{name} {ms:.3f}" for name, ms in added.items())
        lines.append(
            Figure(
                f"relay, added ms at {STREAMS} streams, {label}",
                value,
                "<= 0.12 ms" if label == "p50" else "",
            )
        )
    for label in ("p50", "p99"):
        value = ", ".join(f"{n} {each[f'keystroke {label} ms']:.2f}" for n, each in results.items())
        lines.append(
            Figure(
                f"keystroke beside a saturated stream, round trip ms, {label}",
                value,
                "<= 5 ms" if label == "p99" else "",
            )
        )
    value = ", ".join(
        f"{name} {each['stalled MB']:.1f}" for name, each in results.items() if name != "direct"
    )
    lines.append(Figure("relay memory for a stalled viewer, MB", value, "< 20 MB"))
    return lines


async def measure() -> list[Figure]:
    """For `python -m tests.bench`: about 80 s."""
    return figures(summary(run(3)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="relay bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all medians here")
    arguments = parser.parse_args()
    results = summary(run(arguments.rounds))
    for line in figures(results):
        print(f"{line.what:55} {line.value:75} {line.bar}")
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"results": results, "figures": [asdict(f) for f in figures(results)]})
        )


if __name__ == "__main__":
    main()
