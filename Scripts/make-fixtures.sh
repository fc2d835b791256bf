#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Makes the golden images of Fixtures/Images with the real tools, and the table of Fixtures/README.md.
# Running it again makes other bytes (dates, times), so the tests look at what is in the images and not at hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
out=Fixtures/Images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

write_text() { # image, text: puts text at the start of the disk
    truncate -s 0 "$work/text"
    printf '%s\n' "$2" >"$work/text"
    truncate -s 512 "$work/text"
    qemu-io -c "write -s $work/text 0 512" "$1" >/dev/null
}

# The machine of the demonstration.
image=$out/demo.qcow2
qemu-img create -q -f qcow2 -o cluster_size=4096 "$image" 16M
qemu-io -c 'write -P 0x10 1M 32k' "$image" >/dev/null
write_text "$image" "A fresh system, just installed."
qemu-img snapshot -c fresh-install "$image"
qemu-io -c 'write -P 0x20 2M 64k' "$image" >/dev/null
write_text "$image" "A web server, configured and working."
qemu-img snapshot -c configured "$image"
qemu-io -c 'write -P 0x00 1M 16k' "$image" >/dev/null
write_text "$image" "A web server after a bad upgrade: it doesn't start."

# One image for each kind of metadata: a snapshot "first" of 0x11, then 0x22 in the active state.
make() { # name, cluster size, create options
    image=$out/$1.qcow2
    qemu-img create -q -f qcow2 -o "cluster_size=$2,$3" "$image" $(($2 * 24))
    qemu-io -c "write -P 0x11 0 $(($2 * 4))" -c "write -z $(($2 * 5)) $2" "$image" >/dev/null
    if [ "${4:-}" = compressed ]; then
        for index in 8 9 10 11; do qemu-io -c "write -c -P $index $(($2 * index)) $2" "$image" >/dev/null; done
    fi
    if [ "${5:-}" != no-snapshot ]; then qemu-img snapshot -c first "$image"; fi
    qemu-io -c "write -P 0x22 $2 $2" "$image" >/dev/null
}
make v2-512 512 compat=0.10 compressed
make v3-512 512 compat=1.1 compressed
make v3-512-refcount1 512 compat=1.1,refcount_bits=1 plain no-snapshot
make v3-512-refcount2 512 compat=1.1,refcount_bits=2
make v3-512-refcount4 512 compat=1.1,refcount_bits=4
make v3-512-refcount8 512 compat=1.1,refcount_bits=8 compressed
make v3-512-refcount32 512 compat=1.1,refcount_bits=32 compressed
make v3-512-refcount64 512 compat=1.1,refcount_bits=64 compressed
make v3-4k 4096 compat=1.1 compressed
make v3-4k-zstd 4096 compat=1.1,compression_type=zstd compressed
make v3-16k-extended 16384 compat=1.1,extended_l2=on,compression_type=zlib compressed
rm -f "$out/v3-512-bitmaps.qcow2"
make v3-512-bitmaps 512 compat=1.1
qemu-img bitmap --add -g 512 "$out/v3-512-bitmaps.qcow2" bitmap0
truncate -s 12288 "$work/backing.raw"
make v3-512-backing 512 "compat=1.1"
qemu-img rebase -u -b backing.raw -F raw "$out/v3-512-backing.qcow2" 2>/dev/null

{
    sed '/^| Image/,$d' Fixtures/README.md
    echo '| Image | Bytes | SHA-256 |'
    echo '|---|---|---|'
    for image in "$out"/*.qcow2; do
        echo "| $(basename "$image") | $(stat -c %s "$image") | $(sha256sum "$image" | cut -d' ' -f1) |"
    done
} >"$work/README.md"
mv "$work/README.md" Fixtures/README.md
