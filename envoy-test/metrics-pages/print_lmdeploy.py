"""Prints /metrics as LMDeploy does, with its own logger of statistics and made-up figures: print_lmdeploy.py FOLDER

No engine runs, so no model and no kernels are needed. The statistics go the way they go in the server.
"""

import importlib.util
import sys
import types
from pathlib import Path

import prometheus_client

# The package without what it imports when it is imported itself, which is all of the server.
package = types.ModuleType("lmdeploy")
package.__path__ = importlib.util.find_spec("lmdeploy").submodule_search_locations
sys.modules["lmdeploy"] = package
from lmdeploy.messages import EngineOutput, RequestMetrics, ResponseType, ScheduleMetrics
from lmdeploy.metrics.loggers import PrometheusStatLogger
from lmdeploy.metrics.stats import IterationStats, RequestStats, SchedulerStats


def write(name):
    Path(sys.argv[1], f"metrics_{name}.txt").write_bytes(prometheus_client.generate_latest())


for collector in list(prometheus_client.REGISTRY._collector_to_names):  # What Python says of itself.
    prometheus_client.REGISTRY.unregister(collector)
logger = PrometheusStatLogger("tiny", max_model_len=8192)
write("idle")

# Of ten requests seven are with the engine, which runs four, and three wait for a free handle.
stats = SchedulerStats(num_total_reqs=10, num_api_routed_reqs=7)
stats.update_from_schedule_metrics(
    ScheduleMetrics(active_seqs=4, waiting_seqs=3, cache_usage=0.25, prefix_cache_hit_rate=0.5))
logger.record_schedule(stats)
# One has ended: 1,000 tokens of a prompt, of which 900 were cached, and one token.
request = RequestStats(arrival_time=100.0, prompt_tokens=1000)
request.cached_tokens = 900
request.queued_time, request.scheduled_time = 100.0, 100.25
iteration = IterationStats()
iteration.iteration_timestamp = 101.0
iteration.update_from_output(
    EngineOutput(status=ResponseType.FINISH, token_ids=[1], req_metrics=RequestMetrics(token_timestamp=101.0)), request)
logger.record_iteration(iteration)
logger.record_finish(request)
write("busy")
