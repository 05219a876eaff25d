/* The supervisor: one small process beside each pytest that runs isolated tests.
 *
 *     pytest --socket--> supervisor --clone3--> init (PID 1 of a sandbox) <--setns-- the test
 *
 * It makes sandboxes (an init in fresh namespaces that builds the root by running a program of system
 * calls), kills them when told to, and outlives pytest by as long as it takes to leave nothing behind.
 * It is C and a process of its own for three reasons: an init must not share pytest's memory, cloning
 * from a process of 200 KiB is cheap, and it must work when Python no longer does.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "notify.h"
#include "sockets.h"
#include "wire.h"

enum { GRACE_MS = 5000, RETRY_MS = 5, HELPER_MS = 30000, HELPER_MAX_WORDS = 32, WATCHED = 3 };

struct sandbox {
    struct sandbox *next;
    uint64_t id;
    pid_t pid;
    struct watch watch;
};

struct leftover {
    struct leftover *next;
    uint32_t kind; /* REQUEST_REMEMBER_* */
    char path[];
};

static struct sandbox *sandboxes;
static struct leftover *leftovers;
static int pytest_pidfd = -1;

/* ---- init: PID 1 of a sandbox ------------------------------------------------------------------ */

struct status { /* init -> supervisor */
    enum { STATUS_READY, STATUS_FAILED, STATUS_MAP_IDS } kind;
    uint32_t op_index;
    int error;
};

ssize_t send_with_fds(int fd, const void *data, size_t size, const int *fds, size_t count, int flags) {
    char control[CMSG_SPACE(sizeof(int) * WIRE_MAX_EXPORTS)] = {0};
    struct iovec iov = {(void *)data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
    }
    ssize_t sent;
    while ((sent = sendmsg(fd, &message, MSG_NOSIGNAL | flags)) < 0 && errno == EINTR) {
    }
    return sent;
}

ssize_t receive_with_fds(int fd, void *data, size_t size, int *fds, size_t *count) {
    char control[CMSG_SPACE(sizeof(int) * WIRE_MAX_EXPORTS)];
    struct iovec iov = {data, size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got;
    while ((got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
    }
    *count = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); got >= 0 && h; h = CMSG_NXTHDR(&message, h)) {
        *count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(h), *count * sizeof(int));
    }
    return got;
}

static void reap_for_ever(void) {
    /* An init without handlers is not killed by signals from inside (pid_namespaces(7)). */
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_SETMASK, &child, NULL);
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) {
        }
        sigwaitinfo(&child, NULL);
    }
}

static void run_program(int up, const struct op *ops, uint32_t count, char *data) {
    long slots[WIRE_MAX_SLOTS] = {0};
    int exports[WIRE_MAX_EXPORTS];
    size_t exported = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct op *op = &ops[i];
        struct status status = {STATUS_FAILED, i, 0};
        if (op->number == OP_MAP_IDS || op->number == OP_MAP_IDS_BY_HELPERS) {
            status.kind = STATUS_MAP_IDS;
            send_with_fds(up, &status, sizeof status, NULL, 0, 0);
            if (recv(up, &status, sizeof status, 0) == sizeof status && status.error == 0)
                continue;
            _exit(1); /* the supervisor has told the reason */
        }
        long args[6];
        for (int a = 0; a < 6; a++)
            args[a] = op->arg_kinds[a] == ARG_DATA   ? (long)(data + op->args[a])
                      : op->arg_kinds[a] == ARG_SLOT ? slots[op->args[a] % WIRE_MAX_SLOTS]
                                                     : (long)op->args[a];
        long result = syscall(op->number, args[0], args[1], args[2], args[3], args[4], args[5]);
        if (result < 0 && errno != op->tolerated) {
            status.error = errno;
            send_with_fds(up, &status, sizeof status, NULL, 0, 0);
            _exit(1);
        }
        if (op->slot >= 0)
            slots[op->slot % WIRE_MAX_SLOTS] = result;
        if ((op->flags & OP_EXPORT) && exported < WIRE_MAX_EXPORTS)
            exports[exported++] = (int)result;
    }
    struct status ready = {STATUS_READY, count, 0};
    if (send_with_fds(up, &ready, sizeof ready, exports, exported, 0) < 0)
        _exit(1); /* the supervisor died before this one could be told to die with it */
    syscall(SYS_close_range, 0U, ~0U, 0U);
    reap_for_ever();
}

