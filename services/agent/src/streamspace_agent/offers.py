"""What the settings come to: how much a cluster offers, and how sessions run on Kubernetes."""

import os

from streamspace_agent.runtimes.kubernetes.options import (
    Access,
    Egress,
    KubernetesOptions,
    OnDrift,
    PodOptions,
    Tunnel,
)
from streamspace_agent.settings import AgentSettings
from streamspace_common.contracts.clusters import Capacity

_MEMORY_PER_DESKTOP = 1024**3 // 2
"""An X server, a window manager and a browser with a page or two."""
_DESKTOPS_PER_CPU = 10


def offered_capacity(
    settings: AgentSettings, *, cpus: float | None = None, memory_bytes: int | None = None
) -> Capacity:
    """What the settings offer, and where they are silent what the sessions' machine can hold.

    Args:
        settings: may name cores, memory and sessions.
        cpus: the cores of that machine; None if it is this one.
        memory_bytes: its memory; None if it is this one.
    """
    cpu = settings.cpu or cpus or float(len(os.sched_getaffinity(0)))
    if settings.memory is not None:
        memory = _bytes(settings.memory)
    else:
        memory = memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bearable = max(1, min(int(cpu * _DESKTOPS_PER_CPU), memory // _MEMORY_PER_DESKTOP))
    sessions = bearable if settings.max_sessions is None else settings.max_sessions
    return Capacity(max_sessions=sessions, cpu=cpu, memory=memory)


def kubernetes_options(settings: AgentSettings) -> KubernetesOptions:
    """What the settings say about sessions on Kubernetes."""
    return KubernetesOptions(
        access=Access(
            kubeconfig=settings.kubeconfig,
            context=settings.kubeconfig_context,
            qps=settings.api_qps,
            burst=settings.api_burst,
            patience=settings.api_patience,
        ),
        pods=PodOptions(
            namespace=settings.namespace,
            agent_namespace=settings.agent_namespace,
            image_pull_policy=settings.image_pull_policy,
            image_pull_secrets=settings.image_pull_secrets,
            image_mirrors=settings.image_mirrors,
            storage_class=settings.storage_class,
            home_size=settings.home_size,
            home_access_mode=settings.home_access_mode,
            shm_size=settings.shm_size,
            grace=settings.pod_grace,
            cpu_request_share=settings.cpu_request_share,
            memory_request_share=settings.memory_request_share,
            egress=Egress(settings.session_egress),
            egress_denied=settings.session_egress_denied,
            node_selector=settings.node_selector,
            tolerations=settings.tolerations,
            lost_node_patience=settings.lost_node_patience,
            runtime_class=settings.runtime_class,
        ),
        capacity=offered_capacity(settings),
        fixed_capacity=settings.cpu is not None and settings.memory is not None,
        max_sessions=settings.max_sessions,
        tunnel=Tunnel(settings.tunnel),
        on_drift=OnDrift(settings.on_drift),
        start_patience=settings.start_patience,
        pull_patience=settings.pull_patience,
        fetch_patience=settings.fetch_patience,
    )


def _bytes(amount: str) -> int:
    digits = amount.rstrip("KMGTi")
    exponent = ("", "Ki", "Mi", "Gi", "Ti").index(amount.removeprefix(digits))
    return int(digits) << (10 * exponent)
