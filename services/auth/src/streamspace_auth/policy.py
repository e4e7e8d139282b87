"""Who may do what with identities. This table is the whole policy.

Handlers ask `require` before they touch anything; owner rules stand here too, so
that reading this page answers every question of the kind "may a user ...?".
"""

from enum import StrEnum

from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.ids import UserId
from streamspace_common.contracts.problems import Code, ProblemError


class Action(StrEnum):
    """What can be asked of this service by somebody who has signed in."""

    READ_USER = "see this user"
    LIST_USERS = "list users"
    CREATE_USER = "create users"
    CHANGE_USER = "change users"
    CHANGE_OWN_PASSWORD = "change your password"  # noqa: S105  a description
    ENROL_CLUSTER = "enrol clusters"
    REVOKE_CLUSTER = "revoke clusters"
    REMOVE_CLUSTER = "remove clusters"


ALLOWED: dict[Action, frozenset[Role]] = {
    Action.READ_USER: frozenset({Role.ADMIN}),
    Action.LIST_USERS: frozenset({Role.ADMIN}),
    Action.CREATE_USER: frozenset({Role.ADMIN}),
    Action.CHANGE_USER: frozenset({Role.ADMIN}),
    Action.CHANGE_OWN_PASSWORD: frozenset(Role),
    Action.ENROL_CLUSTER: frozenset({Role.ADMIN}),
    Action.REVOKE_CLUSTER: frozenset({Role.ADMIN}),
    Action.REMOVE_CLUSTER: frozenset({Role.ADMIN}),
}

ALLOWED_FOR_ONESELF: frozenset[Action] = frozenset({Action.READ_USER})
"""Beyond the table: what everybody may do with their own account."""


def allows(principal: Principal, action: Action, about: UserId | None = None) -> bool:
    """Whether `principal` may do `action`, `about` naming the user it is done to."""
    if about == principal.user_id and action in ALLOWED_FOR_ONESELF:
        return True
    return principal.role in ALLOWED[action]


def require(principal: Principal, action: Action, about: UserId | None = None) -> None:
    """Refuse what the table does not allow.

    Raises:
        ProblemError: `forbidden`.
    """
    if not allows(principal, action, about):
        raise ProblemError.of(
            Code.FORBIDDEN, f"Only an administrator may {action}. Ask one to do it."
        )