/* ---- waiting ------------------------------------------------------------------------------------ */

/* What to poll: first the caller's, then one for each sandbox that is watched. NULL without memory. */
static struct pollfd *all_to_poll(const struct pollfd *first, size_t *count) {
    static struct pollfd *polled;
    static size_t room;
    size_t wanted = WATCHED;
    for (struct sandbox *s = sandboxes; s; s = s->next)
        wanted++;
    if (wanted > room) {
        struct pollfd *grown = realloc(polled, 2 * wanted * sizeof *polled);
        if (!grown)
            return NULL;
        polled = grown;
        room = 2 * wanted;
    }
    memcpy(polled, first, WATCHED * sizeof *first);
    *count = WATCHED;
    for (struct sandbox *s = sandboxes; s; s = s->next)
        polled[(*count)++] = (struct pollfd){watch_fd(&s->watch), POLLIN, 0};
    return polled;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until one of the first WATCHED is ready, and they are what it gives; none is after `timeout_ms`, if that is not
 * -1. NULL: no memory. Calls that are watched go on meanwhile: a test must not wait for the sandbox of another. */
static const struct pollfd *wait_for(const struct pollfd *first, int timeout_ms) {
    int64_t deadline_ms = now_ms() + timeout_ms;
    for (int rest_ms = timeout_ms;;) {
        size_t count;
        struct pollfd *polled = all_to_poll(first, &count);
        if (!polled || (poll(polled, count, rest_ms) < 0 && errno != EINTR))
            return NULL;
        const struct pollfd *of_sandbox = polled + WATCHED;
        for (struct sandbox *s = sandboxes; s; s = s->next, of_sandbox++)
            if (of_sandbox->fd >= 0 && of_sandbox->revents)
                watch_serve(&s->watch, s->id, WIRE_SOCKET_FD, of_sandbox->revents);
        for (size_t i = 0; i < WATCHED; i++)
            if (polled[i].revents)
                return polled;
        /* Not only where nothing was ready: whoever is watched may have called all the time. */
        if (timeout_ms >= 0 && (rest_ms = (int)(deadline_ms - now_ms())) <= 0)
            return polled;
    }
}

/* ---- making and ending sandboxes ---------------------------------------------------------------- */

static int write_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = write(fd, text, strlen(text)) < 0 ? errno : 0;
    close(fd);
    return error;
}

static int map_ids(pid_t pid, const struct op *op, char *data) {
    /* By the supervisor, because a map of more than one id needs capabilities in the parent
     * namespace (user_namespaces(7)). */
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
    int error = write_text(path, data + op->args[0]);
    snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
    return error ? error : write_text(path, data + op->args[1]);
}

/* `program PID 0 1000 1 1 100000 65536`, for a map as /proc has it. 0 or errno. */
static int start_helper(pid_t *helper, char *program, pid_t pid, const char *map) {
    char number[16], text[512], *words[HELPER_MAX_WORDS], *rest = text;
    size_t count = 2;
    if (strlen(map) >= sizeof text)
        return E2BIG;
    strcpy(text, map);
    snprintf(number, sizeof number, "%d", pid);
    words[0] = program;
    words[1] = number;
    for (char *word; (word = strtok_r(rest, " \n", &rest));) {
        if (count == HELPER_MAX_WORDS - 1)
            return E2BIG;
        words[count++] = word;
    }
    words[count] = NULL;
    char *environment[] = {NULL};
    return posix_spawn(helper, program, NULL, NULL, words, environment);
}

