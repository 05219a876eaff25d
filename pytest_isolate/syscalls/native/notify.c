#define _GNU_SOURCE
#include "notify.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "watch.h"
#include "wire.h"

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, uint64_t)
#endif

enum { SYNC_WAKE_UP = 1, DNS_PORT = 53, DNS_HEADER_BYTES = 12, MAX_MESSAGES = 16 };

struct tally {
    uint32_t count; /* of entries */
    uint32_t more;  /* attempts that found no room */
    struct {
        uint64_t hash;
        uint32_t times;
        uint16_t query_id; /* the last one: a resolver repeats its query to each server */
    } entries[ATTEMPT_MAX_COUNTS];
};

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
    char bytes[ATTEMPT_MAX_ADDRESS];
};

/* One attempt, as pytest is to hear of it. */
struct found {
    struct attempt attempt;
    union address address;
    size_t address_bytes;
    char payload[ATTEMPT_MAX_PAYLOAD];
    size_t payload_bytes;
    char command[ATTEMPT_MAX_COMMAND];
};

/* A call that was notified, while its thread waits. */
struct call {
    struct watch *watch;
    const struct seccomp_notif *notif;
    uint64_t id;
    int up;
    int pidfd; /* of the process; -1: not opened yet */
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
    watch->tally = NULL;
}

/* ---- what the kernel says about a process -------------------------------------------------------- */

static size_t read_memory(const struct call *call, uint64_t at, void *data, size_t size) {
    struct iovec here = {data, size}, there = {(void *)(uintptr_t)at, size};
    ssize_t got = at ? process_vm_readv((pid_t)call->notif->pid, &here, 1, &there, 1, 0) : 0;
    return got > 0 ? (size_t)got : 0;
}

static size_t read_file(pid_t pid, const char *name, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}

/* A thread's process, as we see it and as it sees itself. */
static void find_process(pid_t tid, int32_t *pid, int32_t *inner_pid) {
    char text[2048];
    *pid = *inner_pid = tid;
    read_file(tid, "status", text, sizeof text);
    const char *found = strstr(text, "\nTgid:");
    if (found)
        *pid = (int32_t)strtol(found + 6, NULL, 10);
    if ((found = strstr(text, "\nNStgid:")) != NULL) {
        char *end = (char *)found + 8;
        do
            *inner_pid = (int32_t)strtol(end, &end, 10);
        while (*end == '\t'); /* the innermost namespace is the last */
    }
}

/* A copy of the caller's descriptor, or -1 and errno. */
static int borrow(struct call *call, int32_t pid, int fd) {
    if (call->pidfd < 0)
        call->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return call->pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, call->pidfd, fd, 0); /* close-on-exec */
}

static int option(int fd, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    return fd >= 0 && getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : 0;
}

static int is_own_network(const struct call *call) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%u/ns/net", call->notif->pid);
    return stat(path, &status) == 0 && status.st_ino == call->watch->net_inode;
}

/* Somebody in the sandbox answers on the resolver's port. */
static int has_name_server(pid_t pid) {
    static const char *const names[] = {"net/udp", "net/udp6"};
    for (int i = 0; i < 2; i++) {
        char path[64], line[256];
        unsigned port;
        snprintf(path, sizeof path, "/proc/%d/%s", pid, names[i]);
        FILE *sockets = fopen(path, "re");
        int found = 0;
        while (sockets && !found && fgets(line, sizeof line, sockets))
            found = sscanf(line, " %*d: %*32[0-9A-F]:%x", &port) == 1 && port == DNS_PORT;
        if (sockets)
            fclose(sockets);
        if (found)
            return 1;
    }
    return 0;
}

