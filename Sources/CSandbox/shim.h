// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

// What Swift can't call: prctl and syscall are variadic, and a seccomp filter is a table of macros. Functions return 0
// or a descriptor, or the error number negated. Nothing here allocates or keeps anything.

#ifndef QSNAP_SANDBOX_SHIM_H
#define QSNAP_SANDBOX_SHIM_H

#if defined(__linux__)

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define QSNAP_AUDIT_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define QSNAP_AUDIT_ARCH AUDIT_ARCH_AARCH64
#endif

/// No program started later gets more rights than this process: what both kinds of jail need.
static inline int qsnap_no_new_privileges(void) {
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : -errno;
}

// Landlock, by numbers, so that old headers do. Rights: execute, write_file, read_file, read_dir, remove_dir, ...
#define QSNAP_LANDLOCK_CREATE 444
#define QSNAP_LANDLOCK_ADD 445
#define QSNAP_LANDLOCK_RESTRICT 446
#define QSNAP_LANDLOCK_READ_FILE (1ULL << 2)

struct qsnap_landlock_ruleset {
    uint64_t handled_access_fs, handled_access_net, scoped;
};

struct qsnap_landlock_path {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

/// A set of rules that allows nothing yet, of all that the kernel can forbid; -ENOSYS or -EOPNOTSUPP without Landlock.
static inline int qsnap_landlock_create(void) {
    long version = syscall(QSNAP_LANDLOCK_CREATE, NULL, 0, 1);
    if (version < 0) return -errno;
    struct qsnap_landlock_ruleset rules = {(1ULL << 13) - 1, 0, 0};
    size_t size = 8;
    if (version >= 2) rules.handled_access_fs |= 1ULL << 13;  // link and rename into other directories
    if (version >= 3) rules.handled_access_fs |= 1ULL << 14;  // truncate
    if (version >= 4) rules.handled_access_net = 3, size = 16;  // TCP: bind, connect
    if (version >= 6) rules.scoped = 3, size = 24;  // abstract sockets, signals
    long descriptor = syscall(QSNAP_LANDLOCK_CREATE, &rules, size, 0);
    return descriptor < 0 ? -errno : (int)descriptor;
}

/// Allows reading a file, or what is in a directory.
static inline int qsnap_landlock_allow_reading(int ruleset, const char *path) {
    int parent = open(path, O_PATH | O_CLOEXEC);
    if (parent < 0) return -errno;
    struct qsnap_landlock_path rule = {QSNAP_LANDLOCK_READ_FILE, parent};
    int error = syscall(QSNAP_LANDLOCK_ADD, ruleset, 1, &rule, 0) == 0 ? 0 : -errno;
    close(parent);
    return error;
}

/// Puts the rules into force for this thread and those that it starts, and closes them.
static inline int qsnap_landlock_enforce(int ruleset) {
    int error = syscall(QSNAP_LANDLOCK_RESTRICT, ruleset, 0) == 0 ? 0 : -errno;
    close(ruleset);
    return error;
}

#ifdef QSNAP_AUDIT_ARCH

#define QSNAP_REFUSE(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
// Refuses one system call; the next statement looks at the same number.
#define QSNAP_DENY(call, error) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), QSNAP_REFUSE(error),
#define QSNAP_ARGUMENT(index) \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (index))
// Flags of an open that isn't for reading alone, and what becomes of one that is.
#define QSNAP_WRITES (O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND)
#define QSNAP_OPENED BPF_STMT(BPF_RET | BPF_K, may_open ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EACCES)
#define QSNAP_NUMBER BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))

/// Refuses programs, sockets, other processes, changes of any file system, and whatever opens a file: all of it, or
/// with `may_open` all but openat for reading.
static inline int qsnap_seccomp(int may_open) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, QSNAP_AUDIT_ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        QSNAP_NUMBER,
#if defined(__x86_64__)
        // The calls of the x32 interface have this bit.
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1), QSNAP_REFUSE(EPERM),
#endif
        // Programs and processes. clone3 hides its flags behind a pointer; the C library falls back to clone.
        QSNAP_DENY(__NR_execve, EPERM) QSNAP_DENY(__NR_execveat, EPERM) QSNAP_DENY(__NR_ptrace, EPERM)
        QSNAP_DENY(__NR_process_vm_readv, EPERM) QSNAP_DENY(__NR_process_vm_writev, EPERM)
        QSNAP_DENY(__NR_kill, EPERM) QSNAP_DENY(435 /* clone3 */, ENOSYS) QSNAP_DENY(424 /* pidfd_send_signal */, EPERM)
        QSNAP_DENY(434 /* pidfd_open */, EPERM) QSNAP_DENY(438 /* pidfd_getfd */, EPERM)
#ifdef __NR_fork
        QSNAP_DENY(__NR_fork, EPERM) QSNAP_DENY(__NR_vfork, EPERM)
