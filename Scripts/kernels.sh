#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Times the library's hot loops beside a copy of as many bytes. --instructions counts those with valgrind; --help lists
# the rest.
set -eu
cd "$(dirname "$0")/.."
swift build --package-path Benchmarks --scratch-path .build-kernels -c release -Xswiftc -enable-testing --product kernels
exec .build-kernels/release/kernels "$@"