/* A socket of the sandbox itself that was bound to a path which ends alike: files do not tell whose they are. */
static int has_local_socket(pid_t pid, const char *path) {
    char line[512], file[64];
    const char *name = strrchr(path, '/') ? strrchr(path, '/') : path;
    snprintf(file, sizeof file, "/proc/%d/net/unix", pid);
    FILE *sockets = fopen(file, "re");
    int found = 0;
    while (sockets && !found && fgets(line, sizeof line, sockets)) {
        line[strcspn(line, "\n")] = 0;
        const char *end = strrchr(line, '/');
        found = end && strcmp(end, name) == 0;
    }
    if (sockets)
        fclose(sockets);
    return found;
}

/* ---- addresses ----------------------------------------------------------------------------------- */

static int is_loopback_v4(uint32_t address) { return address >> 24 == 127 || address == INADDR_ANY; }

static int is_loopback(const union address *a) {
    if (a->any.sa_family == AF_INET)
        return is_loopback_v4(ntohl(a->v4.sin_addr.s_addr));
    const struct in6_addr *six = &a->v6.sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(six)) {
        uint32_t four;
        memcpy(&four, six->s6_addr + 12, sizeof four);
        return is_loopback_v4(ntohl(four));
    }
    return IN6_IS_ADDR_LOOPBACK(six) || IN6_IS_ADDR_UNSPECIFIED(six);
}

static int port_of(const union address *a) {
    return ntohs(a->any.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);
}

/* An address of the internet's protocols, all of it. */
static int is_internet(const union address *a, size_t size) {
    return (a->any.sa_family == AF_INET && size >= sizeof a->v4) ||
           (a->any.sa_family == AF_INET6 && size >= offsetof(struct sockaddr_in6, sin6_scope_id));
}

/* Whether the sandbox's own network has a way to it, as the kernel itself would go (rtnetlink(7)). */
static int has_route(const struct watch *watch, const union address *a) {
    struct {
        struct nlmsghdr header;
        struct rtmsg route;
        struct rtattr attribute;
        unsigned char destination[16];
    } ask = {0};
    union {
        struct nlmsghdr header;
        char bytes[1024];
    } answer;
    int is_mapped = a->any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr);
    int is_four = a->any.sa_family == AF_INET || is_mapped;
    size_t size = is_four ? 4 : 16;
    const void *destination = a->any.sa_family == AF_INET ? (const void *)&a->v4.sin_addr
                              : is_mapped                  ? (const void *)(a->v6.sin6_addr.s6_addr + 12)
                                                           : (const void *)&a->v6.sin6_addr;
    ask.header.nlmsg_len = (uint32_t)(offsetof(__typeof__(ask), destination) + size);
    ask.header.nlmsg_type = RTM_GETROUTE;
    ask.header.nlmsg_flags = NLM_F_REQUEST;
    ask.route.rtm_family = is_four ? AF_INET : AF_INET6;
    ask.route.rtm_dst_len = (unsigned char)(8 * size);
    ask.attribute = (struct rtattr){(unsigned short)RTA_LENGTH(size), RTA_DST};
    memcpy(ask.destination, destination, size);
    if (send(watch->route, &ask, ask.header.nlmsg_len, 0) < 0)
        return 0;
    ssize_t got = recv(watch->route, &answer, sizeof answer, MSG_DONTWAIT);
    if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct rtmsg)) || answer.header.nlmsg_type != RTM_NEWROUTE)
        return 0;
    const struct rtmsg *route = NLMSG_DATA(&answer.header);
    return route->rtm_type < RTN_BLACKHOLE;
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
            return !has_local_socket((pid_t)call->notif->pid, path);
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
        (uint16_t)read_file(found->attempt.pid, "cmdline", out.bytes + ATTEMPT_MAX_ADDRESS + ATTEMPT_MAX_PAYLOAD,
                            ATTEMPT_MAX_COMMAND);
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
    if (tally->count == ATTEMPT_MAX_COUNTS || tell(call, found, tally->count) < 0) {
        tally->more++;
        return;
    }
    tally->entries[tally->count].hash = wanted;
    tally->entries[tally->count].times = 1;
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
    return is_internet(a, size) && !is_loopback(a) && is_own_network(call) && !has_route(call->watch, a);
}

