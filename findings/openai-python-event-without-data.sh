#!/bin/sh
# OpenAI's Python client: an event of a stream that has a name but no data raises in the middle of a stream, where the rules
# of server-sent events have such events dropped.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/packages" openai==2.48.0 || exit 2
cd "$(dirname "$0")"
echo "openai==2.48.0"
python3 - <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import openai
from support import check


def chunk(text):
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return "data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                  "choices": [delta]}) + "\n\n"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        between = {"none": "", "comment": ": keep-alive\n\n", "nameless": "id: 7\n\n", "named": "event: message\n\n"}
        case = self.path.split("/")[1]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write((chunk("a") + between[case] + chunk("b") + "data: [DONE]\n\n").encode())

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()


def read(case):
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/{case}", api_key="none", max_retries=0)
    text = ""
    try:
        for event in client.chat.completions.create(model="m", messages=[], stream=True):
            text += event.choices[0].delta.content
    except Exception as error:
        return f"{text!r}, then {type(error).__name__}"
    return repr(text)


print(openai.__version__)
for case in ["none", "comment"]:
    check(f"between two chunks: {case}", read(case), "'ab'")
for case in ["nameless", "named"]:
    check(f"between two chunks: an event without data, {case}", read(case), "'a', then JSONDecodeError")
PYTHON
