#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Makes the library's documentation in ./site; fails on a link that leads nowhere.
set -eu
cd "$(dirname "$0")/.."
swift package dump-symbol-graph --minimum-access-level public --skip-synthesized-members >/dev/null 2>&1 || true
graphs=$(mktemp -d)
trap 'rm -rf "$graphs"' EXIT
cp .build/*/symbolgraph/QCOW2.symbols.json .build/*/symbolgraph/QCOW2@*.symbols.json "$graphs" 2>/dev/null || true
[ -e "$graphs/QCOW2.symbols.json" ] || { echo "docs: no symbol graph" >&2; exit 1; }
docc convert Sources/QCOW2/QCOW2.docc --additional-symbol-graph-dir "$graphs" --fallback-display-name QCOW2 \
    --fallback-bundle-identifier QCOW2 --output-path site --transform-for-static-hosting --warnings-as-errors
