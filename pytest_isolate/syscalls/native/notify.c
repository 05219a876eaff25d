#define _GNU_SOURCE
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "addresses.h"
#include "caller.h"
#include "secrets.h"
#include "sockets.h"
#include "watch.h"
#include "wire.h"

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, uint64_t)
#endif

enum { SYNC_WAKE_UP = 1, DNS_PORT = 53, DNS_HEADER_BYTES = 12, MAX_MESSAGES = 16 };
/* Of ATTEMPT_MAX_COUNTS; the others are the network's. */
enum { MAX_READS = 32, MAX_OTHERS = ATTEMPT_MAX_COUNTS - MAX_READS };

struct tally {
    uint32_t count; /* of entries */
    uint32_t reads; /* of these, of secrets */
    uint32_t more;  /* attempts that found no room */
    struct {
        uint64_t hash;
        uint32_t times;
        uint16_t query_id; /* the last one: a resolver repeats its query to each server */
        uint16_t is_local;
    } entries[ATTEMPT_MAX_COUNTS];
};

/* One attempt, as pytest is to hear of it. */
struct found {
    struct attempt attempt;
    union address address;
    size_t address_bytes;
    char payload[ATTEMPT_MAX_PAYLOAD];
    size_t payload_bytes;
    char command[ATTEMPT_MAX_COMMAND];
    int is_local; /* to a name server of the sandbox's own loopback, where there is none */
};

/* A call that was notified, while its thread waits. */
struct call {
    struct watch *watch;
    uint64_t notif_id;
    uint64_t id; /* of the sandbox */
    int up;
    struct caller caller;
};

int watch_fd(const struct watch *watch) { return watch->listener >= 0 ? watch->listener : watch->socket; }

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void watch_end(struct watch *watch) {
    close_fd(&watch->socket);
    close_fd(&watch->listener);
    close_fd(&watch->route);
    free(watch->tally);
    free(watch->homes);
    watch->tally = NULL;
    watch->homes = NULL;
}

/* ---- what the kernel says about a process -------------------------------------------------------- */

static int is_own_network(const struct call *call) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/ns/net", call->caller.tid);
    if (stat(path, &status) < 0)
        return errno == EACCES; /* of a process that nobody may look at: it entered there */
    return status.st_ino == call->watch->net_inode;
}

/* Sockets that lead to the user's own agents and to daemons that would do anything for their callers. */
static int is_agent(const struct call *call, const union address *a, size_t size) {
    static const char *const parts[] = {"docker.sock", "containerd.sock", "podman.sock", "/ssh-", "/.ssh/agent/",
                                        "S.gpg-agent", "system_bus_socket", "/keyring/"};
    char path[sizeof a->local.sun_path + 1] = {0};
    if (size <= offsetof(struct sockaddr_un, sun_path))
        return 0;
    size -= offsetof(struct sockaddr_un, sun_path);
    memcpy(path, a->local.sun_path, size < sizeof a->local.sun_path ? size : sizeof a->local.sun_path);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(path, parts[i]))
            return !has_local_socket(call->caller.tid, path);
    return 0;
}

/* ---- telling pytest ------------------------------------------------------------------------------- */

static uint64_t hash(uint64_t so_far, const void *data, size_t size) { /* FNV-1a */
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        so_far = (so_far ^ bytes[i]) * 0x100000001b3ULL;
    return so_far;
}

/* Without the ids of queries. */
static uint64_t hash_of(const struct found *found) {
    uint64_t all = hash(0xcbf29ce484222325ULL, &found->attempt, offsetof(struct attempt, address_bytes));
    if (found->attempt.act == ATTEMPT_QUERY)
        return hash(all, found->payload + 2, found->payload_bytes - 2);
    if (found->attempt.act == ATTEMPT_READ)
        return hash(all, found->payload, found->payload_bytes);
    if (found->address.any.sa_family == AF_INET6) /* without flow and scope */
        return hash(hash(all, &found->address.v6.sin6_port, 2), &found->address.v6.sin6_addr, 16);
    return hash(all, &found->address, found->address.any.sa_family == AF_INET ? 8 : found->address_bytes);
}

