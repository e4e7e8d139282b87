"""Carrying a stream's bytes between two connections: the data plane's common part.

The vnc-proxy joins a viewer's WebSocket to an agent's; the agent joins its WebSocket
to the session's socket. Both are two `Leg`s and a `Pump`; see `pump`. Needs the extra
`streamspace-common[relay]` (picows and aiofastnet).
"""
