"""The only public HTTP API of StreamSpace; it owns no data and may run in any number."""