/* 0, or why it did not do its work: EPERM, as it prints its own reason to nobody. */
static int await_helper(pid_t helper) {
    int status = -1, pidfd = (int)syscall(SYS_pidfd_open, helper, 0);
    const struct pollfd first[WATCHED] = {{pidfd, POLLIN, 0}, {pytest_pidfd, POLLIN, 0}, {-1, 0, 0}};
    const struct pollfd *ready = pidfd >= 0 ? wait_for(first, HELPER_MS) : NULL;
    /* It may be waiting for a name service, and pytest may be gone. */
    if (pidfd >= 0 && (!ready || !ready[0].revents))
        kill(helper, SIGKILL);
    while (waitpid(helper, &status, 0) < 0 && errno == EINTR) {
    }
    close(pidfd);
    return status == 0 ? 0 : EPERM;
}

static int map_ids_by_helpers(pid_t pid, const struct op *op, char *data) {
    /* Both at once; waited for here, before reap() may see them. */
    pid_t uid_helper, gid_helper;
    int uid_error = start_helper(&uid_helper, data + op->args[2], pid, data + op->args[0]);
    int gid_error = start_helper(&gid_helper, data + op->args[3], pid, data + op->args[1]);
    if (!uid_error)
        uid_error = await_helper(uid_helper);
    if (!gid_error)
        gid_error = await_helper(gid_helper);
    return uid_error ? uid_error : gid_error;
}

static struct reply follow_init(int init, pid_t pid, const struct request *request, const struct op *ops,
                                char *data, int *fds, size_t *fd_count) {
    struct reply reply = {REPLY_FAILED, request->op_count, request->id, pid, ECHILD};
    const struct pollfd first[WATCHED] = {{init, POLLIN, 0}, {pytest_pidfd, POLLIN, 0}, {-1, 0, 0}};
    for (;;) {
        struct status status;
        const struct pollfd *ready = wait_for(first, -1);
        if (!ready || ready[1].revents) /* pytest is gone: so is the reason to build this */
            return reply;
        if (receive_with_fds(init, &status, sizeof status, fds, fd_count) != sizeof status)
            return reply;
        reply.op_index = status.op_index;
        if (status.kind == STATUS_MAP_IDS && status.op_index < request->op_count) {
            const struct op *op = &ops[status.op_index];
            status.error = (op->number == OP_MAP_IDS ? map_ids : map_ids_by_helpers)(pid, op, data);
            if (status.error == 0) {
                send_with_fds(init, &status, sizeof status, NULL, 0, 0);
                continue;
            }
        } else if (status.kind == STATUS_READY) {
            reply.kind = REPLY_READY;
        }
        reply.error = status.error;
        return reply;
    }
}

/* clone3 in the user namespace of another process of the same user. There is no way back from one: so a process
 * of its own enters it, and makes the init a child of the supervisor (CLONE_PARENT). */
