#!/bin/sh
# vllm-router, cache_aware (its default): before it sends a completion on, it has every server compute the prompt's tokens
# (/v1/completions/render), one call each. A server that refuses, as vLLM 0.32 does unless it is started with
# --enable-scale-out, is asked again with the next request, with the whole prompt. So n servers have n + 1 requests for each.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$folder/packages"
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$folder/packages" vllm-router==0.1.17 || exit 2
cd "$(dirname "$0")"
echo "vllm-router==0.1.17"
python3 - <<'PYTHON'
import http.client
import json
import os
import subprocess
import time
from support import Server, check, free_port, give_up

SERVERS, REQUESTS = 4, 5
PROMPT = "What is asked of the servers? " * 20


def asked(policy):
    """The requests that the servers have had, by path, and how many bytes of prompts."""
    servers = [Server(lambda path: 403 if path.endswith("/render") else 200) for _ in range(SERVERS)]
    port = free_port()
    urls = [f"http://{server.address}" for server in servers]
    command = [f"{os.environ['PYTHONPATH']}/bin/vllm-router", "--host", "127.0.0.1", "--port", str(port), "--policy", policy,
               "--prometheus-port", str(free_port()), "--log-level", "error", "--worker-urls", *urls]
    router = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        else:
            give_up("the router does not start")
        for _ in range(REQUESTS):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            body = json.dumps({"model": "m", "prompt": PROMPT, "max_tokens": 4})
            connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
            connection.getresponse().read()
    finally:
        router.kill()
        router.wait()
    posts = [request for server in servers for request in server.requests if request[0] == "POST"]
    rendered = [body for _, path, _, body in posts if path == "/v1/completions/render"]
    return len(rendered), len(posts) - len(rendered), all(PROMPT.encode() in body for body in rendered)


check(f"cache_aware, {REQUESTS} completions, {SERVERS} servers: asked for tokens, completions, whole prompt in each",
      asked("cache_aware"), (REQUESTS * SERVERS, REQUESTS, True))
check("the same with power_of_two", asked("power_of_two"), (0, REQUESTS, True))
PYTHON
