# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.
"""A machine under QEMU that runs commands on a disk of which every write and flush is logged."""
import glob, os, re, shutil, subprocess

# Where the marks are: behind the file system, which is a MiB smaller than the disk.
MARK_SECTORS = 2048


def newest():
    """The package of Debian's newest kernel for machines like this, in a list; an empty one if there is none."""
    text = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True).stdout
    return re.findall(r"Depends: (linux-image-\S+)", text)[:1]


def kernel(folder):
    """The kernel of Debian's cloud image and its modules, unpacked beside the build; fetched once."""
    def found(): return sorted(glob.glob(os.path.join(folder, "kernel/boot/vmlinuz-*")))
    if not found():
        os.makedirs(os.path.join(folder, "kernel"), exist_ok=True)
        names = newest()
        if not names:
            # A machine that never asked for packages knows none.
            subprocess.run(["apt-get", "update", "-qq"], stderr=subprocess.DEVNULL)
            names = newest()
        if not names: return None
        if subprocess.run(["apt-get", "download", "-qq", names[0]], cwd=folder, stderr=subprocess.DEVNULL).returncode:
            return None
        package = glob.glob(os.path.join(folder, names[0] + "_*.deb"))[0]
        subprocess.run(["dpkg-deb", "-x", package, os.path.join(folder, "kernel")], check=True)
    image = found()[-1]
    return image, os.path.join(folder, "kernel/lib/modules", image.split("vmlinuz-")[1])


def libraries(program):
    """The shared libraries of a program, and the loader."""
    text = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", text)))


def initramfs(work, modules, programs, script):
    """A file system in memory with a shell, the programs and the script that the machine runs."""
    root = os.path.join(work, "root")
    for name in ("bin", "proc", "sys", "dev", "mnt", "tmp", "usr/bin"): os.makedirs(os.path.join(root, name))
    shutil.copy(shutil.which("busybox"), os.path.join(root, "bin/busybox"))
    for program in programs:
        shutil.copy(program, os.path.join(root, "usr/bin", os.path.basename(program)))
        for library in libraries(program):
            target = root + library
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(library, target)
    version = os.path.basename(modules)
    shutil.copytree(modules, os.path.join(root, "lib/modules", version))
    with open(os.path.join(root, "init"), "w") as file: file.write(script)
    os.chmod(os.path.join(root, "init"), 0o755)
    path = os.path.join(work, "initramfs")
    # The modules are needed in part only, but unpacking them costs less than finding out which.
    subprocess.run(
        f"find . | cpio -o -H newc --quiet | gzip -1 > {path}", shell=True, cwd=root, check=True)
    return path


def script(file_system, steps):
    """What the machine does: between two marks each step, and at the end it goes off."""
    lines = [
        "#!/bin/busybox sh", "/bin/busybox --install -s /bin", "export PATH=/bin:/usr/bin", "mount -t proc p /proc",
        "mount -t sysfs s /sys", "mount -t devtmpfs d /dev", "depmod 2>/dev/null",
        f"for m in virtio_pci virtio_blk {file_system}; do modprobe $m 2>/dev/null; done",
        # A mark is a page behind the file system, written past the page cache.
        "mark() { printf 'mark %04d' $1 | dd of=/tmp/mark bs=4k conv=sync 2>/dev/null",
        "  dd if=/tmp/mark of=/dev/vda bs=4k count=1 seek=$((END + $1)) oflag=direct conv=notrunc 2>/dev/null; }",
        f"END=$((($(cat /sys/block/vda/size) - {MARK_SECTORS}) / 8))",
        f"mount -t {file_system} /dev/vda /mnt || echo NOT MOUNTED; cd /mnt",
    ]
    for index, step in enumerate(steps):
        lines += ["sync", f"mark {2 * index}", f"{step} >/tmp/out 2>&1; echo STEP {index} $?; head -c 300 /tmp/out",
                  f"mark {2 * index + 1}"]
    return "\n".join(lines + ["cd /", "umount /mnt", "echo DONE", "poweroff -f", ""])


def run(work, image, initrd, disk, log):
    """Runs the machine until it goes off, and returns what it said."""
    with open(log, "wb"): pass
    words = [
        "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "768", "-nographic", "-no-reboot",
        "-kernel", image, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1",
        "-blockdev", f"driver=file,filename={disk},node-name=file,cache.direct=off",
        "-blockdev", f"driver=file,filename={log},node-name=log",
        "-blockdev", "driver=blklogwrites,node-name=disk,file=file,log=log,log-sector-size=512",
        "-device", "virtio-blk-pci,drive=disk", "-monitor", "none", "-net", "none",
    ]
    result = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900, errors="replace")
    return result.stdout + result.stderr