static pid_t clone_inside(pid_t inside, struct clone_args *args) {
    struct {
        pid_t pid;
        int error;
    } made = {-1, ECHILD};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -1;
    pid_t middle = fork();
    if (middle == 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/ns/user", inside);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && setns(fd, CLONE_NEWUSER) == 0) {
            args->flags |= CLONE_PARENT;
            args->exit_signal = 0; /* it is that of this process, which has SIGCHLD */
            made.pid = (pid_t)syscall(SYS_clone3, args, sizeof *args);
            if (made.pid == 0)
                return 0;
        }
        made.error = errno;
        send(ends[1], &made, sizeof made, MSG_NOSIGNAL);
        _exit(0);
    }
    close(ends[1]);
    if (middle > 0) {
        if (recv(ends[0], &made, sizeof made, 0) != sizeof made)
            made.pid = -1;
        while (waitpid(middle, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    close(ends[0]);
    errno = made.error;
    return made.pid;
}

static void create(int up, const struct request *request, const struct op *ops, char *data) {
    struct reply reply = {REPLY_FAILED, request->op_count, request->id, -1, 0};
    int fds[WIRE_MAX_EXPORTS], ends[2], watch[2] = {-1, -1};
    size_t fd_count = 0;
    struct sandbox *sandbox = malloc(sizeof *sandbox);
    if (!sandbox || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        reply.error = errno;
        free(sandbox);
        send_with_fds(up, &reply, sizeof reply, NULL, 0, 0);
        return;
    }
    struct clone_args args = {.flags = request->clone_flags, .exit_signal = SIGCHLD};
    pid_t pid = request->inside ? clone_inside((pid_t)request->inside, &args)
                                : (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        prctl(PR_SET_NAME, "isolate-init");
        signal(SIGALRM, SIG_DFL); /* see reap_for_ever */
        dup2(ends[1], WIRE_SOCKET_FD);
        syscall(SYS_close_range, (unsigned)WIRE_SOCKET_FD + 1, ~0U, 0U);
        run_program(WIRE_SOCKET_FD, ops, request->op_count, data);
    }
    reply.error = errno;
    close(ends[1]);
    if (pid > 0) {
        *sandbox = (struct sandbox){sandboxes, request->id, pid, NO_WATCH};
        sandboxes = sandbox;
        reply = follow_init(ends[0], pid, request, ops, data, fds, &fd_count);
        if (reply.kind == REPLY_READY && request->watch && fd_count < WIRE_MAX_EXPORTS) {
            if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, watch) < 0) {
                reply.kind = REPLY_FAILED;
                reply.error = errno;
                while (fd_count)
                    close(fds[--fd_count]);
            } else {
                sandbox->watch.socket = watch[0];
                fds[fd_count++] = watch[1];
            }
        }
        if (reply.kind != REPLY_READY)
            kill(pid, SIGKILL);
    } else {
        free(sandbox);
    }
    close(ends[0]);
    send_with_fds(up, &reply, sizeof reply, fds, fd_count, 0);
    for (size_t i = 0; i < fd_count; i++)
        close(fds[i]);
}

static void destroy(uint64_t id) {
    for (struct sandbox *s = sandboxes; s; s = s->next)
        if (s->id == id)
            kill(s->pid, SIGKILL);
}

/* Always answered, also for a sandbox that is gone: pytest waits. */
static void tell_counts(int up, uint64_t id) {
    struct watch none = NO_WATCH, *watch = &none;
    for (struct sandbox *s = sandboxes; s; s = s->next)
        if (s->id == id)
            watch = &s->watch;
    watch_tell_counts(watch, id, up, 1);
}

static void reap(int up) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0) {
        for (struct sandbox **s = &sandboxes; *s; s = &(*s)->next) {
            if ((*s)->pid != pid)
                continue;
            struct sandbox *gone = *s;
            struct reply reply = {REPLY_GONE, 0, gone->id, pid, 0};
            *s = gone->next;
            if (up >= 0) {
                watch_tell_counts(&gone->watch, gone->id, up, 0 /* not if there are none */);
                send_with_fds(up, &reply, sizeof reply, NULL, 0, 0);
            }
            watch_end(&gone->watch);
            free(gone);
            break;
        }
    }
}

/* ---- leaving nothing behind --------------------------------------------------------------------- */

