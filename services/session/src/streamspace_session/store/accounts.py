"""The projection of user accounts in PostgreSQL."""

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from streamspace_common.contracts.events import UserChanged
from streamspace_common.contracts.ids import UserId
from streamspace_session.store.tables import AccountRow

_ACCOUNTS = AccountRow.__table__  # type: ignore[attr-defined]
_KEEP = text(
    """
    INSERT INTO accounts (user_id, disabled, sequence) VALUES (:user, :disabled, :sequence)
    ON CONFLICT (user_id) DO UPDATE
      SET disabled = EXCLUDED.disabled, sequence = EXCLUDED.sequence
      WHERE accounts.sequence < EXCLUDED.sequence
    """
)


class SqlAccounts:
    """`ports.Accounts` inside one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def keep(self, event: UserChanged, sequence: int) -> None:
        values = {
            "user": event.user.id,
            "disabled": event.user.disabled,
            "sequence": sequence,
        }
        await self._connection.execute(_KEEP, values)

    async def disabled(self, user: UserId) -> bool:
        found = await self._connection.execute(
            select(_ACCOUNTS.c.disabled).where(_ACCOUNTS.c.user_id == user)
        )
        return bool(found.scalar_one_or_none())