static int tell(const struct call *call, const struct found *found, uint32_t index) {
    struct {
        struct reply reply;
        struct attempt attempt;
        char bytes[ATTEMPT_MAX_ADDRESS + ATTEMPT_MAX_PAYLOAD + ATTEMPT_MAX_COMMAND];
    } out = {.reply = {REPLY_ATTEMPT, index, call->id, found->attempt.pid, 0}, .attempt = found->attempt};
    char *end = out.bytes;
    out.attempt.address_bytes = (uint16_t)found->address_bytes;
    out.attempt.payload_bytes = (uint16_t)found->payload_bytes;
    out.attempt.command_bytes =
        (uint16_t)read_file(call->caller.tid, "cmdline",
                            out.bytes + ATTEMPT_MAX_ADDRESS + ATTEMPT_MAX_PAYLOAD, ATTEMPT_MAX_COMMAND);
    memcpy(end, &found->address, found->address_bytes);
    memcpy(end += found->address_bytes, found->payload, found->payload_bytes);
    end += found->payload_bytes;
    memmove(end, out.bytes + ATTEMPT_MAX_ADDRESS + ATTEMPT_MAX_PAYLOAD, out.attempt.command_bytes);
    end += out.attempt.command_bytes;
    /* A pytest that does not read must not hold up the test. */
    return send_with_fds(call->up, &out, (size_t)(end - (char *)&out), NULL, 0, MSG_DONTWAIT) < 0 ? -1 : 0;
}

static void count(struct call *call, const struct found *found) {
    struct tally *tally = call->watch->tally;
    if (!tally && !(tally = call->watch->tally = calloc(1, sizeof *tally)))
        return;
    uint64_t wanted = hash_of(found);
    uint16_t query_id = 0;
    int is_query = found->attempt.act == ATTEMPT_QUERY;
    if (is_query)
        memcpy(&query_id, found->payload, sizeof query_id);
    for (uint32_t i = 0; i < tally->count; i++) {
        if (tally->entries[i].hash != wanted)
            continue;
        if (!is_query || tally->entries[i].query_id != query_id)
            tally->entries[i].times++;
        tally->entries[i].query_id = query_id;
        return;
    }
    int is_read = found->attempt.act == ATTEMPT_READ;
    int is_full = is_read ? tally->reads == MAX_READS : tally->count - tally->reads == MAX_OTHERS;
    if (is_full || tell(call, found, tally->count) < 0) {
        tally->more += !is_read; /* those are the network's */
        return;
    }
    tally->reads += (uint32_t)is_read;
    tally->entries[tally->count].hash = wanted;
    tally->entries[tally->count].times = 1;
    tally->entries[tally->count].is_local = (uint16_t)found->is_local;
    tally->entries[tally->count++].query_id = query_id;
}

void watch_tell_counts(struct watch *watch, uint64_t id, int up, int even_if_none) {
    struct tally *tally = watch->tally;
    struct {
        struct reply reply;
        uint32_t times[ATTEMPT_MAX_COUNTS];
    } out = {.reply = {REPLY_COUNTS, 0, id, 0, 0}};
    if (!even_if_none && !tally)
        return;
    if (tally) {
        out.reply.op_index = tally->count;
        out.reply.error = (int32_t)(tally->more & INT32_MAX);
        for (uint32_t i = 0; i < tally->count; i++)
            out.times[i] = tally->entries[i].times;
        memset(tally, 0, sizeof *tally);
    }
    send_with_fds(up, &out, sizeof out.reply + out.reply.op_index * sizeof *out.times, NULL, 0, 0);
}

/* ---- looking at a call ---------------------------------------------------------------------------- */

/* One question and nothing else (RFC 1035, 4.1.1). */
static int is_query(const char *payload, size_t size) {
    const unsigned char *p = (const unsigned char *)payload;
    return size > DNS_HEADER_BYTES + 4 && !(p[2] & 0xf8) && p[4] == 0 && p[5] == 1 && !p[6] && !p[7] && !p[8] && !p[9];
}

/* Whether it would leave the sandbox. */
static int leaves(const struct call *call, const union address *a, size_t size) {
    if (a->any.sa_family == AF_UNIX)
        return is_agent(call, a, size);
    return is_internet(a, size) && !is_loopback(a) && is_own_network(call) && !has_route(call->watch->route, a);
}

/* Whether a name server of the test's own answers. Until then whoever waits for it has asked in vain: no attempt. */
static int is_served(const struct call *call, int type) {
    struct tally *tally = call->watch->tally;
    if (!has_name_server(call->caller.tid, type))
        return 0;
    for (uint32_t i = 0; tally && i < tally->count; i++)
        if (tally->entries[i].is_local)
            tally->entries[i].times = 0;
    return 1;
}

