#!/bin/sh
# LMDeploy: the gauges of its /metrics (what runs, what waits, use of the KV cache) are written every ten seconds, beside the
# log, for the first time ten seconds after the start. Its counters are written with every token.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONDONTWRITEBYTECODE=1 PACKAGES="$folder/packages"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$PACKAGES" lmdeploy==0.18.0 || exit 2
cd "$(dirname "$0")"
echo "lmdeploy==0.18.0"
python3 - <<'PYTHON'
import asyncio
import contextlib
import os
import time
from types import SimpleNamespace as Object
from support import check, function_of

written = []


class Processor:
    """What the gauges are written by."""

    def start_metrics_handler(self, enable_metrics):
        pass

    async def update_schedule_stats(self, metrics):
        written.append(time.monotonic())

    async def stop_metrics_handler(self):
        pass


async def nothing():
    pass


# Of the server, its own start and end; the engine answers at once.
engine = Object(start_loop=lambda *arguments, **named: None, get_schedule_metrics=nothing, do_log_stats=nothing,
                close=lambda: None)
handler = function_of(
    os.environ["PACKAGES"] + "/lmdeploy/serve/openai/api_server.py", "create_lifespan_handler", asyncio=asyncio,
    asynccontextmanager=contextlib.asynccontextmanager, metrics_processor=Processor(),
    EngineHealthMonitor=lambda engine: Object(start=lambda: None, stop=nothing), register_to_proxy=lambda context: None)


async def run(seconds):
    started = time.monotonic()
    async with handler(Object(enable_metrics=True), engine, Object())(None):
        await asyncio.sleep(seconds)
    return [round(at - started) for at in written]


check("seconds at which a server's gauges were written, of 25", asyncio.run(run(25)), [10, 20])
PYTHON
