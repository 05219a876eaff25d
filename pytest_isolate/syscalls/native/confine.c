#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same numbers on every architecture; headers of older systems lack them. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif

/* ---- Landlock ------------------------------------------------------------------------------------ */

enum { RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };

/* linux/landlock.h of a newer kernel than its headers may be. A kernel that knows fewer fields takes them as long
 * as they are 0. */
struct ruleset {
    uint64_t files, tcp, scoped;
};
struct path_beneath {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

int isolate_landlock_abi(void) {
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, RULESET_VERSION);
    return abi < 0 ? -errno : (int)abi;
}

/* A path that is not there, or that the caller cannot reach, cannot be written either: no rule is needed. */
static int is_harmless(int error) { return error == ENOENT || error == ENOTDIR || error == EACCES; }

static int allow(int ruleset_fd, const char *path, const struct confinement *asked) {
    struct stat status;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return is_harmless(errno) ? 0 : -1;
    int result = fstat(fd, &status);
    if (result == 0) {
        struct path_beneath rule = {S_ISDIR(status.st_mode) ? asked->in_directories : asked->in_files, fd};
        result = (int)syscall(SYS_landlock_add_rule, ruleset_fd, RULE_PATH_BENEATH, &rule, 0);
    }
    close(fd);
    return result;
}

static int restrict_self(const struct confinement *asked) {
    struct ruleset attributes = {asked->handled_files, asked->handled_tcp, asked->scoped};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
    if (fd < 0)
        return -1;
    int result = 0;
    for (const char *path = asked->writable; *path && result == 0; path += strlen(path) + 1)
        result = allow(fd, path, asked);
    if (result == 0)
        result = (int)syscall(SYS_landlock_restrict_self, fd, 0);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* ---- sockets ------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#define COMPATIBLE AUDIT_ARCH_I386
#define COMPATIBLE_SOCKET 359
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#define COMPATIBLE AUDIT_ARCH_ARM
#define COMPATIBLE_SOCKET 281
#else
#error "pytest-isolate knows x86_64 and aarch64"
#endif
enum { SOCKETCALL = 102, SOCKETCALL_SOCKET = 1, X32_BIT = 0x40000000 };

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))
#define REFUSE(error) RETURN(SECCOMP_RET_ERRNO | (error))
/* Skips so many of the following instructions if the value is another. */
#define UNLESS(value, skipped) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skipped))

/* Only sockets of Unix: a filter sees the family, and no address. io_uring opens sockets past every filter, so that
 * there is none; the addresses of programs for another architecture are their own. */
static int close_sockets(void) {
    struct sock_filter code[] = {
        LOAD(arch),
        UNLESS(NATIVE, 10),
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1),
        REFUSE(ENOSYS),
        UNLESS(SYS_io_uring_setup, 1),
        REFUSE(EPERM),
        UNLESS(SYS_socket, 3),
        LOAD(args[0]),
        UNLESS(AF_UNIX, 15),
        RETURN(SECCOMP_RET_ALLOW),
        RETURN(SECCOMP_RET_ALLOW),
        UNLESS(COMPATIBLE, 11),
        LOAD(nr),
        UNLESS(SYS_io_uring_setup, 1),
        REFUSE(EPERM),
        UNLESS(SOCKETCALL, 3),
        LOAD(args[0]),
        UNLESS(SOCKETCALL_SOCKET, 4),
        REFUSE(EACCES),
        UNLESS(COMPATIBLE_SOCKET, 2),
        LOAD(args[0]),
        UNLESS(AF_UNIX, 2),
        RETURN(SECCOMP_RET_ALLOW),
        REFUSE(ENOSYS), /* of an architecture that this one does not run */
        REFUSE(EACCES),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

int isolate_can_filter(void) {
    uint32_t action = SECCOMP_RET_ERRNO;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0 ? -errno : 0;
}

/* ---- both ---------------------------------------------------------------------------------------- */

int isolate_confine(const struct confinement *asked) {
    if (asked->uses_landlock && restrict_self(asked) < 0)
        return -1;
    return asked->closes_network ? close_sockets() : 0;
}

static int is_refused(int fd) {
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EACCES;
}

int isolate_confined(void) {
    int found = 0;
    pid_t parent = getppid();
    /* Its own name, which nothing but Landlock keeps a process from writing; opening it changes nothing. */
    if (is_refused(open("/proc/self/comm", O_WRONLY | O_CLOEXEC)))
        found |= CONFINED_FILES;
    if (is_refused(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)))
        found |= CONFINED_NETWORK;
    if (parent > 0 && kill(parent, 0) < 0 && errno == EPERM)
        found |= CONFINED_SIGNALS;
    return found;
}
