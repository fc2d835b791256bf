#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Runs all tests, or what the arguments say to swift test, and says at the end which failed: thousands of lines come
# before.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
swift test --skip-build "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
if [ "$status" -ne 0 ]; then
    echo
    echo "Failed, with status $status:"
    grep -aE '✘|error:' "$log" | tail -n 60
fi
exit "$status"
