#!/bin/sh
# Builds a real llama-server, and makes two models for it: .build/real-llama-cpp/. `make test-llama-cpp` and
# `make run SERVER=llama.cpp` start it with the tiny one, `make record-real-servers` with the small one.
#
# PyPI has llama.cpp as the source of its Python bindings, llama-cpp-python, whose wheels have no server. cmake and ninja
# are PyPI's as well, so all that the machine must have is a C++ compiler.
. "$(dirname "$0")/../setup/common.sh"

SOURCE=envoy-test/real-llama-cpp
TARGET=.build/real-llama-cpp
# One for each core, as with ninja alone, unless something else says how many.
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN)}

check_machine() {
    command -v c++ >/dev/null ||
        fail "llama.cpp is built from source, and there is no C++ compiler on this machine;" \
            "install one (on Debian: apt-get install g++), then run it again"
}

install_tools() {
    python3 -m venv "$TARGET/python" ||
        fail "python3 could not make a virtual environment; install Python 3.9 or later with its venv module" \
            "(on Debian: apt-get install python3-venv), then run it again"
    pip install --only-binary :all: --requirement "$SOURCE/requirements.txt"
}

build_server() {
    echo "            (built from source, once: 12 minutes of processor time, 800 MB of disk meanwhile)" >&2
    pip download --no-deps --no-build-isolation --no-binary :all: --dest "$TARGET/server" \
        --require-hashes --requirement "$SOURCE/source.txt"
    tar -xzf "$TARGET"/server/*.tar.gz -C "$TARGET/server"
    build=$TARGET/server/build
    {
        PATH=$PWD/$TARGET/python/bin:$PATH
        cmake -G Ninja -C "$SOURCE/options.cmake" -S "$TARGET"/server/llama_cpp_python-*/vendor/llama.cpp -B "$build" &&
            ninja -C "$build" -j "$JOBS" llama-server
    } >"$TARGET/build.log" 2>&1 || fail "llama-server could not be built; $TARGET/build.log says why"
    mv "$build/bin/llama-server" "$TARGET/server"
    rm -r "$build" "$TARGET"/server/llama_cpp_python-*
}

pip() {
    "$TARGET/python/bin/pip" --quiet --disable-pip-version-check "$@" ||
        fail "pip could not get what llama.cpp is built with; check the network, then run it again"
}

make_models() {
    for name in tiny small; do
        "$TARGET/python/bin/python" "$SOURCE/make_model.py" "$TARGET/model/$name.gguf" "$name"
    done
}

check_machine
install_once "$TARGET/python" "llama.cpp's tools ($(edition "$SOURCE/requirements.txt"))" install_tools
install_once "$TARGET/server" "llama.cpp's server ($(edition "$SOURCE/source.txt"), $(edition "$SOURCE/options.cmake"))" build_server
install_once "$TARGET/model" "tiny and small models of llama.cpp ($(edition "$SOURCE/make_model.py"))" make_models
