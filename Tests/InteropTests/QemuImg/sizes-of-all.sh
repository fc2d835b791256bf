#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# How many an inventory does it: look at every image in a folder through JSON, and name its snapshots.
set -eu
cd "$1"
for image in *.qcow2; do
    info=$(qemu-img info --output=json "$image")
    size=$(printf '%s\n' "$info" | sed -n 's/^    "virtual-size": \([0-9]*\),*$/\1/p')
    format=$(printf '%s\n' "$info" | sed -n 's/^    "format": "\([a-z0-9]*\)",*$/\1/p')
    names=$(printf '%s\n' "$info" | sed -n 's/^            "name": "\(.*\)",*$/\1/p' | tr '\n' ' ')
    printf '%s %s %s %s\n' "$image" "$format" "$size" "$names"
done
