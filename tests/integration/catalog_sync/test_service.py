"""The whole service on a real bus: as the gateway and the session service see it."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import streamspace_catalog_sync
from streamspace_catalog_sync.main import run
from streamspace_catalog_sync.settings import Settings
from streamspace_common.bus import Bus, StartAt
from streamspace_common.contracts.events import TemplatePublished, parse_event
from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.ids import TemplateId, UserId
from streamspace_common.contracts.requests import CatalogMethods, GetTemplate, ListTemplates
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.contracts.subjects import Aggregate, core_events
from streamspace_common.runtime.supervisor import Supervisor
from streamspace_common.testing.waiting import eventually

USER = Principal(user_id=UserId("usr-" + "2" * 32), username="uwe", role=Role.USER)
STARTERS = list((Path(streamspace_catalog_sync.__file__).parent / "starter").glob("*.yaml"))


async def test_the_starter_catalog_is_published_and_can_be_asked_for(
    bus: Bus, nats_server: Any, database_url: str, tmp_path: Path
) -> None:
    settings = Settings.model_validate(
        {"nats_url": nats_server.url, "database_url": database_url, "data_dir": tmp_path / "data"}
    )
    supervisor = Supervisor("catalog-sync", drain_timeout=10)
    service = asyncio.create_task(run(settings, supervisor))
    try:
        async with aclosing(
            bus.tail(EVENTS.name, [core_events(Aggregate.TEMPLATE)], start=StartAt.all())
        ) as stream:
            published: dict[str, TemplatePublished] = {}
            async with asyncio.timeout(30):
                async for message in stream:
                    event = parse_event(message.type, message.payload)
                    assert isinstance(event, TemplatePublished)
                    published[event.template_id] = event
                    if len(published) == len(STARTERS):
                        break
        page = await bus.call(CatalogMethods.LIST_TEMPLATES, ListTemplates(principal=USER))
        assert {template.id for template in page.items} == set(published)
        detail = await bus.call(
            CatalogMethods.GET_TEMPLATE,
            GetTemplate(principal=USER, template_id=TemplateId("starter_desktop")),
        )
        event = published["starter_desktop"]
        assert detail.digest == event.digest
        assert detail.manifest["spec"]["process"]["command"][0] == "xterm"
        assert event.manifest.model_dump(mode="json", exclude_none=True) == detail.manifest
    finally:
        supervisor.stop()
        await asyncio.wait({service})
    await eventually(service.done)
    service.result()
