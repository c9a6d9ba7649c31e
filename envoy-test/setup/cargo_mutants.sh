#!/bin/sh
# Changes the code of what decides picks, one place at a time, and shows which changes no test notices: sh cargo_mutants.sh [FILE...].
# A change takes as long as building and running the tests that are named below.
. "$(dirname "$0")/common.sh"

CARGO_MUTANTS=27.1.0
cargo_tool .build/cargo-mutants cargo-mutants "$CARGO_MUTANTS" cargo-mutants

[ $# -gt 0 ] || set -- 'src/strategy/*.rs' 'src/pool/*.rs' 'src/prefix/*.rs' 'src/load/*.rs' src/queue.rs src/admission.rs
for file; do
    shift
    set -- "$@" --file "$file"
done
# In place of the whole suite: the properties and claims of picks, which take a few seconds.
.build/cargo-mutants/bin/cargo-mutants mutants --package inference-picker --output .build --no-shuffle --colors never "$@" -- \
    --lib --test picks --test routing --test queue --test promises --test rollout --test prefixes --test outcomes
