#!/bin/sh
# Installs the gateways that `make bench-peers` compares the plugin with.
. "$(dirname "$0")/common.sh"

python_package .build/vllm-router "vllm-router==$VLLM_ROUTER"
python_package .build/smg "smg==$SMG"
