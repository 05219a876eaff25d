#define _GNU_SOURCE
#include "watch.h"

#include "caller.h"
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#ifdef SYS_open
#define OLD_OPEN SYS_open
#else /* of no other than x86_64 */
#define OLD_OPEN SYS_openat
#endif

enum { MIN_QUERY_BYTES = 17, MAX_QUERY_BYTES = 512, ANSWER_MS = 10000 };

/* The one message that the filter lets pass, known by its address: it hands the listener to the supervisor, and
 * nobody could answer for it before that. */
static struct msghdr handing_over;
const char isolate_own_path[] = "/proc/self/mountinfo";
/* What the supervisor is to read here. */
static uint64_t proof;
/* Where the answer comes, and goes. Nobody waits for it at once: the supervisor may be building a sandbox. */
static int pending = -1;
static volatile int32_t *pending_watch;

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_LOW(arg) LOAD(args[arg])
#define LOAD_HIGH(arg) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[arg]) + 4)
#define IF(test, value, yes, no) BPF_JUMP(BPF_JMP | (test) | BPF_K, (value), (yes), (no))
#define END(action) BPF_STMT(BPF_RET | BPF_K, (action))

static int install(unsigned watched) {
    uint64_t own = (uint64_t)(uintptr_t)&handing_over, path = (uint64_t)(uintptr_t)isolate_own_path;
    uint32_t network = watched & WATCH_NETWORK ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW;
    uint32_t files = watched & WATCH_FILES ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW;
    struct sock_filter code[] = {
        /*  0 */ LOAD(arch),
        /*  1 */ IF(BPF_JEQ, NATIVE_ARCH, 1, 0),
        /*  2 */ IF(BPF_JEQ, COMPAT_ARCH, 31, 9),
        /*  3 */ LOAD(nr),
        /*  4 */ IF(BPF_JEQ, SYS_openat, 8, 0),
        /*  5 */ IF(BPF_JEQ, SYS_openat2, 11, 0),
        /*  6 */ IF(BPF_JEQ, OLD_OPEN, 10, 0),
        /*  7 */ IF(BPF_JEQ, SYS_connect, 10, 0),
        /*  8 */ IF(BPF_JEQ, SYS_sendmmsg, 9, 0),
        /*  9 */ IF(BPF_JEQ, SYS_sendmsg, 9, 0),
        /* 10 */ IF(BPF_JEQ, SYS_sendto, 12, 0),
        /* 11 */ IF(BPF_JEQ, SYS_socket, 34, 0),
        /* 12 */ END(SECCOMP_RET_ALLOW),
        /* 13 */ LOAD_HIGH(1), /* openat */
        /* 14 */ IF(BPF_JEQ, (uint32_t)(path >> 32), 0, 2),
        /* 15 */ LOAD_LOW(1),
        /* 16 */ IF(BPF_JEQ, (uint32_t)path, 16, 0),
        /* 17 */ END(files),
        /* 18 */ END(network),
        /* 19 */ LOAD_LOW(1), /* sendmsg */
        /* 20 */ IF(BPF_JEQ, (uint32_t)own, 0, 11),
        /* 21 */ LOAD_HIGH(1),
        /* 22 */ IF(BPF_JEQ, (uint32_t)(own >> 32), 10, 9),
        /* 23 */ LOAD_LOW(4), /* sendto: with an address, or what looks like a resolver's query (glibc's send_dg) */
        /* 24 */ IF(BPF_JEQ, 0, 0, 7),
        /* 25 */ LOAD_HIGH(4),
        /* 26 */ IF(BPF_JEQ, 0, 0, 5),
        /* 27 */ LOAD_LOW(3),
        /* 28 */ IF(BPF_JEQ, MSG_NOSIGNAL, 0, 4),
        /* 29 */ LOAD_LOW(2),
        /* 30 */ IF(BPF_JGE, MIN_QUERY_BYTES, 0, 2),
        /* 31 */ IF(BPF_JGT, MAX_QUERY_BYTES, 1, 0),
        /* 32 */ END(network),
        /* 33 */ END(SECCOMP_RET_ALLOW),
        /* 34 */ LOAD(nr), /* 32 bits: of these there are few, and whoever is told looks closer */
        /* 35 */ IF(BPF_JEQ, COMPAT_OPEN, 8, 0),
        /* 36 */ IF(BPF_JEQ, COMPAT_OPENAT, 7, 0),
        /* 37 */ IF(BPF_JEQ, COMPAT_OPENAT2, 6, 0),
        /* 38 */ IF(BPF_JEQ, COMPAT_CONNECT, 6, 0),
        /* 39 */ IF(BPF_JEQ, COMPAT_SENDTO, 5, 0),
        /* 40 */ IF(BPF_JEQ, COMPAT_SENDMSG, 4, 0),
        /* 41 */ IF(BPF_JEQ, COMPAT_SENDMMSG, 3, 0),
        /* 42 */ IF(BPF_JEQ, COMPAT_SOCKETCALL, 2, 0),
        /* 43 */ END(SECCOMP_RET_ALLOW),
        /* 44 */ END(files),
        /* 45 */ END(network),
        /* 46 */ LOAD_LOW(0), /* socket: what goes past TCP and UDP, and is refused; of the others nobody is told */
        /* 47 */ IF(BPF_JEQ, AF_PACKET, 9, 0),
        /* 48 */ IF(BPF_JEQ, AF_INET, 1, 0),
        /* 49 */ IF(BPF_JEQ, AF_INET6, 0, 6),
        /* 50 */ LOAD_LOW(2),
        /* 51 */ IF(BPF_JEQ, IPPROTO_ICMP, 5, 0),
        /* 52 */ IF(BPF_JEQ, IPPROTO_ICMPV6, 4, 0),
        /* 53 */ LOAD_LOW(1),
        /* 54 */ BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SOCKET_TYPE),
        /* 55 */ IF(BPF_JEQ, SOCK_RAW, 1, 0),
        /* 56 */ END(SECCOMP_RET_ALLOW),
        /* 57 */ END(network),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    /* Before Linux 5.16 a filter would slow down all the process's code (spec_store_bypass). */
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    unsigned long wanted = flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, wanted, &program);
    if (listener < 0 && errno == EINVAL) /* before Linux 5.19 a signal has a call reported twice */
        listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return (int)listener;
}