#endif
        // Sockets.
        QSNAP_DENY(__NR_socket, EPERM) QSNAP_DENY(__NR_socketpair, EPERM) QSNAP_DENY(__NR_connect, EPERM)
        QSNAP_DENY(__NR_bind, EPERM) QSNAP_DENY(__NR_listen, EPERM) QSNAP_DENY(__NR_accept4, EPERM)
        // Other ways into the kernel, and what would do all of this without a system call of its own.
        QSNAP_DENY(425 /* io_uring_setup */, EPERM) QSNAP_DENY(__NR_bpf, EPERM) QSNAP_DENY(__NR_perf_event_open, EPERM)
        QSNAP_DENY(__NR_userfaultfd, EPERM) QSNAP_DENY(__NR_keyctl, EPERM) QSNAP_DENY(__NR_add_key, EPERM)
        QSNAP_DENY(__NR_request_key, EPERM) QSNAP_DENY(__NR_init_module, EPERM) QSNAP_DENY(__NR_finit_module, EPERM)
        QSNAP_DENY(__NR_delete_module, EPERM) QSNAP_DENY(__NR_kexec_load, EPERM) QSNAP_DENY(__NR_reboot, EPERM)
        QSNAP_DENY(__NR_unshare, EPERM) QSNAP_DENY(__NR_setns, EPERM) QSNAP_DENY(__NR_mount, EPERM)
        QSNAP_DENY(__NR_umount2, EPERM) QSNAP_DENY(__NR_pivot_root, EPERM) QSNAP_DENY(__NR_chroot, EPERM)
        QSNAP_DENY(428 /* open_tree */, EPERM) QSNAP_DENY(429 /* move_mount */, EPERM)
        QSNAP_DENY(430 /* fsopen */, EPERM) QSNAP_DENY(433 /* fspick */, EPERM)
        QSNAP_DENY(442 /* mount_setattr */, EPERM)
        // Changes by path.
        QSNAP_DENY(__NR_unlinkat, EPERM) QSNAP_DENY(__NR_renameat2, EPERM) QSNAP_DENY(__NR_mkdirat, EPERM)
        QSNAP_DENY(__NR_linkat, EPERM) QSNAP_DENY(__NR_symlinkat, EPERM) QSNAP_DENY(__NR_mknodat, EPERM)
        QSNAP_DENY(__NR_fchmodat, EPERM) QSNAP_DENY(__NR_fchownat, EPERM) QSNAP_DENY(__NR_truncate, EPERM)
        QSNAP_DENY(__NR_utimensat, EPERM) QSNAP_DENY(__NR_setxattr, EPERM) QSNAP_DENY(__NR_lsetxattr, EPERM)
        QSNAP_DENY(__NR_removexattr, EPERM) QSNAP_DENY(__NR_lremovexattr, EPERM)
        QSNAP_DENY(452 /* fchmodat2 */, EPERM)
#ifdef __NR_renameat
        QSNAP_DENY(__NR_renameat, EPERM)
#endif
#ifdef __NR_unlink
        QSNAP_DENY(__NR_unlink, EPERM) QSNAP_DENY(__NR_rename, EPERM) QSNAP_DENY(__NR_mkdir, EPERM)
        QSNAP_DENY(__NR_rmdir, EPERM) QSNAP_DENY(__NR_link, EPERM) QSNAP_DENY(__NR_symlink, EPERM)
        QSNAP_DENY(__NR_mknod, EPERM) QSNAP_DENY(__NR_chmod, EPERM) QSNAP_DENY(__NR_chown, EPERM)
        QSNAP_DENY(__NR_lchown, EPERM) QSNAP_DENY(__NR_utime, EPERM) QSNAP_DENY(__NR_utimes, EPERM)
        QSNAP_DENY(__NR_futimesat, EPERM) QSNAP_DENY(__NR_accept, EPERM) QSNAP_DENY(__NR_creat, EACCES)
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_open, 0, 4), QSNAP_ARGUMENT(1),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, QSNAP_WRITES, 0, 1), QSNAP_REFUSE(EACCES), QSNAP_OPENED,
#endif
        QSNAP_DENY(__NR_open_by_handle_at, EACCES)
        // Its flags are behind a pointer, too; ENOSYS makes callers fall back to openat.
        QSNAP_DENY(437 /* openat2 */, ENOSYS)
        // Characters pushed into the terminal's input would be commands.
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_ioctl, 0, 4), QSNAP_ARGUMENT(1),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x5412 /* TIOCSTI */, 0, 1), QSNAP_REFUSE(EPERM), QSNAP_NUMBER,
        // New processes: threads share the memory.
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone, 0, 4), QSNAP_ARGUMENT(0),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x10000 /* CLONE_THREAD */, 1, 0), QSNAP_REFUSE(EPERM), QSNAP_NUMBER,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 1, 0), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        QSNAP_ARGUMENT(2),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, QSNAP_WRITES, 0, 1), QSNAP_REFUSE(EACCES), QSNAP_OPENED,
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0 ? 0 : -errno;
}

#else

static inline int qsnap_seccomp(int may_open) {
    (void)may_open;
    return -ENOSYS;
}

#endif

/// Tries to start a program, for tests of the jail; returns the error number negated.
static inline int qsnap_try_program(void) {
    char *const words[] = {(char *)"/bin/true", NULL};
    syscall(SYS_execve, words[0], words, NULL);
    return -errno;
}

/// Tries to start a process, for tests of the jail; one that starts ends at once.
static inline int qsnap_try_fork(void) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    return child;
}

#endif
#endif
