"""PostgreSQL behind the ports: rows, statements, and the unit of work."""

from streamspace_session.store.unit import SqlStore

__all__ = ["SqlStore"]
