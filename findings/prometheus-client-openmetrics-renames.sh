#!/bin/sh
# Python's prometheus-client 0.26.0, which vLLM, SGLang and others print their metrics with: asked for OpenMetrics, it puts an
# underscore in place of the colon in the names of samples, but not in `# HELP` and `# TYPE`. OpenMetrics and Prometheus both
# allow colons in names. Prometheus itself asks with `escaping=allow-utf-8` and gets the colons; whoever asks for OpenMetrics
# alone gets other names than in the text form, and samples whose family has no type.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" prometheus-client==0.26.0 || exit 2
cd "$(dirname "$0")"
echo "prometheus-client==0.26.0"
python3 - <<'PYTHON'
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder
from support import check

registry = CollectorRegistry()
Gauge("vllm:num_requests_waiting", "Requests waiting.", registry=registry).set(5)


def page(accept):
    encode, content_type = choose_encoder(accept)
    lines = encode(registry).decode().splitlines()
    return content_type.split(";")[0], [line for line in lines if "num_requests" in line][1:]


TYPE = "# TYPE vllm:num_requests_waiting gauge"
for accept, sample in {
    "": "vllm:num_requests_waiting 5.0",
    "application/openmetrics-text": "vllm_num_requests_waiting 5.0",
    "application/openmetrics-text; version=1.0.0": "vllm_num_requests_waiting 5.0",
    "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8": "vllm:num_requests_waiting 5.0",
}.items():
    check(f"accept: {accept or '(none)'}", page(accept)[1], [TYPE, sample])
PYTHON