static int is_local_server(const union address *a, size_t size) {
    return is_internet(a, size) && is_loopback(a) && port_of(a) == DNS_PORT;
}

/* Gives whether it is a datagram socket. */
static int name_attempt(struct call *call, struct found *found, int act, int fd_number, uint64_t flags) {
    pid_t tid = call->caller.tid;
    struct descriptor seen = look_at_descriptor(tid, fd_number);
    if (seen.kind == DESCRIPTOR_CLOSED || seen.kind == DESCRIPTOR_OTHER)
        return 0; /* the call fails with EBADF or ENOTSOCK */
    found->attempt.act = (uint16_t)act;
    find_process(tid, &found->attempt.pid, &found->attempt.inner_pid);
    found->attempt.type = seen.type;
    found->attempt.protocol = seen.protocol;
    /* A connected stream pays no regard to the address, unless it is to be connected by this. */
    int is_idle = act == ATTEMPT_SEND && seen.type == SOCK_STREAM && !(flags & MSG_FASTOPEN);
    /* Where the address cannot be read, that of a socket which does not lead out of a network is no attempt. */
    int stays = !found->address_bytes && call->caller.is_refused && (seen.domain == AF_UNIX || seen.domain == AF_NETLINK);
    /* The thread waits still: what was read was its own, and not of one that got its number. */
    if (!is_idle && !stays && ioctl(call->watch->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->notif_id) == 0)
        count(call, found);
    return seen.type == SOCK_DGRAM;
}

/* A resolver connects to its server before it asks, and would not ask if that failed: so it is told that it has
 * connected, asks, and fails then, with an unconnected socket, as quickly. Known by what glibc's does, so that
 * nobody else is lied to: connect(2) is told apart by whether it fails. */
static int look_at_connect(struct call *call, struct found *found) {
    const struct caller *caller = &call->caller;
    size_t size = caller->args[2] < sizeof found->address ? (size_t)caller->args[2] : sizeof found->address;
    found->address_bytes = read_memory(&call->caller, caller->args[1], &found->address, size);
    int fd = (int)caller->args[0];
    if (found->address_bytes < sizeof(sa_family_t))
        return 0;
    if (is_local_server(&found->address, found->address_bytes)) {
        /* getaddrinfo(3) connects to the addresses of localhost to sort them, and waits. */
        int sorts = is_localhost(&found->address) && !is_nonblocking(caller->tid, fd);
        int type = look_at_descriptor(caller->tid, fd).type;
        found->is_local = is_own_network(call) && !is_served(call, type) && !sorts;
        if (found->is_local)
            name_attempt(call, found, ATTEMPT_CONNECT, fd, 0);
        return 0;
    }
    if (!leaves(call, &found->address, found->address_bytes))
        return 0;
    int is_datagram = name_attempt(call, found, ATTEMPT_CONNECT, fd, 0);
    return is_datagram && found->address.any.sa_family != AF_UNIX && port_of(&found->address) == DNS_PORT &&
           is_nonblocking(call->caller.tid, fd);
}

/* Whether a socket without an address for what it sends asks a name server that nobody here is. */
static int asks_outside(struct call *call, struct found *found, int fd_number) {
    pid_t tid = call->caller.tid;
    union address peer = {0};
    union peer connected;
    struct descriptor seen = look_at_descriptor(tid, fd_number);
    if (seen.protocol != IPPROTO_UDP || !is_own_network(call))
        return 0;
    size_t size = find_peer(tid, &seen, &connected);
    if (!size)
        return 1; /* one that was told that it has connected */
    memcpy(&peer, &connected, size);
    found->is_local = is_local_server(&peer, size);
    return port_of(&peer) == DNS_PORT &&
           (found->is_local ? !is_served(call, seen.type) : !has_route(call->watch->route, &peer));
}

