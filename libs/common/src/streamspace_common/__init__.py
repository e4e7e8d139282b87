"""What the StreamSpace services share.

`contracts` says what travels between them and depends on pydantic alone; `bus`
speaks NATS, `store` speaks PostgreSQL, `web` serves HTTP, `runtime` starts,
watches and stops a process, and `testing` brings real servers to the tests.
"""
