"""Sessions that serve a web client of their own: HTTP and WebSockets, each session at its
own origin (`<session>.<apps domain>`), so that what one page may do ends with its session.

    browser --POST ticket--> /_streamspace/enter  ->  a cookie for this one host
    browser --any request--> checked, cleaned     ->  a tunnel  ->  agent  ->  the session

Every request is looked at, never only the first of a connection: a reverse proxy before us
may send the requests of several people through one connection. Only after an upgrade (101)
is a connection a pipe.
"""
