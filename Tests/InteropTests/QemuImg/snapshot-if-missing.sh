#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# How many a cron job does it: create today's snapshot unless the list shows it, and delete the oldest beyond three.
set -eu
image=$1
name=$2
if ! qemu-img snapshot -l "$image" | awk 'NR > 2 { print $2 }' | grep -qx "$name"; then
    qemu-img snapshot -c "$name" "$image"
fi
qemu-img snapshot -l "$image" | awk 'NR > 2 { print $2 }' | head -n -3 | while read -r old; do
    qemu-img snapshot -d "$old" "$image"
done
qemu-img snapshot -l "$image" | awk 'NR > 2 { print $1, $2 }'
