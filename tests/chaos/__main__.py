"""`make chaos`: StreamSpace under fire, until the figures are in, or something is wrong.

    make chaos                          the long run: 10,000 requests, 300 kills
    make chaos ARGS="--seed 7"          the same faults as another run with this seed
    make chaos ARGS="--short"           what CI runs
    make chaos ARGS=--record            writes the figures to docs/reference/reliability.md

A run is as many rounds as it takes; each ends with everything healed, a rest and a judgement.
It ends with status 1 at the first round that something is wrong with, and says how to run
just that round again.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import volumes
from tests.chaos.clients import Place
from tests.chaos.fleet import Cluster, Fleet, Shape
from tests.chaos.page import write
from tests.chaos.plan import Amounts
from tests.chaos.run import Round, Trial, keep_note

SHORT_SEEDS = ("1", "2")
"""The seeds of every short run; one more is drawn each time."""
_PER_ROUND = 500


def tell(message: str) -> None:
    print(message, flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", help="repeat the round, or the run, with this seed")
    parser.add_argument("--short", action="store_true", help="three small rounds, as in CI")
    parser.add_argument("--commands", type=int, default=10_000, help="%(default)s")
    parser.add_argument("--kills", type=int, default=300, help="%(default)s")
    parser.add_argument("--seconds", type=float, default=60.0, help="of fire a round: %(default)s")
    parser.add_argument("--clients", type=int, default=32, help="%(default)s")
    parser.add_argument("--keep", action="store_true", help="keep the files of a good run too")
    parser.add_argument("--record", action="store_true", help="write the figures to the page")
    return parser.parse_args(arguments)


def rounds(options: argparse.Namespace, *, disks: int) -> list[Round]:
    """What to do; a pure function of the options, but for a seed that is not given."""
    drawn = str(random.SystemRandom().randrange(10**6))
    if options.short:
        seeds = [options.seed] if options.seed else [*SHORT_SEEDS, drawn]
        amounts = Amounts(
            kill=6, pause=2, restart=1, cut=2, hold=1, delay=1, silence=2, fill=disks and 1
        )
        return [Round(seed, 50, amounts, 7.0) for seed in seeds]
    seed = options.seed or drawn
    if "." in seed:
        count, seeds = 1, [seed]
    else:
        count = max(1, round(options.commands / _PER_ROUND))
        seeds = [f"{seed}.{number}" for number in range(1, count + 1)]
    total = count if "." not in seed else max(1, round(options.commands / _PER_ROUND))
    return [
        Round(
            each,
            -(-options.commands // total),
            Amounts.around(-(-options.kills // total), disks=disks),
            options.seconds,
        )
        for each in seeds
    ]


SHORT = Shape(
    clusters=(
        Cluster("null-a", "null", 2),
        Cluster("null-b", "null", 1),
        Cluster("desk", "process", 1),
    ),
    replicas={"session": 2},
)
LONG = Shape(
    clusters=(
        Cluster("null-a", "null", 3),
        Cluster("null-b", "null", 2),
        Cluster("desk", "process", 2),
    ),
    replicas={"session": 2, "gateway": 2, "auth": 2},
    nats_megabytes=768,
    postgres_megabytes=768,
)


async def run(options: argparse.Namespace, folder: Path) -> bool:
    """Whether nothing was wrong."""
    shape = (SHORT if options.short else LONG).supported()
    fleet = Fleet(folder, shape, lambda message: tell(f"    {message}"))
    places = [
        Place(c.name, 0.06, 4) if c.runtime == "process" else Place(c.name, 1.0, 10**6)
        for c in shape.clusters
    ]
    trial = Trial(fleet, places, 8 if options.short else options.clients, tell)
    try:
        tell("starting everything")
        await fleet.start()
        if not fleet.disks:
            tell("  no disk is filled: that needs root, for file systems of our own")
        wanted = rounds(options, disks=len(fleet.disks))
        for number, one in enumerate(wanted, 1):
            tell(
                f"round {number} of {len(wanted)}, seed {one.seed}: {one.commands} requests, "
                f"{one.amounts.kill} kills"
            )
            found = await trial.round(one)
            if found or trial.tally.internal_errors:
                _tell_wrong(options, one, found, trial)
                return False
            tell(f"  nothing lost, doubled or stuck; slowest to agree {trial.tally.slowest:.1f} s")
        same, trial.tally.rebuilt = await fleet.rebuilt()
        tell(f"\nbuilt anew from the events: {trial.tally.rebuilt}")
        if not same:
            return False
        _tell_tally(trial)
        if options.record:
            write(trial.tally, seed=wanted[0].seed.partition(".")[0], shape=shape)
        return True
    finally:
        tell("stopping everything")
        await trial.close()
        await fleet.stop()


def _tell_wrong(
    options: argparse.Namespace, one: Round, found: Sequence[object], trial: Trial
) -> None:
    tell(f"\n{len(found)} things are wrong after seed {one.seed}:")
    for violation in found[:40]:
        tell(f"  {violation}")
    if trial.tally.internal_errors:
        tell(f"  {trial.tally.internal_errors} answers were 500, which none may be")
    short = " --short" if options.short else ""
    tell(f'  this round again: make chaos ARGS="--seed {one.seed}{short}"')


def _tell_tally(trial: Trial) -> None:
    tally = trial.tally
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.faults.items()))
    tell(
        f"{tally.accepted} requests accepted, {tally.unknown} without an answer, "
        f"{tally.sessions} sessions, {tally.effects} effects; faults: {told}. "
        f"Nothing lost, doubled or stuck; slowest to agree {tally.slowest:.1f} s."
    )


def main() -> None:
    arguments = sys.argv[1:]
    options = parse(arguments)
    volumes.enter(arguments)
    folder = Path(tempfile.mkdtemp(prefix="streamspace-chaos-"))
    good = False
    try:
        good = asyncio.run(_until_told(options, folder))
    finally:
        if good and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            tell(keep_note(folder))
    sys.exit(0 if good else 1)


async def _until_told(options: argparse.Namespace, folder: Path) -> bool:
    """Ctrl-C and SIGTERM end it in order."""
    task = asyncio.create_task(run(options, folder))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return False


if __name__ == "__main__":
    main()
