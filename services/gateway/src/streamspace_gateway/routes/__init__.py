"""The HTTP API, one module per resource: parse, ask a service, shape the answer."""
