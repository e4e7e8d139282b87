"""What a request between services is, and what many of them share."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import Field

from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.identity import Principal
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.subjects import (
    Subject,
    of_any_cluster,
    of_cluster,
    rpc,
    service,
)

Request = TypeVar("Request", bound=Contract)
Reply = TypeVar("Reply", bound=Contract)


@dataclass(frozen=True)
class Method(Generic[Request, Reply]):
    """A named request of one service."""

    service: str
    name: str
    request: type[Request]
    reply: type[Reply]

    @property
    def subject(self) -> Subject:
        return service(self.service, self.name)


@dataclass(frozen=True)
class ClusterMethod(Generic[Request, Reply]):
    """A named request to any live agent of a cluster."""

    name: str
    request: type[Request]
    reply: type[Reply]

    def subject(self, cluster: ClusterId) -> Subject:
        return rpc(cluster, self.name)


@dataclass(frozen=True)
class MethodForClusters(Generic[Request, Reply]):
    """A named request of a cluster's agents to one service; the subject names the cluster."""

    service: str
    name: str
    request: type[Request]
    reply: type[Reply]

    def subject(self, cluster: ClusterId) -> Subject:
        return of_cluster(self.service, self.name, cluster)

    @property
    def any_subject(self) -> Subject:
        return of_any_cluster(self.service, self.name)


class Empty(Contract):
    """Nothing to say."""


class AuthenticatedRequest(Contract):
    principal: Principal
    address: str | None = Field(default=None, description="The caller's client address.")
    request_id: str | None = None


class Page(Contract):
    """How lists are paged: an opaque cursor and at most 200 items."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=500)
