"""`python -m streamspace_common.protogen [--check | --freeze VERSION] [--directory proto]`."""

import argparse
import sys
from pathlib import Path

from streamspace_common.protogen import corpus
from streamspace_common.protogen.files import broken_promises, differences, wanted


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="streamspace_common.protogen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="tell what differs, write nothing")
    parser.add_argument("--directory", type=Path, default=Path("proto"))
    parser.add_argument(
        "--allow-breaking",
        action="store_true",
        help="write although an older version would not understand; before a release only",
    )
    parser.add_argument(
        "--freeze", metavar="VERSION", help="keep what a release says, for ever; see corpus/"
    )
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    if arguments.check:
        found = list(differences(directory))
    elif arguments.allow_breaking:
        found = []
    else:
        found = list(broken_promises(directory))
    for line in found:
        sys.stderr.write(f"{line}\n")
    if found:
        return 1
    if not arguments.check:
        _write(directory)
    if arguments.freeze:
        return _freeze(directory, arguments.freeze)
    return 0


def _freeze(directory: Path, version: str) -> int:
    try:
        release = corpus.freeze(directory, version)
    except corpus.CannotFreezeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"froze {release}\n")
    return 0


def _write(directory: Path) -> None:
    for path, text in wanted(directory).items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    sys.exit(main())
