#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
"""Cuts the power under a real kernel, and looks at what is left.

    Scripts/power-cuts/run.py QSNAP [STATES]

A machine under QEMU runs the command's verbs on images in ext4, XFS and btrfs, on a disk whose every write and flush is
logged. A state is every write before the last flush, and of those after it none, all, some, or the last one torn; it is
mounted, so that the file system's journal replays, and judged by qemu-img: the image in it is the one from before the
verb, or the one from after it, and once the verb has ended it is the latter. STATES (1500 by default) is how many are
judged, QCOW2_SEED decides which. Writes docs/power-cuts.md. Where it can't run, says why and ends well.
"""
import collections, contextlib, datetime, os, random, shutil, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import images, log, machine
from images import STEPS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SEED = int(os.environ.get("QCOW2_SEED", "1"))
SIZE = 512 << 20
FILE_SYSTEMS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "{disk}", "{kib}k"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-d", "size={kib}k", "{disk}"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-b", "{kib}k", "{disk}"],
}


@contextlib.contextmanager
def mounted(disk, folder):
    """Mounts the file system of a disk, which replays its journal."""
    subprocess.run(["mount", "-o", "loop", disk, folder], check=True, stderr=subprocess.DEVNULL)
    try: yield folder
    finally:
        # Others may look at what was mounted for a moment.
        for _ in range(100):
            if subprocess.run(["umount", folder], stderr=subprocess.DEVNULL).returncode == 0: break
            time.sleep(0.1)
        else: raise SystemExit(f"{folder} can't be unmounted")


def image_of(step): return f"{STEPS.index(step)}.qcow2"


def output_of(step): return f"{STEPS.index(step)}.copy.{step.output}"


class Judge:
    """Knows the old and the new state of every step, and says what a disk holds of one."""
    def __init__(self, qsnap, folder, before, after):
        self.qsnap, self.folder, self.known = qsnap, folder, {}
        for disk in (before, after):
            # Mounting writes to the disk.
            copy = disk + ".copy"
            log.copy(disk, copy)
            with mounted(copy, folder):
                for step in STEPS: self.known.setdefault(step, []).append(self.look(step))
            os.remove(copy)

    def look(self, step):
        path = os.path.join(self.folder, image_of(step))
        if step.output: return images.digest(os.path.join(self.folder, output_of(step)))
        return images.content(self.qsnap, path), images.check(path)

    def judge(self, step, disk, has_ended):
        """'old', 'new', or what is wrong."""
        try:
            with mounted(disk, self.folder): found = self.look(step)
        except subprocess.CalledProcessError: return "not mounted"
        old, new = self.known[step]
        if found == new: return "new"
        if found == old: return "lost" if has_ended and step.durable else "old"
        if step.output: return "partial"
        if found[0] is None: return "unreadable"
        if found[0] not in (old[0], new[0]): return "neither"
        # The content is right; what the check says isn't.
        return {2: "corrupt", 3: "leaks"}.get(found[1], "unchecked")


def choose(requests, marks, count, generator):
    """The states to look at: for each the step, whether it has ended, how many requests were made, and which writes
    since the last flush are on the disk."""
    chosen = []
    for number, step in enumerate(STEPS):
        start, end = marks[2 * number], marks[2 * number + 1]
        stop = marks.get(2 * number + 2, len(requests))
        for index in range(count):
            # One of four is from after the end, as far as nothing of the next step is in it.
            has_ended = index % 4 == 3
            point = generator.randint(*(end + 1, min(stop, end + 8)) if has_ended else (start, end))
            kind = generator.choice(["none", "all", "some", "some", "prefix", "torn"])
            chosen.append((point, step, has_ended, kind, generator.random()))
    return sorted(chosen, key=lambda state: state[0])


