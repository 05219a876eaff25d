/* PID 1 of a container that an OCI runtime has made: it starts the test as another process, and reaps.
 *
 *     isolate-init UID GID -- COMMAND…                    by hand: ends when the command does, with its status
 *     isolate-init UID GID STATUS_FD BOX_FD -- COMMAND…   for pytest, at the other end of STATUS_FD; in the box, a
 *                                                         socket, are the command's 0, 1 that is 2 too, 3, 4…
 *
 * Without privileges runc maps the caller to root or not at all: where UID is another, the command gets a user
 * namespace in which it is the caller again. Descriptors come in a box because the runtime keeps all that it hands on: pytest would never see one closed.
 *
 * A test that is PID 1 itself would not die of signals that it sends to itself (pid_namespaces(7)). It is linked
 * statically: it runs in whatever root the test asked for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wire.h"

enum { NOT_STARTED = 127 }; /* as a shell says it */

static int status_fd = -1;

/* The test, before it is the test: pytest gets handles of it and of the init, and says when to go on. */
static void report_up(void) {
    struct container_status up = {.kind = CONTAINER_UP};
    int fds[2] = {(int)syscall(SYS_pidfd_open, 1, 0), (int)syscall(SYS_pidfd_open, getpid(), 0)};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control = {0};
    struct iovec part = {&up, sizeof up};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
    char go;
    if (fds[0] < 0 || fds[1] < 0 || sendmsg(status_fd, &message, MSG_NOSIGNAL) < 0 ||
        recv(status_fd, &go, sizeof go, 0) != sizeof go)
        _exit(NOT_STARTED);
    close(fds[0]);
    close(fds[1]);
    close(status_fd);
}

static void report_down(int status, const struct rusage *used) {
    struct container_status down = {
        .kind = CONTAINER_DOWN,
        .wait_status = status,
        .user_us = (uint64_t)used->ru_utime.tv_sec * 1000000 + (uint64_t)used->ru_utime.tv_usec,
        .system_us = (uint64_t)used->ru_stime.tv_sec * 1000000 + (uint64_t)used->ru_stime.tv_usec,
        .peak_rss_kib = (uint64_t)used->ru_maxrss,
        .minor_faults = (uint64_t)used->ru_minflt,
        .major_faults = (uint64_t)used->ru_majflt,
        .context_switches = (uint64_t)(used->ru_nvcsw + used->ru_nivcsw),
        .blocks_in = (uint64_t)used->ru_inblock,
        .blocks_out = (uint64_t)used->ru_oublock,
    };
    send(status_fd, &down, sizeof down, MSG_NOSIGNAL);
}

/* In place of the runtime's own 0 to 2, which are pipes that it copies from: it is stopped by now. */
static int unpack(int box_fd) {
    int fds[CONTAINER_MAX_FDS];
    char byte, control[CMSG_SPACE(sizeof fds)];
    struct iovec part = {&byte, sizeof byte};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(box_fd, &message, 0) != sizeof byte)
        return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int count = header ? (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
    memcpy(fds, CMSG_DATA(header), (size_t)count * sizeof(int));
    close(box_fd);
    for (int i = 0; i < count; i++) { /* out of each other's way */
        int beyond = fcntl(fds[i], F_DUPFD, count + 1);
        close(fds[i]);
        fds[i] = beyond;
    }
    for (int i = 0; i < count; i++) {
        if (dup2(fds[i], i < 2 ? i : i + 1) < 0)
            return -1;
        close(fds[i]);
    }
    return dup2(1, 2);
}

static int write_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int result = fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;
    close(fd);
    return result;
}

static int be(unsigned uid, unsigned gid) {
    char map[64];
    if (uid == getuid() && gid == getgid())
        return 0;
    unsigned outer_uid = getuid(), outer_gid = getgid();
    if (unshare(CLONE_NEWUSER) < 0 || write_text("/proc/self/setgroups", "deny") < 0)
        return -1;
    snprintf(map, sizeof map, "%u %u 1", uid, outer_uid);
    if (write_text("/proc/self/uid_map", map) < 0)
        return -1;
    snprintf(map, sizeof map, "%u %u 1", gid, outer_gid);
    if (write_text("/proc/self/gid_map", map) < 0)
        return -1;
    /* The namespace has given it all of them; the rest goes with the exec. EINVAL: past the last one. */
    for (int capability = 0; capability < 64; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EINVAL)
            return -1;
    return 0;
}

static void become(char **argv, char **command, int box_fd, const sigset_t *mask) {
    if (be((unsigned)atol(argv[1]), (unsigned)atol(argv[2])) < 0) {
        perror("isolate-init: cannot be the caller in a user namespace");
        _exit(NOT_STARTED);
    }
    if (status_fd >= 0) {
        report_up();
        if (unpack(box_fd) < 0)
            _exit(NOT_STARTED);
    }
    sigprocmask(SIG_SETMASK, mask, NULL);
    execv(command[0], command);
    fprintf(stderr, "%s: %s\n", command[0], strerror(errno));
    _exit(NOT_STARTED);
}

static void reap(pid_t test) {
    for (;;) {
        int status;
        struct rusage used;
        pid_t pid = wait4(-1, &status, __WALL, &used);
        if (pid < 0 && errno == ECHILD)
            pause(); /* nobody is left whom it could inherit; pytest ends it */
        if (pid != test)
            continue;
        if (status_fd < 0)
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        report_down(status, &used);
        if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_STARTED)
            _exit(NOT_STARTED); /* and with it the runtime, which passes on what was said */
    }
}

int main(int argc, char **argv) {
    int at = 1, box_fd = -1;
    while (at < argc && strcmp(argv[at], "--") != 0)
        at++;
    if (argc - at < 2 || (at != 3 && at != 5) || getpid() != 1) {
        fprintf(stderr, "usage, as PID 1: isolate-init UID GID [STATUS_FD BOX_FD] -- COMMAND...\n");
        return 2;
    }
    if (at == 5) {
        status_fd = atoi(argv[3]);
        box_fd = atoi(argv[4]);
    }
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before); /* signals are for the test, Ctrl-C among them */
    pid_t test = fork();
    if (test < 0)
        return NOT_STARTED;
    if (test == 0)
        become(argv, argv + at + 1, box_fd, &before);
    /* Who holds a descriptor of the test's keeps it from ending. */
    for (int fd = 0; fd < 3; fd++)
        if (fd != status_fd)
            close(fd);
    syscall(SYS_close_range, 3U, (unsigned)(status_fd > 3 ? status_fd - 1 : 2), 0U);
    syscall(SYS_close_range, (unsigned)(status_fd >= 3 ? status_fd + 1 : 3), ~0U, 0U);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    syscall(SYS_capset, &header, none);
    prctl(PR_SET_NAME, "isolate-init");
    prctl(PR_SET_DUMPABLE, 0); /* none of the test may trace it or read its memory (ptrace(2)) */
    reap(test);
}