void isolate_watch(int socket_fd, unsigned watched, const char *homes, int pid, volatile int32_t *watch) {
    struct watch_hello hello = {.at = (uint64_t)(uintptr_t)&proof, .pid = pid};
    struct stat status;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    int fds[2] = {-1, -1};
    pending = hello.own_fd = fcntl(socket_fd, F_DUPFD_CLOEXEC, 0); /* the caller closes its own */
    hello.value = proof = (uint64_t)pid; /* which no other process has there */
    memcpy(hello.homes, homes, sizeof hello.homes);
    /* EBUSY where a listener of somebody else's watches already: there is one for a tree of processes. */
    if (stat("/proc/self/ns/net", &status) < 0 ||
        (fds[1] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) < 0 || (fds[0] = install(watched)) < 0)
        hello.error = errno;
    else
        hello.net_inode = status.st_ino;
    struct iovec part = {&hello, sizeof hello};
    handing_over = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    if (!hello.error) {
        handing_over.msg_control = &control;
        handing_over.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
    }
    while (sendmsg(socket_fd, &handing_over, MSG_NOSIGNAL) < 0)
        if (errno != EINTR) { /* the supervisor is gone, and ends this process */
            hello.error = errno;
            break;
        }
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    *watch = hello.error ? -hello.error : 1;
    if (!hello.error)
        pending_watch = watch;
    else if (pending >= 0)
        close(pending);
}

void isolate_watch_settle(void) {
    struct pollfd answers = {pending, POLLIN, 0};
    int32_t answer = EIO;
    int ready;
    if (!pending_watch)
        return;
    while ((ready = poll(&answers, 1, ANSWER_MS)) < 0 && errno == EINTR) {
    }
    if (ready <= 0)
        answer = ETIMEDOUT;
    else if (recv(pending, &answer, sizeof answer, MSG_DONTWAIT) != sizeof answer)
        answer = EIO; /* the supervisor is gone, and ends this process */
    if (answer)
        *pending_watch = -answer;
    if (pending >= 0)
        close(pending);
    pending_watch = NULL;
}
