"""An agent is alive before it is ready: while it waits for its cluster, nobody restarts it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from streamspace_common.testing.waiting import eventually
from streamspace_embedded.ports import free_port


@pytest.fixture
def waiting_agent(tmp_path: Path) -> Iterator[str]:
    """The address of the health of an agent whose cluster's API server is away."""
    kubeconfig = tmp_path / "kubeconfig"
    away = f"http://127.0.0.1:{free_port()}"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": away}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    port = free_port()
    agent = subprocess.Popen(
        [str(Path(sys.executable).parent / "streamspace-agent")],
        env={
            "PATH": os.environ["PATH"],
            "STREAMSPACE_AGENT_RUNTIME": "kubernetes",
            "STREAMSPACE_AGENT_KUBECONFIG": str(kubeconfig),
            "STREAMSPACE_AGENT_STATE_DIR": str(tmp_path / "state"),
            "STREAMSPACE_HEALTH_PORT": str(port),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        agent.terminate()
        agent.wait(20)


async def test_it_is_alive_and_not_ready_while_its_cluster_is_away(waiting_agent: str) -> None:
    async with httpx2.AsyncClient(base_url=waiting_agent, trust_env=False) as client:

        async def alive() -> bool:
            try:
                return (await client.get("/healthz")).status_code == 200
            except httpx2.TransportError:
                return False

        await eventually(alive, timeout=30)
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"] == {"started": False}
