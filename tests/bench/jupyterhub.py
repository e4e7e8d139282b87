"""A named peer for session starts: JupyterHub with a null spawner, on this machine, in this run.

Its answer to "start a server" comes when the server is ready, as our `running` does. The
same load generator asks both.
"""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.load import Connections, percentile
from tests.bench.report import Figure, milliseconds
from tests.support.stack import REPOSITORY

from streamspace_embedded.ports import free_port

VERSION = "6.1.1"
_FOLDER = REPOSITORY / ".cache" / "bench-venv"
_CONFIG = Path(__file__).with_name("jupyterhub_config.py")


def install() -> Path | None:
    """The environment's `python`, made at the first run; None when that is not possible here."""
    python = _FOLDER / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    try:
        if not python.exists():
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, _FOLDER], check=True)
        if not (_FOLDER / f".jupyterhub-{VERSION}").exists():
            wanted = f"jupyterhub=={VERSION}"
            subprocess.run(
                [uv, "pip", "install", "-q", "--python", python, wanted], check=True, timeout=180
            )
            (_FOLDER / f".jupyterhub-{VERSION}").touch()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"JupyterHub is left out: it cannot be installed here ({error}).", file=sys.stderr)
        return None
    return python


@asynccontextmanager
async def _running(python: Path) -> AsyncIterator[Connections]:
    port, token = free_port(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="jupyterhub-bench-") as folder:
        process = subprocess.Popen(
            [python, "-m", "jupyterhub", "-f", _CONFIG],
            cwd=folder,
            env={**os.environ, "BENCH_HUB_PORT": str(port), "BENCH_HUB_TOKEN": token},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        connections = Connections(f"http://127.0.0.1:{port}", token, prefix="/hub/api")
        try:
            async with asyncio.timeout(60):
                while not await _answers(connections):
                    await asyncio.sleep(0.2)
            yield connections
        finally:
            await connections.close()
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _answers(connections: Connections) -> bool:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        return (await connections.request("GET", "/info")).status == 200
    return False


async def measure(serial: int = 20, burst: int = 300) -> list[Figure]:
    """One after another, then many at once; about half a minute."""
    python = install()
    if python is None:
        return []
    failed = 0
    async with _running(python) as connections:
        names = [f"user{number}" for number in range(serial + burst)]
        await connections.request("POST", "/users", {"usernames": names})

        async def start(name: str) -> float:
            nonlocal failed
            began = time.perf_counter()
            answer = await connections.request("POST", f"/users/{name}/server")
            failed += answer.status != 201
            return time.perf_counter() - began

        single = [await start(name) for name in names[:serial]]
        began = time.perf_counter()
        together = await asyncio.gather(*(start(name) for name in names[serial:]))
        took = time.perf_counter() - began
    return [
        Figure(
            f"JupyterHub {VERSION}, null spawner: one start at a time",
            f"p50 {milliseconds(percentile(single, 0.5))}",
        ),
        Figure(
            f"JupyterHub {VERSION}, null spawner: burst of {burst}",
            f"p50 {milliseconds(percentile(together, 0.5))}, "
            f"p99 {milliseconds(percentile(together, 0.99))}, {burst / took:.0f}/s, "
            f"{failed} not ready at once",
        ),
    ]
