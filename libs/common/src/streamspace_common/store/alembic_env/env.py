"""The environment all migrations run in: a connection given by `store.migrate`."""

from alembic import context
from sqlalchemy import Connection, text

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=False)

with context.begin_transaction():
    # Rather fail than queue behind a long transaction and block everybody else.
    connection.execute(text("SET LOCAL lock_timeout = '10s'"))
    context.run_migrations()
