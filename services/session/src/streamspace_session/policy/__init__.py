"""Pure decisions: where a session goes, whether it may, and what silence means."""
