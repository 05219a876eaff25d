#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

enum { DNS_PORT = 53, LOOK_MS = 100, AGAIN_MS = 10 };

size_t read_file(pid_t tid, const char *name, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", tid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}

void find_process(pid_t tid, int32_t *pid, int32_t *inner_pid) {
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

int has_capability(pid_t tid, int number) {
    char text[2048];
    read_file(tid, "status", text, sizeof text);
    const char *found = strstr(text, "\nCapEff:");
    return found && strtoull(found + 8, NULL, 16) >> number & 1;
}

/* ---- an alarm ------------------------------------------------------------------------------------ */

static void ignore(int number) { (void)number; }

void handle_alarm(void) {
    struct sigaction action = {.sa_handler = ignore}; /* ignored in earnest, it would interrupt nothing */
    sigaction(SIGALRM, &action, NULL);
}

/* To follow /proc/PID/fd the kernel itself takes the file for a moment (proc_fd_link, since Linux 5.11), and if the
 * test closes it in that moment we are the last to: a signal ends that sleep. All are blocked but now. */
static void set_alarm(int on) {
    struct itimerval when = {{0, on * AGAIN_MS * 1000}, {0, on * LOOK_MS * 1000}};
    sigset_t alarm_only;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    setitimer(ITIMER_REAL, &when, NULL);
    sigprocmask(on ? SIG_UNBLOCK : SIG_BLOCK, &alarm_only, NULL);
}

/* ---- tables of sockets --------------------------------------------------------------------------- */

struct row {
    char peer[33];
    unsigned port, peer_port;
    unsigned long inode;
};

/* Of /proc/PID/net/udp and its like. They have no socket that has neither a port nor a peer. */
static FILE *open_table(pid_t tid, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/net/%s", tid, name);
    return fopen(path, "re");
}

static int next_row(FILE *table, struct row *row) {
    char line[256];
    while (table && fgets(line, sizeof line, table))
        if (sscanf(line, " %*d: %*32[0-9A-F]:%x %32[0-9A-F]:%x %*x %*x:%*x %*x:%*x %*x %*u %*d %lu", &row->port,
                   row->peer, &row->peer_port, &row->inode) == 4)
            return 1;
    return 0;
}

static int find_row(pid_t tid, const char *name, unsigned long inode, struct row *row) {
    FILE *table = open_table(tid, name);
    int found = 0;
    while (!found && next_row(table, row))
        found = row->inode == inode;
    if (table)
        fclose(table);
    return found;
}

size_t find_peer(pid_t tid, const struct descriptor *of, union peer *peer) {
    struct row row;
    memset(peer, 0, sizeof *peer);
    if (!find_row(tid, of->domain == AF_INET6 ? "udp6" : "udp", of->inode, &row) || !row.peer_port)
        return 0;
    unsigned words[4] = {0}; /* each as this machine has it in memory */
    int count = sscanf(row.peer, "%8x%8x%8x%8x", &words[0], &words[1], &words[2], &words[3]);
    if (count == 4) {
        peer->v6.sin6_family = AF_INET6;
        peer->v6.sin6_port = htons((uint16_t)row.peer_port);
        memcpy(&peer->v6.sin6_addr, words, sizeof peer->v6.sin6_addr);
        return sizeof peer->v6;
    }
    peer->v4.sin_family = AF_INET;
    peer->v4.sin_port = htons((uint16_t)row.peer_port);
    peer->v4.sin_addr.s_addr = words[0];
    return sizeof peer->v4;
}

int has_name_server(pid_t tid, int type) {
    static const char *const names[2][2] = {{"udp", "udp6"}, {"tcp", "tcp6"}};
    int found = 0;
    for (int i = 0; i < 2 && !found; i++) {
        FILE *table = open_table(tid, names[type == SOCK_STREAM][i]);
        struct row row;
        while (!found && next_row(table, &row))
            found = row.port == DNS_PORT;
        if (table)
            fclose(table);
    }
    return found;
}

int has_local_socket(pid_t tid, const char *path) {
    char line[512];
    const char *name = strrchr(path, '/') ? strrchr(path, '/') : path;
    FILE *sockets = open_table(tid, "unix");
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

/* ---- descriptors --------------------------------------------------------------------------------- */

/* By the name of its protocol, which is what the kernel tells of a socket that is in no table yet. */
static void read_name(pid_t tid, struct descriptor *of, const char *name) {
    static const struct {
        const char *name;
        uint16_t domain, type, protocol;
    } known[] = {
        {"TCP", AF_INET, SOCK_STREAM, IPPROTO_TCP},   {"MPTCP", AF_INET, SOCK_STREAM, IPPROTO_MPTCP},
        {"SMC", AF_INET, SOCK_STREAM, 0},             {"UDP", AF_INET, SOCK_DGRAM, IPPROTO_UDP},
        {"UDP-Lite", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE}, {"UDPLITE", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE},
        {"PING", AF_INET, SOCK_DGRAM, IPPROTO_ICMP},  {"RAW", AF_INET, SOCK_RAW, 0},
        {"UNIX-STREAM", AF_UNIX, SOCK_STREAM, 0},     {"UNIX", AF_UNIX, 0, 0},
        {"NETLINK", AF_NETLINK, 0, 0},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t size = strlen(known[i].name);
        const char *rest = name + size;
        if (strncmp(name, known[i].name, size) != 0 || (*rest && strcmp(rest, "v6") != 0 && strcmp(rest, "6") != 0))
            continue;
        of->domain = *rest ? AF_INET6 : known[i].domain;
        of->type = known[i].type;
        of->protocol = known[i].protocol;
        struct row row;
        if (of->type == SOCK_RAW && find_row(tid, *rest ? "raw6" : "raw", of->inode, &row))
            of->protocol = (uint16_t)row.port; /* which raw sockets have in its place */
        return;
    }
}

static struct descriptor describe(pid_t tid, int number) {
    struct descriptor found = {.kind = DESCRIPTOR_OTHER};
    char path[64], text[64] = {0};
    snprintf(path, sizeof path, "/proc/%d/fd/%d", tid, number);
    /* O_PATH holds a name, and not the file: what is asked of it next is asked of one and the same, and a file
     * system of the test's is asked for nothing. */
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) {
        found.kind = errno == ENOENT ? DESCRIPTOR_CLOSED : DESCRIPTOR_UNKNOWN;
        return found;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (readlink(path, text, sizeof text - 1) > 0 && sscanf(text, "socket:[%lu]", &found.inode) == 1) {
        found.kind = DESCRIPTOR_SOCKET;
        /* Since Linux 3.7, and no restrictions (sockfs_xattr_get in net/socket.c). */
        if (getxattr(path, "system.sockprotoname", text, sizeof text) > 0)
            read_name(tid, &found, text);
    }
    close(fd);
    return found;
}

struct descriptor look_at_descriptor(pid_t tid, int number) {
    set_alarm(1);
    struct descriptor found = describe(tid, number);
    set_alarm(0);
    return found;
}

int is_nonblocking(pid_t tid, int number) {
    char name[32], text[256];
    snprintf(name, sizeof name, "fdinfo/%d", number);
    set_alarm(1);
    read_file(tid, name, text, sizeof text);
    set_alarm(0);
    const char *flags = strstr(text, "flags:");
    return flags && strtol(flags + 6, NULL, 8) & O_NONBLOCK;
}

size_t read_descriptor_link(pid_t tid, int number, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", tid, number);
    set_alarm(1);
    ssize_t got = readlink(path, text, size - 1);
    set_alarm(0);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}