static void sleep_ms(long ms) {
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

static void kill_members(int dir) {
    int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *members = fd < 0 ? NULL : fdopen(fd, "r");
    int pid;
    if (!members)
        return;
    while (fscanf(members, "%d", &pid) == 1)
        if (pid > 0 && pid != getpid())
            kill(pid, SIGKILL);
    fclose(members);
}

/* Depth first, below `dir` only, never through a link. The files of a cgroup directory go with it. */
static int remove_below(int dir, const char *name, uint32_t kind) {
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    int self = kind == REQUEST_REMEMBER_CGROUP ? -1 : dup(fd);
    DIR *entries = fdopendir(fd);
    for (struct dirent *e; entries && (e = readdir(entries));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        if (kind == REQUEST_REMEMBER_TREE) {
            if (unlinkat(self, e->d_name, 0) == 0 || errno != EISDIR)
                continue;
            fchmodat(self, e->d_name, 0700, 0); /* overlayfs keeps a directory of mode 000 */
        } else if (e->d_type != DT_DIR) {
            continue;
        }
        remove_below(dirfd(entries), e->d_name, kind);
    }
    if (kind == REQUEST_REMEMBER_CGROUP && entries)
        kill_members(dirfd(entries));
    if (entries)
        closedir(entries);
    if (self >= 0)
        close(self);
    return unlinkat(dir, name, AT_REMOVEDIR);
}

static void clean_up(void) {
    for (struct sandbox *s = sandboxes; s; s = s->next)
        kill(s->pid, SIGKILL);
    for (long waited = 0; sandboxes && waited < GRACE_MS; waited += RETRY_MS) {
        reap(-1);
        if (sandboxes)
            sleep_ms(RETRY_MS);
    }
    for (struct leftover *l = leftovers; l; l = l->next)
        for (long waited = 0; waited < GRACE_MS; waited += RETRY_MS) {
            if (remove_below(AT_FDCWD, l->path, l->kind) == 0 || errno == ENOENT)
                break;
            sleep_ms(RETRY_MS); /* EBUSY: members die asynchronously */
        }
}

static void remember(const struct request *request, const char *path) {
    struct leftover *l = malloc(sizeof *l + request->data_bytes + 1);
    if (!l)
        return;
    l->kind = request->kind;
    memcpy(l->path, path, request->data_bytes);
    l->path[request->data_bytes] = 0;
    l->next = leftovers;
    leftovers = l;
}

/* ---- main --------------------------------------------------------------------------------------- */

/* One request. False when pytest has closed its end or does not speak this language. */
static int serve(int up) {
    static union {
        struct request request;
        char bytes[WIRE_MAX_BYTES];
    } in;
    ssize_t got;
    while ((got = recv(up, in.bytes, sizeof in.bytes - 1, 0)) < 0 && errno == EINTR) {
    }
    size_t ops_bytes = in.request.op_count * sizeof(struct op);
    if (got < (ssize_t)sizeof in.request || in.request.op_count > WIRE_MAX_BYTES / sizeof(struct op) ||
        (size_t)got != sizeof in.request + ops_bytes + in.request.data_bytes)
        return 0;
    char *after = in.bytes + sizeof in.request;
    in.bytes[got] = 0;
    switch (in.request.kind) {
    case REQUEST_CREATE:
        create(up, &in.request, (const struct op *)after, after + ops_bytes);
        return 1;
    case REQUEST_DESTROY:
        destroy(in.request.id);
        return 1;
    case REQUEST_COUNTS:
        tell_counts(up, in.request.id);
        return 1;
    case REQUEST_REMEMBER_CGROUP:
    case REQUEST_REMEMBER_TREE:
        remember(&in.request, after);
        return 1;
    default:
        return 0;
    }
}

int main(int argc, char **argv) {
    pid_t pytest = argc > 1 ? atoi(argv[1]) : 0;
    sigset_t all, child;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL); /* pytest's end is the only end */
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    handle_alarm();
    signal(SIGCHLD, SIG_DFL); /* whoever ignores it has no exit status to wait for (wait(2)) */
    syscall(SYS_close_range, (unsigned)WIRE_SOCKET_FD + 1, ~0U, 0U);
    prctl(PR_SET_NAME, "isolate-superv");
    setsid();
    umask(0);
    if (chdir("/") < 0)
        return 1;
    int died = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    pytest_pidfd = (int)syscall(SYS_pidfd_open, pytest, 0);
    if (died < 0 || pytest_pidfd < 0 || getppid() != pytest)
        return 1;
    fcntl(WIRE_SOCKET_FD, F_SETFD, FD_CLOEXEC);
    const struct pollfd first[WATCHED] = {
        {WIRE_SOCKET_FD, POLLIN, 0}, {died, POLLIN, 0}, {pytest_pidfd, POLLIN, 0}};
    for (;;) {
        struct signalfd_siginfo drained;
        const struct pollfd *ready = wait_for(first, -1);
        if (!ready || ready[2].revents)
            break;
        if (ready[1].revents) {
            while (read(died, &drained, sizeof drained) > 0) {
            }
            reap(WIRE_SOCKET_FD);
        }
        if (ready[0].revents && !serve(WIRE_SOCKET_FD))
            break;
    }
    clean_up();
    return 0;
}
