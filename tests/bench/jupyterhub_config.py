"""JupyterHub with everything taken out that is not its own: no proxy, no servers.

Read by JupyterHub, not imported. Every "server" is one tiny HTTP responder in the hub's
process, so a start costs what the hub itself costs: its API, its database, its waiting.
"""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from jupyterhub.auth import DummyAuthenticator
from jupyterhub.proxy import Proxy
from jupyterhub.spawner import Spawner


class _Responder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


responder = ThreadingHTTPServer(("127.0.0.1", 0), _Responder)
threading.Thread(target=responder.serve_forever, daemon=True).start()


class NoProxy(Proxy):
    """Keeps its routes in a dictionary."""

    should_start = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.routes = {}

    async def add_route(self, routespec, target, data):
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec):
        self.routes.pop(routespec, None)

    async def get_all_routes(self):
        return self.routes


class NullSpawner(Spawner):
    """Starts nothing."""

    alive = False

    async def start(self):
        self.alive = True
        return "127.0.0.1", responder.server_address[1]

    async def stop(self, now=False):
        self.alive = False

    async def poll(self):
        return None if self.alive else 0


c = get_config()  # noqa: F821 - JupyterHub gives it
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.spawner_class = NullSpawner
c.JupyterHub.authenticator_class = DummyAuthenticator
c.Authenticator.allow_all = True
c.JupyterHub.db_url = "sqlite:///hub.sqlite"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = int(os.environ["BENCH_HUB_PORT"])
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.active_server_limit = 0
# Answer when the server is ready, however long that takes.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 60}
c.JupyterHub.log_level = "ERROR"
c.JupyterHub.services = [{"name": "bench", "api_token": os.environ["BENCH_HUB_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "bench",
        "services": ["bench"],
        "scopes": ["admin:users", "admin:servers", "list:users", "read:hub"],
    }
]
