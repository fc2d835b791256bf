#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Times qsnap against qemu-img. Arguments go to the benchmark: --help lists them. Images are kept in .build-bench.
set -eu
cd "$(dirname "$0")/.."
swift build --package-path Benchmarks --scratch-path .build-benchmarks -c release --product compare
exec .build-benchmarks/release/compare --qsnap .build-release/release/qsnap --folder "${BENCH_FOLDER:-.build-bench}" "$@"
