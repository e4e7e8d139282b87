"""The message bus: NATS core, JetStream and micro services behind our own words.

No other package imports `nats`. Start with `Bus` (connection.py) and `PullLoop`
(consume.py); `provision` makes streams and durables, `credentials` mints who may do
what.
"""

from streamspace_common.bus.advisories import Advisory, parse_advisory
from streamspace_common.bus.connection import Bus
from streamspace_common.bus.consume import Delivery, PullLoop, Reject, Retry, RetryPolicy
from streamspace_common.bus.errors import (
    ApiError,
    BusError,
    BusUnavailableError,
    CredentialRefusedError,
    MessageTooLargeError,
    NobodyAnswersError,
    PermissionDeniedError,
    ProvisioningError,
    WrongLastSequenceError,
)
from streamspace_common.bus.identity import Identity
from streamspace_common.bus.inspection import ConsumerLag, StreamState
from streamspace_common.bus.provision import ensure_durable, provision, remove_durable
from streamspace_common.bus.publishing import Stored
from streamspace_common.bus.requests import Served
from streamspace_common.bus.snapshots import StreamCopy
from streamspace_common.bus.streams import Streams
from streamspace_common.bus.subscriptions import CoreMessage, Subscription
from streamspace_common.bus.tail import RawMessage, StartAt, StreamMessage

__all__ = [
    "Advisory",
    "ApiError",
    "Bus",
    "BusError",
    "BusUnavailableError",
    "ConsumerLag",
    "CoreMessage",
    "CredentialRefusedError",
    "Delivery",
    "Identity",
    "MessageTooLargeError",
    "NobodyAnswersError",
    "PermissionDeniedError",
    "ProvisioningError",
    "PullLoop",
    "RawMessage",
    "Reject",
    "Retry",
    "RetryPolicy",
    "Served",
    "StartAt",
    "Stored",
    "StreamCopy",
    "StreamMessage",
    "StreamState",
    "Streams",
    "Subscription",
    "WrongLastSequenceError",
    "ensure_durable",
    "parse_advisory",
    "provision",
    "remove_durable",
]
