#!/bin/sh
# SGLang: sglang:lora_pool_slots_used, "slots currently occupied in GPU memory" by its help, counts the adapters of requests
# that run. A pool that is full of adapters without requests shows 0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder" PYTHONDONTWRITEBYTECODE=1 PACKAGES="$folder/packages"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$PACKAGES" sglang==0.5.23 || exit 2
cd "$(dirname "$0")"
echo "sglang==0.5.23"
python3 - <<'PYTHON'
import os
from types import SimpleNamespace as Object
from support import check, function_of

SOURCE = os.environ["PACKAGES"] + "/sglang/srt"
collector = open(f"{SOURCE}/observability/metrics_collector.py").read()
print([line.strip() for line in collector.splitlines() if "slots currently occupied" in line])
update = function_of(f"{SOURCE}/managers/scheduler_components/metrics_reporter.py", "_update_lora_metrics",
                     get_parallel=lambda: Object(pp_size=1))


def slots_used(running):
    """With two slots, both occupied, and requests for these adapters that run."""
    pool = Object(max_loras_per_batch=2, uid_to_buffer_id={"a": 0, "b": 1}, buffer_id_to_uid=["a", "b"])
    runner = Object(lora_manager=Object(memory_pool=pool))
    batch = Object(reqs=[Object(lora_id=adapter) for adapter in running])
    scheduler = Object(enable_lora=True, tp_worker=Object(model_runner=runner), running_batch=batch)
    reporter = Object(scheduler=scheduler, stats=Object())
    update(reporter)
    return reporter.stats.lora_pool_slots_used, reporter.stats.lora_pool_slots_total


check("two slots occupied, none runs: used and all", slots_used([]), (0, 2))
check("two requests for one adapter and one for the base model run", slots_used(["a", "a", None]), (1, 2))
PYTHON
