"""`make up` on the data of a version with one bus account for all clusters."""

import json
import shutil
from pathlib import Path

import asyncpg
import httpx2
from tests.support.stack import ADMIN_PASSWORD, end, launch, sign_in, wait_until_ready

from streamspace_common.testing.waiting import eventually
from streamspace_embedded import trust, wiring
from streamspace_embedded.layout import Layout

NEW_KEYS = ("operatorSigningSeed", "activationSeed")


async def test_an_older_installation_goes_on_where_it_was(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = launch(data)
    try:
        await wait_until_ready(first)
        await as_before(Layout(data))
    finally:
        end(first)
    make_older(Layout(data))

    second = launch(data)
    try:
        await wait_until_ready(second)
        async with httpx2.AsyncClient(base_url=second.url, timeout=30, trust_env=False) as client:
            admin = await sign_in(client, "admin", ADMIN_PASSWORD)

            async def is_there() -> bool:
                [cluster] = (await admin.get("/clusters")).json()["items"]
                return bool(cluster["presence"] == "online")

            await eventually(is_there, timeout=30)
            session = await admin.launch("starter_terminal")
            await admin.wait_for(session["id"], "running", seconds=60)
    finally:
        end(second)


async def as_before(layout: Layout) -> None:
    """The database as that version left it."""
    url = wiring.database_url(trust.load(layout), layout.kept_ports()["postgres"], "auth")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "DROP TABLE bus_accounts; DROP TABLE removed_clusters;"
            "ALTER TABLE clusters DROP COLUMN account, DROP COLUMN agents_key,"
            " DROP COLUMN sealed_agents_seed, DROP COLUMN revoked_at;"
            "UPDATE alembic_version SET version_num = '0001'"
        )
    finally:
        await connection.close()


def make_older(layout: Layout) -> None:
    """The files as that version left them."""
    path = layout.secrets / "installation.json"
    kept = json.loads(path.read_text())
    for key in NEW_KEYS:
        del kept["trust"][key]
    kept["trust"] |= {"agentsSeed": "SA...", "agentsSigningSeed": "SA..."}
    path.write_text(json.dumps(kept))
    shutil.rmtree(layout.nats / "store" / "accounts")
    shutil.rmtree(layout.agent / "identity")
    layout.bus_authority.unlink()
    layout.bus_accounts.unlink()
