#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Line and region coverage of the tests, per folder; or of those tests that the arguments say to swift test:
#
#   Scripts/coverage.sh [--filter SUITES]
#
# The command as a child process counts, too. The build is one of its own, in .build-coverage; what isn't covered is
# listed in .build-coverage/uncovered.txt, region by region.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$PWD/.build-coverage
tools=$(dirname "$(readlink -f "$(command -v swift)")")
swift build --build-tests --enable-code-coverage --scratch-path "$build" --quiet
mkdir -p "$build/raw"
rm -f "$build"/raw/*
# Processes merge what they counted into a few files: tests start the command some 10,000 times.
LLVM_PROFILE_FILE="$build/raw/pool-%8m.profraw" "$build/debug/swift-qcow2PackageTests.xctest" --testing-library swift-testing \
    "$@" >"$build/coverage.log" 2>&1 || echo "Some tests failed: see $build/coverage.log" >&2
"$tools/llvm-profdata" merge --sparse --failure-mode=all -o "$build/all.profdata" "$build"/raw/*.profraw
"$tools/llvm-cov" export "$build/debug/swift-qcow2PackageTests.xctest" --object "$build/debug/qsnap" \
    --instr-profile "$build/all.profdata" --ignore-filename-regex='\.build|/Tests/|Examples' >"$build/coverage.json"
python3 - "$build/coverage.json" "$build/uncovered.txt" "$PWD/Sources/" <<'PYTHON'
import collections, json, os, sys

data = json.load(open(sys.argv[1]))["data"][0]
root = sys.argv[3]
folders = collections.defaultdict(lambda: [0, 0, 0, 0])
for file in data["files"]:
    if not file["filename"].startswith(root): continue
    folder = os.path.dirname(file["filename"][len(root):])
    for place, kind in ((0, "lines"), (2, "regions")):
        folders[folder][place] += file["summary"][kind]["covered"]
        folders[folder][place + 1] += file["summary"][kind]["count"]
total = [sum(column) for column in zip(*folders.values())]
percent = lambda covered, count: f"{100 * covered / max(1, count):6.1f} % of {count:5}"
print(f"{'Folder':32} {'Lines':>17} {'Regions':>17}")
for folder, c in sorted(folders.items()) + [("all", total)]:
    print(f"{folder:32} {percent(c[0], c[1])} {percent(c[2], c[3])}")
with open(sys.argv[2], "w") as out:
    for file in data["files"]:
        if not file["filename"].startswith(root): continue
        # Segments: line, column, count, has a count, begins a region, is a gap.
        for s in file["segments"]:
            if s[3] and s[4] and not s[5] and s[2] == 0:
                print(f"{file['filename'][len(root):]}:{s[0]}:{s[1]}", file=out)
PYTHON
