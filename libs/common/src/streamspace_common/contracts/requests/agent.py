"""What any live agent of a cluster is asked."""

from streamspace_common.contracts.clusters import OpenTunnel, TunnelOpened
from streamspace_common.contracts.requests.methods import ClusterMethod


class AgentMethods:
    OPEN_TUNNEL = ClusterMethod("open_tunnel", OpenTunnel, TunnelOpened)
