#!/bin/sh
# Makes the metrics pages of tests/fixtures/ anew that no server printed, but a server's own code: print.sh
#
# Servers' wheels are unpacked without what they require, beside the real vLLM, whose PyTorch and other packages are enough to
# import the part that counts and prints.
. "$(dirname "$0")/../setup/common.sh"

SOURCE=envoy-test/metrics-pages
TARGET=.build/metrics-pages

# install PACKAGE==VERSION [MORE PACKAGES...]
install() {
    install_once "$TARGET/${1%%=*}" "$*" unpack "$@"
}

unpack() {
    .build/real-vllm/python/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps \
        --target "$TARGET/${1%%=*}" "$@" || fail "pip could not install $1; check the network, then run it again"
}

# print NAME VERSION
print() {
    mkdir -p "tests/fixtures/$1-$2"
    PYTHONPATH="$TARGET/$1" .build/real-vllm/python/bin/python "$SOURCE/print_$1.py" "tests/fixtures/$1-$2"
}

sh envoy-test/real-vllm/setup.sh
install sglang==0.5.23 orjson==3.13.0 ipython==9.18.1 traitlets==5.16.1 gguf==0.19.0
print sglang 0.5.23
install lmdeploy==0.18.0
print lmdeploy 0.18.0
