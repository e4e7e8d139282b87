"""Asking auth for a working credential, over a short connection of the enrolment's own."""

from pathlib import Path

from streamspace_agent.credential import Ask
from streamspace_common.bus import Bus, Identity
from streamspace_common.contracts import permissions
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.requests import AgentCredential, AuthMethods, IssueCredential
from streamspace_common.runtime.proxies import Proxies

PATIENCE = 10.0
"""Seconds to connect, and again for the answer."""


def asking(instance: str, ca_file: Path | None, proxies: Proxies) -> Ask:
    """An `Ask` over the bus.

    Args:
        instance: this agent's name.
        ca_file: certificates trusted besides the system's own.
        proxies: the ways out.
    """

    async def ask(enrolment: Enrolment, public_key: str) -> AgentCredential:
        cluster = enrolment.cluster_id
        bus = await Bus.connect(
            ",".join(enrolment.nats_urls),
            name=f"agent-join/{cluster}/{instance}",
            credentials=Identity.from_creds(enrolment.credentials),
            ca_file=ca_file,
            inbox=permissions.joining(cluster).inbox,
            proxies=proxies,
            patience=PATIENCE,
        )
        try:
            return await bus.ask(
                AuthMethods.ISSUE_CREDENTIAL,
                cluster,
                IssueCredential(public_key=public_key),
                timeout=PATIENCE,
            )
        finally:
            await bus.close()

    return ask
