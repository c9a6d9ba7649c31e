# Read by every script in this folder (". common.sh"): where things are, and how they speak.
# Everything they install is kept in .build/ at the project's root, so deleting that folder undoes them.

set -eu
cd "$(dirname "$0")/../.."

ENVOY_NEWEST=1.40.0
ENVOY_OLDEST=1.36.4
# The last that Python 3.9 can run.
OPENAI_CLIENT=2.48.0
NODE=24.19.0
NODE_MAJOR_LEAST=18
VLLM_ROUTER=0.1.17
SMG=1.13.0
CARGO_DENY=0.20.2

# To standard error, as some scripts print a path that others read.
progress() {
    echo "setting up: $*" >&2
}

fail() {
    echo "set-up failed: $*" >&2
    exit 1
}

# install_once FOLDER NAME COMMAND...: runs COMMAND unless an earlier run finished it for this same NAME.
# The mark is written last, so an interrupted installation is done again.
install_once() {
    folder=$1
    name=$2
    shift 2
    mark=$folder/installed
    if [ "$(cat "$mark" 2>/dev/null)" = "$name" ]; then
        return
    fi
    progress "$name ..."
    rm -rf "$folder"
    mkdir -p "$folder"
    "$@"
    echo "$name" >"$mark"
}

# python_package FOLDER PACKAGE==VERSION [PIP OPTION...]: a virtual environment that holds one pinned package.
python_package() {
    install_once "$1" "$2" create_environment "$@"
}

create_environment() {
    environment=$1
    package=$2
    shift 2
    python3 -m venv "$environment" ||
        fail "python3 could not make a virtual environment; install Python 3.9 or later with its venv module" \
            "(on Debian: apt-get install python3-venv), then run it again"
    "$environment/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "$@" "$package" ||
        fail "pip could not install $package; check the network and that PyPI has a wheel for this machine," \
            "then run it again"
}

# cargo_tool FOLDER CRATE VERSION BINARY: one pinned program from crates.io, built from source.
cargo_tool() {
    install_once "$1" "$2 $3" build_tool "$@"
}

build_tool() {
    echo "            (built from source, once: a minute or more)" >&2
    # Not optimized: it runs for seconds, and optimizing doubles what building it takes.
    cargo install --quiet --locked --debug "$2" --version "$3" --bin "$4" --root "$1" ||
        fail "cargo could not install $2 $3; check the network, then run it again"
}

# edition FILE: its name and another number whenever it changes, so that what was made from it is made anew.
edition() {
    echo "$(basename "$1") $(cksum <"$1" | cut -d ' ' -f 1)"
}
