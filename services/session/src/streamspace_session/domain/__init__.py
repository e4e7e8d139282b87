"""The life of sessions: pure values and decisions, no clock, no database, no bus."""

from streamspace_session.domain.creation import Asked, Reach, create, reach
from streamspace_session.domain.machine import (
    TRANSITIONS,
    IllegalTransitionError,
    Trigger,
    allows,
    next_state,
)
from streamspace_session.domain.messages import Message, command_message, home_name
from streamspace_session.domain.model import Action, Change, Order, Timing, Tracked
from streamspace_session.domain.moves import SYSTEM
from streamspace_session.domain.removal import end_with_cluster
from streamspace_session.domain.reports import agent_actor, applies, observed, report
from streamspace_session.domain.transitions import (
    clean_up,
    delete,
    delivered,
    extend,
    fail,
    give_up_deletion,
    hibernate,
    lose_sight,
    place,
    reissue,
    restart,
    retry,
    wake,
)

__all__ = [
    "SYSTEM",
    "TRANSITIONS",
    "Action",
    "Asked",
    "Change",
    "IllegalTransitionError",
    "Message",
    "Order",
    "Reach",
    "Timing",
    "Tracked",
    "Trigger",
    "agent_actor",
    "allows",
    "applies",
    "clean_up",
    "command_message",
    "create",
    "delete",
    "delivered",
    "end_with_cluster",
    "extend",
    "fail",
    "give_up_deletion",
    "hibernate",
    "home_name",
    "lose_sight",
    "next_state",
    "observed",
    "place",
    "reach",
    "reissue",
    "report",
    "restart",
    "retry",
    "wake",
]
