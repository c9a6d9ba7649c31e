"""Prints /metrics as SGLang does, with its own collectors and made-up figures: print_sglang.py FOLDER

Each scheduler is a process with a SchedulerMetricsCollector, and the tokenizer one with a TokenizerMetricsCollector, as in
the server; prometheus_client's multiprocess mode joins what they have counted, as the server's /metrics does. Nothing is
computed, so no model and no kernels are needed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

# What every scheduler says of its cache: 4,600 tokens are in use, and 2,784 can be dropped.
CAPACITY_TOKENS, PAGE_TOKENS, CONTEXT_TOKENS = 16384, 16, 8192
TOKENS = {"kv_available_tokens": 9000, "kv_evictable_tokens": 2784, "kv_used_tokens": 4600, "num_used_tokens": 4600}


def scheduler(tp_rank=0, dp_rank=None, running=4, waiting=2, **more):
    return {"tp_rank": tp_rank, "dp_rank": dp_rank, "running": running, "waiting": waiting, **more}


TOKENIZER = {"tokenizer": True}
# Each page: the processes that print it.
PAGES = {
    "one_rank": [scheduler()],
    "all_tp_ranks": [scheduler(rank) for rank in range(4)],
    "two_dp_ranks": [scheduler(0, 0), scheduler(4, 1, running=3, waiting=0)],
    "after_traffic": [scheduler(), TOKENIZER],
    "priorities": [scheduler(by_priority={0: 1, 5: 1})],
    "lora": [scheduler(lora=True)],
}


def print_page(processes):
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
        for process in processes:
            subprocess.run([sys.executable, __file__, "--process", json.dumps(process)], env=environment, check=True)
        join = "from prometheus_client import *; from prometheus_client.multiprocess import *\n" \
            "registry = CollectorRegistry(); MultiProcessCollector(registry)\n" \
            "print(generate_latest(registry).decode(), end='')"
        return subprocess.run([sys.executable, "-c", join], env=environment, check=True, stdout=subprocess.PIPE).stdout


def run_scheduler(process):
    from sglang.srt.observability import metrics_collector as collectors
    # The labels that SchedulerMetricsCollector.init_new sets. Beside data parallelism (with attention in common) the
    # ranks go on counting.
    labels = {"model_name": "tiny", "engine_type": "unified", "tp_rank": process["tp_rank"], "pp_rank": 0,
              "moe_ep_rank": process["tp_rank"]}
    by_priority = process.get("by_priority")
    if by_priority is not None:
        labels["priority"] = ""
    if process["dp_rank"] is not None:
        labels["dp_rank"] = process["dp_rank"]
    has_lora = process.get("lora", False)
    collector = collectors.SchedulerMetricsCollector(labels=labels, server_args=None, enable_lora=has_lora)
    collector.emit_constants(
        max_total_num_tokens=CAPACITY_TOKENS, max_total_num_tokens_swa=None, weight_memory_usage_gb=1.0,
        kv_cache_memory_usage_gb=2.0, graph_memory_usage_gb={}, max_running_requests_under_SLO=None,
        page_size=PAGE_TOKENS, num_pages=CAPACITY_TOKENS // PAGE_TOKENS, context_len=CONTEXT_TOKENS,
        startup_available_gpu_memory_gb=10.0)
    waiting = collectors.QueueCount(process["waiting"], by_priority)
    lora = {"lora_pool_slots_used": 1, "lora_pool_slots_total": 8, "lora_pool_utilization": 0.125} if has_lora else {}
    collector.log_stats(collectors.SchedulerStats(
        num_running_reqs=collectors.QueueCount(process["running"]), num_queue_reqs=waiting, token_usage=0.28,
        cache_hit_rate=0.5, **TOKENS, **lora))


def run_tokenizer():
    from sglang.srt.observability import metrics_collector as collectors
    labels = {"model_name": "tiny", "engine_type": "unified"}
    collector = collectors.TokenizerMetricsCollector(labels=labels)
    for streamed in [True, False]:
        for cached_tokens in [0, 900]:
            details = {"device": 896, "host": 4} if cached_tokens else None
            collector.observe_one_finished_request(
                labels, prompt_tokens=1000, generation_tokens=20, cached_tokens=cached_tokens, e2e_latency=0.5,
                has_grammar=False, cached_tokens_details=details, is_streaming=streamed)


def run(process):
    # What the collectors ask the server's configuration for: its defaults.
    from sglang.srt import runtime_context
    defaults = {
        "observability": SimpleNamespace(prompt_tokens_buckets=None, generation_tokens_buckets=None),
        "schedule": SimpleNamespace(
            prefill_delayer_max_delay_passes=30, prefill_delayer_forward_passes_buckets=None,
            prefill_delayer_wait_seconds_buckets=None),
        "exec": SimpleNamespace(moe=SimpleNamespace(expert_balancedness_report_mode="off")),
    }
    runtime_context.RuntimeContext.config_bag = lambda context, name: defaults[name]
    run_tokenizer() if "tokenizer" in process else run_scheduler(process)


if __name__ == "__main__":
    if sys.argv[1] == "--process":
        run(json.loads(sys.argv[2]))
    else:
        for name, processes in PAGES.items():
            Path(sys.argv[1], f"metrics_{name}.txt").write_bytes(print_page(processes))