static void look_at_message(struct call *call, struct found *found, uint64_t name, size_t name_bytes,
                            uint64_t payload, size_t payload_bytes) {
    const struct caller *caller = &call->caller;
    int fd = (int)caller->args[0];
    uint64_t flags = caller->nr == SYS_sendmsg ? caller->args[2] : caller->args[3];
    found->address_bytes = found->payload_bytes = 0;
    found->is_local = 0;
    memset(&found->address, 0, sizeof found->address);
    if (payload_bytes <= sizeof found->payload)
        found->payload_bytes = read_memory(&call->caller, payload, found->payload, payload_bytes);
    int act = is_query(found->payload, found->payload_bytes) ? ATTEMPT_QUERY : ATTEMPT_SEND;
    if (name) {
        size_t size = name_bytes < sizeof found->address ? name_bytes : sizeof found->address;
        found->address_bytes = read_memory(&call->caller, name, &found->address, size);
        if (found->address_bytes < sizeof(sa_family_t))
            return;
        int is_name_server = is_internet(&found->address, found->address_bytes) &&
                             port_of(&found->address) == DNS_PORT && act == ATTEMPT_QUERY;
        if (!is_name_server) {
            act = ATTEMPT_SEND;
            found->payload_bytes = 0;
        }
        found->is_local = is_name_server && is_loopback(&found->address);
        if (found->is_local ? is_own_network(call) && !is_served(call, SOCK_DGRAM)
                            : leaves(call, &found->address, found->address_bytes))
            name_attempt(call, found, act, fd, flags);
    } else if (act == ATTEMPT_QUERY && asks_outside(call, found, fd)) {
        name_attempt(call, found, act, fd, flags);
    }
}

static void look_at_header(struct call *call, struct found *found, const struct msghdr *header) {
    struct iovec part = {0};
    if (header->msg_iovlen > 0)
        read_part(&call->caller, (uint64_t)(uintptr_t)header->msg_iov, &part);
    look_at_message(call, found, (uint64_t)(uintptr_t)header->msg_name, header->msg_namelen,
                    (uint64_t)(uintptr_t)part.iov_base, part.iov_len);
}

static void look_at_headers(struct call *call, struct found *found) {
    const struct caller *caller = &call->caller;
    struct mmsghdr headers[MAX_MESSAGES];
    size_t wanted = caller->args[2] < MAX_MESSAGES ? (size_t)caller->args[2] : MAX_MESSAGES;
    size_t got = read_headers(&call->caller, caller->args[1], headers, wanted);
    for (size_t i = 0; i < got; i++) {
        look_at_header(call, found, &headers[i].msg_hdr);
        if (found->attempt.act == ATTEMPT_QUERY)
            return; /* the others ask for the same name, and other kinds of addresses */
    }
}

/* An attempt to reach who knows whom. */
static void look_at_nothing(struct call *call) {
    const struct caller *caller = &call->caller;
    struct found found = {0};
    int fd = (int)caller->args[0], act = caller->nr == SYS_connect ? ATTEMPT_CONNECT : ATTEMPT_SEND;
    uint64_t flags = caller->nr == SYS_sendmsg ? caller->args[2] : caller->args[3];
    /* Without an address of its own it may be a query, if anything. */
    if (caller->nr == SYS_sendto && !caller->args[4] && !asks_outside(call, &found, fd))
        return;
    if (is_own_network(call))
        name_attempt(call, &found, act, fd, flags);
}

/* socket(2), which nobody without the right to it gets in the sandbox's network. */
static void look_at_socket(struct call *call, struct found *found) {
    const struct caller *caller = &call->caller;
    if (!is_own_network(call) || has_capability(caller->tid, CAP_NET_RAW))
        return;
    found->attempt.act = ATTEMPT_OPEN;
    found->attempt.type = caller->args[1] & SOCKET_TYPE;
    found->attempt.protocol = (uint16_t)caller->args[2];
    found->address.any.sa_family = (sa_family_t)caller->args[0];
    found->address_bytes = sizeof found->address.any.sa_family;
    find_process(caller->tid, &found->attempt.pid, &found->attempt.inner_pid);
    if (ioctl(call->watch->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->notif_id) == 0)
        count(call, found);
}

static void look_at_open(struct call *call, int directory_fd, uint64_t path, uint64_t flags) {
    pid_t tid = call->caller.tid;
    struct found found = {0};
    char text[ATTEMPT_MAX_PAYLOAD];
    /* O_CREAT makes what is missing, and O_PATH reads nothing. */
    if ((flags & O_ACCMODE) == O_WRONLY || flags & (O_CREAT | O_PATH))
        return;
    read_text(&call->caller, path, text, sizeof text);
    if (!*text || !call->watch->homes)
        return;
    found.payload_bytes = find_missing_secret(tid, directory_fd, text, call->watch->homes, found.payload,
                                              sizeof found.payload, &call->watch->hangs);
    if (!found.payload_bytes)
        return;
    found.attempt.act = ATTEMPT_READ;
    find_process(tid, &found.attempt.pid, &found.attempt.inner_pid);
    if (ioctl(call->watch->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->notif_id) == 0)
        count(call, &found);
}

