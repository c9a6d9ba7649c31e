"""Runs vLLM's OpenAI server, with the arguments given, for as long as standard input stays open.

vLLM is several processes, and the others outlive a server that is killed. So that none is ever left behind,
all of them end when whoever started this closes standard input or ends, in whatever way. It must be started
in a process group of its own.
"""

import os
import runpy
import signal
import sys
import threading


def end_with_standard_input():
    sys.stdin.buffer.read()
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
