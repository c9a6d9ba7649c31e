#!/bin/sh
# smg: when a server breaks off in the middle of a stream, the client gets an event with an error, then `data: [DONE]`, and an HTTP
# message that is complete. Whoever takes that mark for the end of a whole answer, as most readers of such streams do, counts a
# part of an answer as one. vllm-router, of the same ancestor, breaks the connection off as the server did.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONDONTWRITEBYTECODE=1 PACKAGES="$folder"
for package in smg==1.13.0 vllm-router==0.1.17; do
    python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$folder/${package%%=*}" "$package" 2>/dev/null || exit 2
    echo "$package"
done
cd "$(dirname "$0")"
python3 - <<'PYTHON'
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from support import check, free_port, give_up


class Handler(BaseHTTPRequestHandler):
    """Serves the model `m`, and breaks off after two events of a stream."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for text in ["one ", "two "]:
            choice = {"index": 0, "text": text, "finish_reason": None}
            event = b"data: " + json.dumps({"id": "1", "object": "text_completion", "created": 1, "model": "m",
                                            "choices": [choice]}).encode() + b"\n\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            time.sleep(0.2)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST" if body else "GET", path, body, {"content-type": "application/json"})
    return connection.getresponse()


def seen(package, arguments):
    """What a client is told at the end of a stream that was broken off, and whether the message is complete."""
    port = free_port()
    folder = f"{os.environ['PACKAGES']}/{package}"
    command = [f"{folder}/bin/{package}", *arguments, "--host", "127.0.0.1", "--port", str(port), "--prometheus-port",
               str(free_port()), "--log-level", "error", "--worker-urls", f"http://127.0.0.1:{server.server_port}"]
    gateway = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": folder}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                if ask(port, "/v1/models").status == 200:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        else:
            give_up(f"{package} does not start")
        answer = ask(port, "/v1/completions", json.dumps({"model": "m", "prompt": "p", "max_tokens": 9, "stream": True}))
        try:
            body, is_complete = answer.read(), True
        except http.client.IncompleteRead as error:
            body, is_complete = error.partial, False
    finally:
        gateway.kill()
        gateway.wait()
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    return ["error" if '"error"' in event else "[DONE]" if event == "[DONE]" else "text" for event in events], is_complete


check("smg: events, and whether the message is complete", seen("smg", ["launch"]),
      (["text", "text", "error", "[DONE]"], True))
check("vllm-router: the same", seen("vllm-router", []), (["text", "text"], False))
PYTHON