def subset(pending, kind, seed):
    """Which of the writes since the last flush are on the disk, and how many sectors of the last one."""
    generator = random.Random(seed)
    if kind == "none" or not pending: return [], None
    if kind == "all": return pending, None
    if kind == "some": return [write for write in pending if generator.random() < 0.5], None
    part = pending[:generator.randrange(len(pending)) + 1]
    if kind == "prefix": return part, None
    return part, generator.randrange(0, max(1, part[-1].count // log.SECTOR))


def run(file_system, qsnap, count, work, kernel):
    """Counts of the verdicts, by step."""
    generator = random.Random(f"{SEED} {file_system}")
    base, disk, record, folder = (os.path.join(work, name) for name in ("base", "disk", "log", "mnt"))
    os.makedirs(folder, exist_ok=True)
    with open(base, "wb") as file: file.truncate(SIZE)
    kib = (SIZE >> 10) - machine.MARK_SECTORS // 2
    subprocess.run(
        [word.format(disk=base, kib=kib) for word in FILE_SYSTEMS[file_system]], check=True, stdout=subprocess.DEVNULL)
    with mounted(base, folder):
        made = {}
        for step in STEPS:
            path = os.path.join(folder, image_of(step))
            if step.image not in made:
                images.make(step.image, path, generator)
                made[step.image] = path
            else: shutil.copy(made[step.image], path)
    log.copy(base, disk)
    commands = [step.command.format(i=image_of(step), o=step.output and output_of(step)) for step in STEPS]
    shutil.rmtree(os.path.join(work, "root"), ignore_errors=True)
    initrd = machine.initramfs(
        work, kernel[1], [qsnap, shutil.which("qemu-img")], machine.script(file_system, commands))
    said = machine.run(work, kernel[0], initrd, disk, record)
    for number, step in enumerate(STEPS):
        wanted = [f"STEP {number} 0"] + ([f"STEP {number} 3"] if "repair" in step.name else [])
        if not any(text in said for text in wanted): raise SystemExit(f"{file_system}, {step.name}:\n{said[-3000:]}")
    requests = log.read_log(record)
    first = (SIZE >> 9) - machine.MARK_SECTORS
    marks = {
        ((request.offset >> 9) - first) // 8: index for index, request in enumerate(requests)
        if isinstance(request, log.Write) and request.offset >> 9 >= first
    }
    judge = Judge(qsnap, folder, base, disk)
    durable = log.Disk(base, record, os.path.join(work, "durable"))
    state, position, flushed = os.path.join(work, "state"), 0, 0
    counts, different = collections.defaultdict(collections.Counter), set()
    for point, step, has_ended, kind, seed in choose(requests, marks, count, generator):
        while position < point:
            if isinstance(requests[position], log.Flush):
                durable.apply([r for r in requests[flushed:position] if isinstance(r, log.Write)])
                flushed = position + 1
            position += 1
        pending = [request for request in requests[flushed:position] if isinstance(request, log.Write)]
        writes, torn = subset(pending, kind, seed)
        durable.copy_with(state, writes, torn)
        # Draws repeat, as a verb makes few requests.
        different.add((flushed, tuple(requests.index(write) for write in writes), torn, step.name))
        verdict = judge.judge(step, state, has_ended)
        counts[step][verdict] += 1
        if step.ours and step.durable and verdict not in ("old", "new"):
            print(f"{file_system}, {step.name}, request {point}, {kind}, seed {seed}: {verdict}", flush=True)
    drawn = sum(sum(c.values()) for c in counts.values())
    print(f"{file_system}: {len(requests)} requests, {drawn} draws, {len(different)} different states", flush=True)
    return counts, sum(1 for key in different if any(s.ours and s.name == key[3] for s in STEPS))


def why_not(qsnap):
    """Why this machine can't do it; None if it can."""
    if os.geteuid() != 0: return "only root can mount what a power cut leaves"
    tools = ["qemu-system-x86_64", "qemu-img", "qemu-io", "busybox", "cpio", "apt-get", "dpkg-deb"]
    for tool in tools + [words[0] for words in FILE_SYSTEMS.values()]:
        if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin"): return f"{tool} is not here"
    if not os.path.exists("/dev/loop-control"): return "there are no loop devices"
    kinds = open("/proc/filesystems").read().split()
    for kind in FILE_SYSTEMS:
        if kind not in kinds: return f"this kernel doesn't mount {kind}"
    return None


def report(results, different, seconds):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    total = sum(sum(c.values()) for counts in results.values() for s, c in counts.items() if s.ours)
    lines = [
        "# Power cuts", "",
        "Written by `make power-cuts`: what a power cut under a real kernel leaves, as the DocC article on crash "
        "consistency says.", "",
        f"{datetime.date.today()}, commit {commit}, seed {SEED}, {seconds:.0f} s: {total} draws of states of `qsnap`, of which {different} are "
        "different states: a verb makes few requests, so draws repeat. Each cell: "
        "how many states were found to be what.", "",
        "| Step | " + " | ".join(results) + " |", "|---|" + "---|" * len(results),
    ]
    for step in STEPS:
        cells = [", ".join(f"{n} {v}" for v, n in sorted(counts[step].items())) for counts in results.values()]
        lines.append(f"| `{step.name}` | " + " | ".join(cells) + " |")
    with open(os.path.join(ROOT, "docs", "power-cuts.md"), "w") as file: file.write("\n".join(lines) + "\n")
    print("\n".join(lines[6:]))


def main():
    qsnap = os.path.abspath(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder = os.path.join(ROOT, ".build-power")
    os.makedirs(folder, exist_ok=True)
    reason = why_not(qsnap)
    kernel = None if reason else machine.kernel(folder)
    if not reason and not kernel: reason = "there is no kernel to be had"
    if reason:
        print(f"Skipped: {reason}.")
        return
    each = max(1, count // len(FILE_SYSTEMS) // len(STEPS))
    results, different, start = {}, 0, datetime.datetime.now()
    for file_system in FILE_SYSTEMS:
        # In memory, where there is room.
        place = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 4 << 30 else None
        with tempfile.TemporaryDirectory(dir=place, prefix="power-cuts-") as work:
            results[file_system], found = run(file_system, qsnap, each, work, kernel)
            different += found
    report(results, different, (datetime.datetime.now() - start).total_seconds())
    wrong = sum(n for counts in results.values() for step, c in counts.items() if step.ours and step.durable
                for verdict, n in c.items() if verdict not in ("old", "new"))
    if wrong: sys.exit(f"{wrong} states of qsnap are neither the old nor the new one.")


main()
