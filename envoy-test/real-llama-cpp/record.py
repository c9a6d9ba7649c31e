"""Records exchanges with a running server as fixtures: NAME.req.json and NAME.http, or NAME.txt for a page of metrics.

    record.py HOST:PORT FOLDER        any server that speaks the OpenAI API; see EXCHANGES

Answers are written as they came, but for the chunked encoding, which is undone. Where a stream's timing says something,
NAME.times has the milliseconds from the request to each piece that was read, and how many bytes it had.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path

HELLO = [{"role": "user", "content": "Hello there, how are you today?"}]
LONG = [{"role": "user", "content": "word " * 1500}]
STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SHORT = {"max_tokens": 6, "temperature": 0}

# Name, path, fields of the body. The model is "tiny" unless a field says otherwise; MISSING leaves a field out.
MISSING = object()
EXCHANGES = [
    ("chat", "/v1/chat/completions", {"messages": HELLO, **SHORT}),
    ("chat_cached", "/v1/chat/completions", {"messages": HELLO, **SHORT}),
    ("chat_stream", "/v1/chat/completions", {"messages": HELLO, **SHORT, **STREAM}),
    ("chat_stream_usage", "/v1/chat/completions", {"messages": HELLO, **SHORT, **USAGE}),
    ("chat_stream_long", "/v1/chat/completions", {"messages": LONG, **SHORT, **STREAM}),
    ("comp", "/v1/completions", {"prompt": "Once upon a time", **SHORT}),
    ("comp_stream", "/v1/completions", {"prompt": "Once upon a time", **SHORT, **STREAM}),
    ("comp_stream_usage", "/v1/completions", {"prompt": "Once upon a time", **SHORT, **USAGE}),
    ("responses", "/v1/responses", {"input": "Hello there", "max_output_tokens": 6, "temperature": 0}),
    ("responses_stream", "/v1/responses", {"input": "word " * 1200, "max_output_tokens": 6, "temperature": 0, **STREAM}),
    ("messages", "/v1/messages", {"messages": HELLO, **SHORT}),
    ("messages_stream", "/v1/messages", {"messages": HELLO, **SHORT, **STREAM}),
    ("count_tokens", "/v1/messages/count_tokens", {"messages": HELLO}),
    ("tokenize", "/tokenize", {"prompt": "Hello there", "content": "Hello there"}),
    ("model_unknown", "/v1/chat/completions", {"model": "nope", "messages": HELLO, **SHORT}),
    ("model_missing", "/v1/chat/completions", {"model": MISSING, "messages": HELLO, **SHORT}),
    ("model_empty", "/v1/chat/completions", {"model": "", "messages": HELLO, **SHORT}),
    ("model_null", "/v1/chat/completions", {"model": None, "messages": HELLO, **SHORT}),
    ("messages_model_missing", "/v1/messages", {"model": MISSING, "messages": HELLO, **SHORT}),
    ("messages_model_empty", "/v1/messages", {"model": "", "messages": HELLO, **SHORT}),
    ("messages_model_unknown", "/v1/messages", {"model": "nope", "messages": HELLO, **SHORT}),
    ("responses_model_missing", "/v1/responses", {"model": MISSING, "input": "Hello", "max_output_tokens": 3}),
    ("path_unknown", "/v1/nothing", {"messages": HELLO}),
    ("path_slash", "/v1/chat/completions/", {"messages": HELLO, **SHORT}),
    ("path_without_version", "/chat/completions", {"messages": HELLO, **SHORT}),
]
# llama.cpp's own APIs.
OWN = {"n_predict": 6, "temperature": 0}
FILES = [{"filename": "greeting.py", "text": "def greet():\n    return 'Hello there'\n"}]
INFILL = {"input_extra": FILES, "input_prefix": "def add(a, b):\n", "input_suffix": "\nprint(add(1, 2))\n", "prompt": "    return "}
LLAMA_CPP = [
    ("own_comp", "/completion", {"prompt": "Once upon a time", **OWN}),
    ("own_comp_stream", "/completion", {"prompt": "Once upon a time", **OWN, **STREAM}),
    ("infill", "/infill", {**INFILL, **OWN}),
    ("infill_stream", "/infill", {**INFILL, **OWN, **STREAM}),
]
# Only where they say something that others do not: llama.cpp tells how far it is with a prompt.
PROGRESS = ("chat_stream_progress", "/v1/chat/completions", {"messages": LONG, **SHORT, **STREAM, "return_progress": True})
TOO_LONG = ("chat_stream_too_long", "/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 4000}], **SHORT, **STREAM})
BUSY_STREAMS = 3
BUSY_TOKENS = 2000


def body_of(fields):
    body = {"model": "tiny", **fields}
    return json.dumps({name: value for name, value in body.items() if value is not MISSING})


def head_of(answer):
    version = "HTTP/1.1" if answer.version == 11 else "HTTP/1.0"
    lines = [f"{version} {answer.status} {answer.reason}"] + [f"{name}: {value}" for name, value in answer.getheaders()]
    return "\r\n".join(lines) + "\r\n\r\n"


def exchange(address, method, path, body=None):
    """The answer's head, its body, and when each piece of it came."""
    started_at = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=300)
    connection.request(method, path, body, {"content-type": "application/json"} if body else {})
    answer = connection.getresponse()
    times = [(time.monotonic() - started_at, 0)]
    pieces = []
    while piece := answer.read1(1 << 16):
        times.append((time.monotonic() - started_at, len(piece)))
        pieces.append(piece)
    return head_of(answer), b"".join(pieces), times


def record(address, folder, name, path, fields):
    body = body_of(fields)
    (folder / f"{name}.req.json").write_text(body)
    head, content, times = exchange(address, "POST", path, body)
    (folder / f"{name}.http").write_bytes(head.encode() + content)
    if fields.get("stream"):
        lines = [f"{at * 1000:.0f} {length}\n" for at, length in times]
        (folder / f"{name}.times").write_text("".join(lines))
    print(name, head.splitlines()[0], len(content))


def page(address, folder, name):
    _, content, _ = exchange(address, "GET", "/metrics")
    (folder / f"{name}.txt").write_bytes(content)


def record_busy_page(address, folder):
    fields = {"prompt": "Once upon a time", "max_tokens": BUSY_TOKENS, "ignore_eos": True, "stream": True}
    work = lambda: exchange(address, "POST", "/v1/completions", body_of(fields))
    threads = [threading.Thread(target=work) for _ in range(BUSY_STREAMS)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    page(address, folder, "metrics_busy")
    for thread in threads:
        thread.join()


address, folder = sys.argv[1], Path(sys.argv[2])
extra = [*LLAMA_CPP, PROGRESS, TOO_LONG] if "--llama-cpp" in sys.argv else []
folder.mkdir(parents=True, exist_ok=True)
page(address, folder, "metrics_idle")
for entry in [*EXCHANGES, *extra]:
    record(address, folder, *entry)
head, content, _ = exchange(address, "GET", "/v1/models")
(folder / "models.http").write_bytes(head.encode() + content)
record_busy_page(address, folder)
