#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# The main job on a shipped image: its disk gets a snapshot, changes, and comes back. Needs no QEMU.
set -eu
bin=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
image=$folder/demo.qcow2
cp "$(dirname "$0")/../Fixtures/Images/demo.qcow2" "$image"
chmod u+w "$image"

say() { printf '\n# %s\n' "$*"; }
run() {
    printf '$ qsnap %s\n' "$(echo "$*" | sed "s|$folder/||g")"
    output=$("$bin/qsnap" "$@")
    echo "$output" | sed "s|$folder/||g"
}
disk() { printf 'The disk says: %s' "$("$bin/read-state" "$image" "$@")"; echo; }

say "A disk image that QEMU's own tools made, with two snapshots in it. Its machine broke after an upgrade."
run list "$image"
disk

say "Keep the broken state for later, and go back to the configured one: one step, all or nothing."
run apply "$image" configured --save-current broken-upgrade
disk

say "Nothing is lost: every state is still in the image."
run list "$image"
for snapshot in fresh-install configured broken-upgrade; do
    printf '%-15s ' "$snapshot"
    "$bin/read-state" "$image" "$snapshot"
done

say "A snapshot before the next experiment, under a name of its own; then give one a better name."
run create "$image" before-experiment
run rename "$image" broken-upgrade upgrade-failure

say "Forward to the failure, to look at it, and back."
run apply "$image" upgrade-failure
disk
run apply "$image" before-experiment
disk

say "Keep only what is needed."
run delete "$image" upgrade-failure before-experiment
run list "$image"
run list "$image" --json
disk

if command -v qemu-img >/dev/null; then
    say "qemu-img is installed here, so it may judge the result."
    qemu-img check "$image" | head -n 1
fi
