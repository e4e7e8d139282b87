"""The policy table, read as sentences."""

import pytest

from streamspace_auth.policy import Action, allows, require
from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.ids import new_user_id
from streamspace_common.contracts.problems import Code, ProblemError


def somebody(role: Role) -> Principal:
    return Principal(user_id=new_user_id(), username="somebody", role=role)


@pytest.mark.parametrize("action", Action)
def test_an_admin_may_do_everything(action: Action) -> None:
    assert allows(somebody(Role.ADMIN), action)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.USER])
@pytest.mark.parametrize("action", set(Action) - {Action.CHANGE_OWN_PASSWORD})
def test_nobody_else_administers(role: Role, action: Action) -> None:
    with pytest.raises(ProblemError) as refused:
        require(somebody(role), action)
    assert refused.value.problem.code is Code.FORBIDDEN


def test_everybody_sees_themselves_and_nobody_else() -> None:
    user = somebody(Role.USER)
    assert allows(user, Action.READ_USER, user.user_id)
    assert not allows(user, Action.READ_USER, new_user_id())
    assert not allows(user, Action.CHANGE_USER, user.user_id)


@pytest.mark.parametrize("role", Role)
def test_everybody_changes_their_own_password(role: Role) -> None:
    assert allows(somebody(role), Action.CHANGE_OWN_PASSWORD)
