#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Fuzzes every target, or those that are named, for so many seconds altogether:
#
#   Scripts/fuzz.sh SECONDS [TARGET...]
#
# QCOW2_SEED makes a run begin with the same inputs as another. Inputs that lead on are kept in .build-fuzz/corpus, those
# that fail in .build-fuzz/crashes; to repeat one:
#
#   QCOW2_FUZZ=TARGET SWIFT_BACKTRACE=enable=no .build-fuzz/release/Fuzz FILE
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- header l2 snapshots bitmaps codec image patched verbs guest repair
each=$((seconds / $#))
[ "$each" -gt 0 ] || each=1
build="$PWD/.build-fuzz"

# Both sanitizers in one flag: with two the last one wins. Tests' access, so that decoders are reached as they are.
swift build -c release --package-path Tests/Fuzz --scratch-path "$build" --product Fuzz \
    --sanitize=fuzzer -Xswiftc -sanitize=fuzzer,address -Xswiftc -enable-testing

# Without this a trap ends the process before libFuzzer can write its input down.
export SWIFT_BACKTRACE=enable=no
export QCOW2_FIXTURES="$PWD/Fixtures/Images"
# What is still reachable when the process ends is no leak of the library.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"
mkdir -p "$build/crashes"
for target in "$@"; do
    export QCOW2_FUZZ="$target"
    corpus="$build/corpus/$target"
    mkdir -p "$corpus"
    QCOW2_FUZZ_SEEDS="$corpus" "$build/release/Fuzz" >/dev/null
    # What failed once, before anything else.
    for input in Fixtures/Crashes/"$target"-*; do
        [ ! -e "$input" ] || cp "$input" "$corpus/"
    done
    case "$target" in
    image) length=16384 ;;
    l2) length=16385 ;;
    codec | header) length=8192 ;;
    snapshots) length=4096 ;;
    *) length=512 ;;
    esac
    # A repair may make a small file 64 MiB larger.
    memory=64
    [ "$target" != repair ] || memory=192
    echo "== $target: $each seconds"
    "$build/release/Fuzz" "$corpus" -max_total_time="$each" -max_len="$length" -timeout=30 -rss_limit_mb=1024 \
        -malloc_limit_mb="$memory" -artifact_prefix="$build/crashes/$target-" -print_final_stats=1 -verbosity=0 \
        -seed="${QCOW2_SEED:-0}" \
        2>"$build/$target.log" || {
        status=$?
        tail -n 40 "$build/$target.log" >&2
        echo "$target failed; the input is in $build/crashes." >&2
        exit "$status"
    }
    grep -E 'number_of_executed_units|peak_rss_mb' "$build/$target.log" || true
done
