#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Compiles each layer of the library with only the layers below it, as Scripts/layers says, so that an edge that goes up
# fails with the name of what it uses.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

# The layer, and all that it may use.
below() {
    local layer
    for layer in "$1" $(sed -n "s/^$1: //p" Scripts/layers); do
        echo "$layer"
        [ "$layer" = "$1" ] || below "$layer"
    done
}

# Says what a layer uses that it may not.
check() {
    local folder files=(Sources/QCOW2/QCOW2Error.swift)
    for folder in $(below "$1" | sort -u); do files+=("Sources/QCOW2/$folder"/*.swift); done
    swiftc -typecheck -swift-version 6 -strict-memory-safety -module-name QCOW2 -D Zstd -Xcc -D_GNU_SOURCE \
        -I Sources/CZlib -I Sources/CZstd "${files[@]}" >"$2" 2>&1
}

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
layers=$(sed -n 's/^\([A-Z][A-Za-z]*\).*/\1/p' Scripts/layers)
for folder in Sources/QCOW2/*/; do
    name=$(basename "$folder")
    case "$name" in *.docc) continue ;; esac
    grep -qx "$name" <<<"$layers" || { echo "lint: $folder is in no layer of Scripts/layers" >&2; failed=1; }
done
# Two at a time.
for layer in $layers; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || true; done
    { check "$layer" "$log/$layer.err" || touch "$log/$layer.failed"; } &
done
wait
for layer in $layers; do
    [ -e "$log/$layer.failed" ] || continue
    failed=1
    echo "lint: the layer $layer uses what lies above it:" >&2
    # Without errors of the code it was the compiler that failed.
    { grep -E '^[^ ].*error:' "$log/$layer.err" || cat "$log/$layer.err"; } | sort -u | head -n 10 >&2
done
exit $failed