/* Gives whether the socket is one that a resolver makes: see look_at_connect. */
static int name_attempt(struct call *call, struct found *found, int act, int fd_number, uint64_t flags) {
    found->attempt.act = (uint16_t)act;
    find_process((pid_t)call->notif->pid, &found->attempt.pid, &found->attempt.inner_pid);
    int fd = borrow(call, found->attempt.pid, fd_number);
    if (fd < 0 && errno == EBADF)
        return 0;
    int is_nonblocking = fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK);
    found->attempt.type = (uint16_t)option(fd, SO_TYPE);
    found->attempt.protocol = (uint16_t)option(fd, SO_PROTOCOL);
    int is_socket = fd < 0 || found->attempt.type;
    close_fd(&fd);
    /* A connected stream pays no regard to the address, unless it is to be connected by this. */
    int is_idle = act == ATTEMPT_SEND && found->attempt.type == SOCK_STREAM && !(flags & MSG_FASTOPEN);
    /* The thread waits still: what was read was its own, and not of one that got its number. */
    if (is_socket && !is_idle && ioctl(call->watch->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->notif->id) == 0)
        count(call, found);
    return is_nonblocking && found->attempt.type == SOCK_DGRAM;
}

/* A resolver connects to its server before it asks, and would not ask if that failed: so it is told that it has
 * connected, asks, and fails then, with an unconnected socket, as quickly. Known by what glibc's does, so that
 * nobody else is lied to: connect(2) is told apart by whether it fails. */
static int look_at_connect(struct call *call, struct found *found) {
    const struct seccomp_data *data = &call->notif->data;
    size_t size = data->args[2] < sizeof found->address ? (size_t)data->args[2] : sizeof found->address;
    found->address_bytes = read_memory(call, data->args[1], &found->address, size);
    if (found->address_bytes < sizeof(sa_family_t) || !leaves(call, &found->address, found->address_bytes))
        return 0;
    int is_resolver = name_attempt(call, found, ATTEMPT_CONNECT, (int)data->args[0], 0);
    return is_resolver && found->address.any.sa_family != AF_UNIX && port_of(&found->address) == DNS_PORT;
}

/* Whether a socket without an address for what it sends asks a name server that nobody here is. */
static int asks_outside(struct call *call, int fd_number) {
    union address peer = {0};
    socklen_t size = sizeof peer;
    int32_t pid, inner_pid;
    find_process((pid_t)call->notif->pid, &pid, &inner_pid);
    int fd = borrow(call, pid, fd_number), domain = option(fd, SO_DOMAIN), answer = 0;
    if ((domain == AF_INET || domain == AF_INET6) && option(fd, SO_TYPE) == SOCK_DGRAM && is_own_network(call)) {
        if (getpeername(fd, &peer.any, &size) < 0)
            answer = errno == ENOTCONN; /* one that was told that it has connected */
        else
            answer = is_internet(&peer, size) && port_of(&peer) == DNS_PORT &&
                     (is_loopback(&peer) ? !has_name_server(pid) : !has_route(call->watch, &peer));
    }
    close_fd(&fd);
    return answer;
}

