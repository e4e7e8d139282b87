"""StreamSpace from the command line.

What users do goes over the HTTP API alone, as any client's requests do. What operators
do with the streams themselves (`streams`, `replay feed`, `backup`, `restore`) goes over
NATS, with a credential of its own that may read and nothing more, but for `restore`.

Data goes to stdout, everything else to stderr; `exits` says what a command's exit code
means. `main` puts the commands together, `run.command` gives each of them its `Run`: the
chosen context, the output format, and an API client made when it is asked for.
"""
