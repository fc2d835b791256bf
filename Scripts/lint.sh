#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Format, layers, headers: what a reviewer should not have to look for.
set -eu
cd "$(dirname "$0")/.."
failed=0
complain() {
    echo "lint: $*" >&2
    failed=1
}

swift format lint --strict --recursive --parallel Sources Tests Examples Fixtures Package.swift Benchmarks || failed=1

# Each layer of the library compiles with the layers below it alone.
Scripts/layers.sh || failed=1

if grep -rn 'import Foundation' Sources/QCOW2 Sources/QCOW2Testing Sources/qsnap; then
    complain "Foundation is for tests only"
fi
if grep -rnE 'try!|fatalError\(|preconditionFailure\(|unsafeFlags' Sources Package.swift; then
    complain "traps and unsafe flags need another way"
fi
# One committer: nothing else in the library changes an image. Its parts are Image+Commit.swift, for every change of
# metadata, and beside it Image+CommitNew.swift, for images that don't exist yet, and Image+CommitData.swift and
# WriteSession+Put.swift, for guest data, which goes where no committed metadata is. What exports writes new files.
if grep -rnE --include='*.swift' '\.(write|flush|truncate|punchHole)\(' Sources/QCOW2 |
    grep -vE 'Sources/QCOW2/(Storage/|Export/|Image/(Image\+Commit[A-Za-z]*|SequentialWriter)\.swift|Session/WriteSession\+Put\.swift)|try write\('; then
    complain "only Image+Commit*.swift write, through SequentialWriter.swift"
fi
for file in $(git ls-files '*.swift'); do
    [ -e "$file" ] || continue
    head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
        { [ "$(basename "$file")" = Package.swift ] && sed -n 2p "$file" | grep -q SPDX; } ||
        complain "$file lacks the licence header"
done
[ -z "$(git ls-files Package.resolved .build)" ] || complain "Package.resolved and .build stay out of the repository"
exit $failed