/* Gives whether it was one of those that open a file. Of a process that nobody may look at, nobody knows which. */
static int look_at_file(struct call *call) {
    const struct caller *caller = &call->caller;
    struct open_how how;
    switch (caller->nr) {
    case SYS_openat:
        look_at_open(call, (int)caller->args[0], caller->args[1], caller->args[2]);
        return 1;
    case SYS_openat2:
        if (read_memory(&call->caller, caller->args[2], &how, sizeof how) == sizeof how)
            look_at_open(call, (int)caller->args[0], caller->args[1], how.flags);
        return 1;
    default:
        return 0;
    }
}

static int look(struct call *call) {
    const struct caller *caller = &call->caller;
    struct found found = {0};
    struct msghdr header;
    switch (caller->nr) {
    case SYS_connect:
        return look_at_connect(call, &found);
    case SYS_sendto:
        look_at_message(call, &found, caller->args[4], (size_t)caller->args[5], caller->args[1], (size_t)caller->args[2]);
        return 0;
    case SYS_sendmsg:
        if (read_header(&call->caller, caller->args[1], &header))
            look_at_header(call, &found, &header);
        return 0;
    case SYS_sendmmsg:
        look_at_headers(call, &found);
        return 0;
    case SYS_socket:
        look_at_socket(call, &found);
        return 0;
    default:
        return 0;
    }
}

/* ---- the listener --------------------------------------------------------------------------------- */

/* Whether we see of a process that enters what we will have to see of its calls: a filter around pytest may refuse
 * process_vm_readv(2), and Yama all who would look (ptrace_scope 3). 0 or errno. */
static int32_t try_to_look(struct watch *watch, const struct watch_hello *hello) {
    static int is_known; /* they all enter alike: what holds for one holds for the next */
    struct call call = {.watch = watch, .up = -1, .caller = {.tid = hello->pid}};
    uint64_t read = 0;
    if (is_known)
        return 0;
    if (read_memory(&call.caller, hello->at, &read, sizeof read) != sizeof read || read != hello->value)
        return EPERM;
    if (look_at_descriptor(hello->pid, hello->own_fd).domain != AF_UNIX || !is_own_network(&call))
        return EACCES;
    is_known = 1;
    return 0;
}

static void begin(struct watch *watch) {
    struct watch_hello hello;
    int fds[WIRE_MAX_EXPORTS];
    size_t fd_count = 0;
    uint64_t flags = SYNC_WAKE_UP; /* since Linux 6.6: both take turns on one processor */
    ssize_t got = receive_with_fds(watch->socket, &hello, sizeof hello, fds, &fd_count);
    if (got == sizeof hello && !hello.error && fd_count == 2) {
        watch->listener = fds[0];
        watch->route = fds[1];
        ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags);
        watch->net_inode = hello.net_inode;
        int32_t answer = try_to_look(watch, &hello);
        /* The listener stays all the same: without one, each call that the filter tells of would fail (ENOSYS). */
        watch->is_blind = answer != 0;
        hello.homes[sizeof hello.homes - 1] = hello.homes[sizeof hello.homes - 2] = 0;
        if ((watch->homes = malloc(sizeof hello.homes)) != NULL)
            memcpy(watch->homes, hello.homes, sizeof hello.homes);
        send(watch->socket, &answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
        while (fd_count)
            close(fds[--fd_count]);
    }
    close_fd(&watch->socket);
}

void watch_serve(struct watch *watch, uint64_t id, int up, int events) {
    union { /* the kernel's may be longer than ours, and are to be zero (seccomp_unotify(2)) */
        struct seccomp_notif notif;
        struct seccomp_notif_resp answer;
        char room[512];
    } in = {.room = {0}}, out = {.room = {0}};
    int is_file = 0;
    if (watch->listener < 0) {
        begin(watch);
        return;
    }
    if (!(events & POLLIN)) { /* the last process has ended, and poll(2) would say so for ever */
        close_fd(&watch->listener);
        return;
    }
    if (ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_RECV, &in) < 0) {
        if (errno != ENOENT && errno != EINTR) /* not only killed meanwhile: nobody is left to call */
            close_fd(&watch->listener);
        return;
    }
    struct call call = {watch, in.notif.id, id, up, find_caller(&in.notif)};
    out.answer.id = in.notif.id;
    if (watch->is_blind || (is_file = look_at_file(&call)) || !look(&call))
        out.answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (call.caller.is_refused && !watch->is_blind && !is_file)
        look_at_nothing(&call);
    ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_SEND, &out);
}
