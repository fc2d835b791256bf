# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
"""The images of a run, the step that each is for, and how an image is judged."""
import hashlib, os, random, subprocess


class Step:
    """A command on an image of its own."""
    def __init__(self, name, command, image="plain", output=None, ours=True, durable=True):
        self.name, self.command, self.image, self.output = name, command, image, output
        self.ours, self.durable = ours, durable


STEPS = [
    Step("create", "qsnap create {i} third"),
    Step("apply", "qsnap apply {i} first"),
    Step("apply --save-current", "qsnap apply {i} first --save-current=saved"),
    Step("delete", "qsnap delete {i} first"),
    Step("delete --all", "qsnap delete {i} --all"),
    Step("rename", "qsnap rename {i} first other"),
    Step("create, 128 L2 tables", "qsnap create {i} third", image="large"),
    Step("create, version 2", "qsnap create {i} third", image="v2"),
    Step("check --repair leaks", "qsnap check --repair leaks --discard-remnants {i}", image="leaky"),
    Step("check --repair all", "qsnap check --repair all --discard-remnants {i}", image="flagged"),
    Step("export", "qsnap export {i} first {o}", output="raw"),
    Step("export --format qcow2", "qsnap export --format qcow2 {i} first {o}", output="qcow2"),
    Step("export --no-sync", "qsnap export --no-sync {i} first {o}", output="raw", durable=False),
    Step("qemu-img snapshot -c", "qemu-img snapshot -c third {i}", ours=False),
    Step("qemu-img snapshot -a", "qemu-img snapshot -a first {i}", ours=False),
    Step("qemu-img snapshot -d", "qemu-img snapshot -d first {i}", ours=False),
]


def qemu_img(*words): subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def guest_writes(path, *commands):
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, path], check=True, stdout=subprocess.DEVNULL)


def make(kind, path, random):
    """Makes an image with two snapshots and a state of its own."""
    options = {"v2": "compat=0.10,cluster_size=4k", "large": "cluster_size=4k,preallocation=metadata"}
    size = "256M" if kind == "large" else "64M"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options.get(kind, "cluster_size=4k"), path, size)
    def write(count):
        guest_writes(path, *(
            f"write -P {random.randrange(1, 255)} {random.randrange(0, 15000) * 4096} {4096 * random.randrange(1, 9)}"
            for _ in range(count)))
    write(24)
    qemu_img("snapshot", "-c", "first", path)
    write(16)
    qemu_img("snapshot", "-c", "second", path)
    write(16)
    if kind in ("leaky", "flagged"): damage(kind, path)


def damage(kind, path):
    """Leaks clusters behind the image's end, or takes copied flags from the active L1 table."""
    with open(path, "r+b") as file:
        def number(at, count=8):
            file.seek(at)
            return int.from_bytes(file.read(count), "big")
        if kind == "leaky":
            block = number(number(48))
            end = os.path.getsize(path) // 4096
            for cluster in range(end, min(end + 40, 2048)):
                file.seek(block + 2 * cluster)
                file.write(b"\0\1")
            file.truncate((end + 40) * 4096)
        else:
            table, count = number(40), number(36, 4)
            for index in range(count):
                entry = number(table + 8 * index)
                file.seek(table + 8 * index)
                file.write((entry & ~(1 << 63)).to_bytes(8, "big"))


def content(qsnap, path):
    """What every state of an image holds, and how its snapshots are called; None if they can't be read."""
    words = [[qsnap, "hash", "--all", "--no-sandbox", path], [qsnap, "list", "--json", "--no-sandbox", path]]
    results = [subprocess.run(word, capture_output=True) for word in words]
    if any(result.returncode for result in results): return None
    return results[0].stdout, results[1].stdout.replace(path.encode(), b"IMAGE")


def check(path): return subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], capture_output=True).returncode


def digest(path):
    if not os.path.exists(path): return None
    with open(path, "rb") as file: return hashlib.file_digest(file, "sha256").hexdigest()
