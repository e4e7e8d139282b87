#!/usr/bin/env python3
"""Prints what projects need from elsewhere: their dependencies, without each other.

An image installs these before it copies our code, so that a change of code installs
nothing again. Usage: dependencies.py PROJECT_FOLDER...
"""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Read each folder's pyproject.toml; write one requirement a line."""
    projects = {
        project["name"]: project
        for folder in sys.argv[1:]
        for project in [tomllib.loads((Path(folder) / "pyproject.toml").read_text())["project"]]
    }
    needed: set[str] = set()
    for project in projects.values():
        for requirement in project.get("dependencies", []):
            name, extras = _parsed(requirement)
            if name not in projects:
                needed.add(requirement)
                continue
            optional = projects[name].get("optional-dependencies", {})
            for extra in extras:
                needed.update(optional[extra])
    sys.stdout.write("\n".join(sorted(needed)) + "\n")


def _parsed(requirement: str) -> tuple[str, list[str]]:
    """The name and the extras of a requirement."""
    found = re.match(r"([\w.-]+)\s*(?:\[([^]]*)\])?", requirement)
    if found is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return found[1], [extra.strip() for extra in (found[2] or "").split(",") if extra.strip()]


if __name__ == "__main__":
    main()
