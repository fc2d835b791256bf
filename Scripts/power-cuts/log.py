# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
"""The log of a disk's writes and flushes that QEMU's blklogwrites keeps, and the disks that a power cut leaves.

The format is that of the kernel's dm-log-writes: a sector with the header, then for each request a sector that
describes it, and its data.
"""
import os, shutil, struct, subprocess

SECTOR = 512
FLUSH, FUA, DISCARD = 1, 2, 4
MAGIC = 0x6A736677736872


class Write:
    """A request that changed the disk: where, and where in the log its bytes are."""
    def __init__(self, offset, place, count): self.offset, self.place, self.count = offset, place, count


class Flush:
    """A request after which all writes before it are on the disk."""


def read_log(path):
    """The requests in their order."""
    requests = []
    with open(path, "rb") as file:
        magic, version, _, size = struct.unpack("<QQQI", file.read(28))
        if magic != MAGIC or version != 1: raise SystemExit(f"{path} is no log of writes")
        place, end = size, os.path.getsize(path)
        while place + size <= end:
            file.seek(place)
            sector, sectors, flags = struct.unpack("<QQQ", file.read(24))
            place += size
            if flags == 0 and sectors == 0: break
            if flags & FLUSH: requests.append(Flush())
            # What is discarded is as it was: the worst that a disk may do.
            length = 0 if flags & DISCARD else sectors * SECTOR
            if length: requests.append(Write(sector * SECTOR, place, length))
            if flags & FUA: requests.append(Flush())
            place += length
    return requests


class Disk:
    """The disk as all requests up to some point have left it, if every one of them is on it."""
    def __init__(self, base, log, path):
        self.path, self.log = path, open(log, "rb")
        copy(base, path)
        self.file = open(path, "r+b")

    def apply(self, writes, file=None, torn=None):
        """Writes what the requests wrote; of the last one only so many sectors, if that is said."""
        file = file or self.file
        for index, write in enumerate(writes):
            self.log.seek(write.place)
            data = self.log.read(write.count)
            if torn is not None and index == len(writes) - 1: data = data[:torn * SECTOR]
            file.seek(write.offset)
            file.write(data)
        file.flush()

    def copy_with(self, path, writes, torn=None):
        """A copy of the disk with some more writes on it."""
        copy(self.path, path)
        with open(path, "r+b") as file: self.apply(writes, file, torn)


def copy(source, target):
    if os.path.exists(target): os.remove(target)
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)
