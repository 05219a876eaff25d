/* The supervisor's part of watching sandboxes: it is told of calls before they are made, tells pytest of those that
 * would leave the sandbox or read a secret, and lets them go on. It enforces nothing: a thread could change the
 * address or the path afterwards (seccomp_unotify(2)). The namespaces do. */
#ifndef PYTEST_ISOLATE_NOTIFY_H
#define PYTEST_ISOLATE_NOTIFY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tally; /* what pytest was told of */

struct watch {
    int socket;   /* whoever enters sends its listener; -1: nobody is to, or it has */
    int listener; /* or -1 */
    int route;    /* netlink, in the sandbox's network namespace */
    int is_blind; /* what it would have to read is refused: it lets all go on, and pytest knows */
    uint64_t net_inode;
    struct tally *tally;
    char *homes; /* see watch.h */
    int hangs;   /* a look at a secret did: there is no other */
};
#define NO_WATCH (struct watch){.socket = -1, .listener = -1, .route = -1}

/* Gives the descriptor to poll, or -1. */
int watch_fd(const struct watch *watch);
/* It is readable, or hung up: `events` of poll(2). */
void watch_serve(struct watch *watch, uint64_t id, int up, int events);
/* Tell pytest how often each attempt was made that it was told of since the last time. */
void watch_tell_counts(struct watch *watch, uint64_t id, int up, int even_if_none);
void watch_end(struct watch *watch);

/* In supervisor.c. */
ssize_t send_with_fds(int fd, const void *data, size_t size, const int *fds, size_t count, int flags);
ssize_t receive_with_fds(int fd, void *data, size_t size, int *fds, size_t *count);

#endif
