"""Alembic's environment, shared by every service; see `store.migrate`."""
