#!/bin/sh
# Installs cargo-deny, which checks the dependencies against deny.toml.
. "$(dirname "$0")/common.sh"

cargo_tool .build/cargo-deny cargo-deny "$CARGO_DENY" cargo-deny
