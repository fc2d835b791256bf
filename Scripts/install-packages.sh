#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
#
# Installs the system packages that are missing: for "build" the compression and hash libraries, for "test" the real tools
# that the tests compare with; for "bench" what measures; for "power" what a machine is made of.
# Does nothing where everything is there, and says what is missing where it can't install.
set -eu

missing=""
need() { missing="$missing $1"; }

for purpose in "$@"; do
    case "$purpose" in
    build)
        for library in zlib:zlib1g-dev zstd:libzstd-dev openssl/evp:libssl-dev; do
            echo "#include <${library%%:*}.h>" | cc -E -x c - >/dev/null 2>&1 || need "${library#*:}"
        done
        ;;
    test)
        command -v qemu-img >/dev/null && command -v qemu-io >/dev/null || need qemu-utils
        command -v qemu-system-x86_64 >/dev/null || need qemu-system-x86
        for tool in strace time; do [ -x "/usr/bin/$tool" ] || need "$tool"; done
        for tool in mkfs.ext4:e2fsprogs mkfs.vfat:dosfstools mcopy:mtools mkfs.xfs:xfsprogs; do
            PATH="$PATH:/usr/sbin:/sbin" command -v "${tool%%:*}" >/dev/null || need "${tool#*:}"
        done
        ;;
    bench)
        for tool in time strace valgrind; do [ -x "/usr/bin/$tool" ] || need "$tool"; done
        ;;
    power)
        for tool in busybox:busybox-static cpio:cpio mkfs.btrfs:btrfs-progs; do
            PATH="$PATH:/usr/sbin:/sbin" command -v "${tool%%:*}" >/dev/null || need "${tool#*:}"
        done
        ;;
    *)
        echo "usage: $0 build|test|bench|power..." >&2
        exit 64
        ;;
    esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Missing packages (Debian's names):$missing. Install them with your package manager." >&2
    exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