static void look_at_message(struct call *call, struct found *found, uint64_t name, size_t name_bytes,
                            uint64_t payload, size_t payload_bytes) {
    const struct seccomp_data *data = &call->notif->data;
    int fd = (int)data->args[0];
    uint64_t flags = data->nr == SYS_sendmsg ? data->args[2] : data->args[3];
    found->address_bytes = found->payload_bytes = 0;
    memset(&found->address, 0, sizeof found->address);
    if (payload_bytes <= sizeof found->payload)
        found->payload_bytes = read_memory(call, payload, found->payload, payload_bytes);
    int act = is_query(found->payload, found->payload_bytes) ? ATTEMPT_QUERY : ATTEMPT_SEND;
    if (name) {
        size_t size = name_bytes < sizeof found->address ? name_bytes : sizeof found->address;
        found->address_bytes = read_memory(call, name, &found->address, size);
        if (found->address_bytes < sizeof(sa_family_t))
            return;
        int is_name_server = is_internet(&found->address, found->address_bytes) &&
                             port_of(&found->address) == DNS_PORT && act == ATTEMPT_QUERY;
        if (!is_name_server) {
            act = ATTEMPT_SEND;
            found->payload_bytes = 0;
        }
        if (is_name_server && is_loopback(&found->address)
                ? is_own_network(call) && !has_name_server((pid_t)call->notif->pid)
                : leaves(call, &found->address, found->address_bytes))
            name_attempt(call, found, act, fd, flags);
    } else if (act == ATTEMPT_QUERY && asks_outside(call, fd)) {
        name_attempt(call, found, act, fd, flags);
    }
}

static void look_at_header(struct call *call, struct found *found, const struct msghdr *header) {
    struct iovec part = {0};
    if (header->msg_iovlen > 0)
        read_memory(call, (uint64_t)(uintptr_t)header->msg_iov, &part, sizeof part);
    look_at_message(call, found, (uint64_t)(uintptr_t)header->msg_name, header->msg_namelen,
                    (uint64_t)(uintptr_t)part.iov_base, part.iov_len);
}

static void look_at_headers(struct call *call, struct found *found) {
    const struct seccomp_data *data = &call->notif->data;
    struct mmsghdr headers[MAX_MESSAGES];
    size_t wanted = data->args[2] < MAX_MESSAGES ? (size_t)data->args[2] : MAX_MESSAGES;
    size_t got = read_memory(call, data->args[1], headers, wanted * sizeof *headers) / sizeof *headers;
    for (size_t i = 0; i < got; i++) {
        look_at_header(call, found, &headers[i].msg_hdr);
        if (found->attempt.act == ATTEMPT_QUERY)
            return; /* the others ask for the same name, and other kinds of addresses */
    }
}

static int look(struct call *call) {
    const struct seccomp_data *data = &call->notif->data;
    struct found found = {0};
    struct msghdr header;
    switch (data->nr) {
    case SYS_connect:
        return look_at_connect(call, &found);
    case SYS_sendto:
        look_at_message(call, &found, data->args[4], (size_t)data->args[5], data->args[1], (size_t)data->args[2]);
        return 0;
    case SYS_sendmsg:
        if (read_memory(call, data->args[1], &header, sizeof header) == sizeof header)
            look_at_header(call, &found, &header);
        return 0;
    case SYS_sendmmsg:
        look_at_headers(call, &found);
        return 0;
    default:
        return 0;
    }
}

/* ---- the listener --------------------------------------------------------------------------------- */

static void begin(struct watch *watch) {
    struct watch_hello hello;
    int fds[WIRE_MAX_EXPORTS];
    size_t fd_count = 0;
    uint64_t flags = SYNC_WAKE_UP; /* since Linux 6.6: both take turns on one processor */
    ssize_t got = receive_with_fds(watch->socket, &hello, sizeof hello, fds, &fd_count);
    close_fd(&watch->socket);
    if (got == sizeof hello && !hello.error && fd_count == 2) {
        watch->listener = fds[0];
        watch->route = fds[1];
        watch->net_inode = hello.net_inode;
        ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags);
    } else {
        while (fd_count)
            close(fds[--fd_count]);
    }
}

void watch_serve(struct watch *watch, uint64_t id, int up, int events) {
    union { /* the kernel's may be longer than ours, and are to be zero (seccomp_unotify(2)) */
        struct seccomp_notif notif;
        struct seccomp_notif_resp answer;
        char room[512];
    } in = {.room = {0}}, out = {.room = {0}};
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
    struct call call = {watch, &in.notif, id, up, -1};
    out.answer.id = in.notif.id;
    if (!look(&call))
        out.answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    close_fd(&call.pidfd);
    ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_SEND, &out);
}
