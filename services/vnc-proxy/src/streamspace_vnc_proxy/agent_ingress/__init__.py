"""The agents' ingress: one port with TLS for all that an agent on another machine dials.

Behind a firewall or a forward proxy often nothing but HTTPS to port 443 gets out. An agent
needs two things of the control plane, the bus and the relay, and one machine has that port
once. So this program takes the agents' connections there and hands each on, to NATS' listener
for WebSockets or to the relay, by the path it asks for.

It is a process of its own and knows no credential: the relay, which also meets browsers, must
not see what agents and the bus say to each other.
"""
