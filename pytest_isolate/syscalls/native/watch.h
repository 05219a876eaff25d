/* The network of a sandbox, watched: a seccomp filter has the supervisor told of each call that names an address. */
#ifndef PYTEST_ISOLATE_WATCH_H
#define PYTEST_ISOLATE_WATCH_H

#include <stdint.h>

/* From a process that enters, over the socket that the supervisor has exported for it; descriptors of the
 * filter's listener and of a netlink socket of the sandbox's network namespace come along, if there is no error.
 * The supervisor answers with 0 or an errno (int32_t): whether it can read `value` at `at` in the process's memory,
 * and what else it will have to look at. */
struct watch_hello {
    uint64_t net_inode, at, value;
    int32_t error;
    int32_t pid;    /* as the supervisor sees it */
    int32_t own_fd; /* the process's end of the socket, until it has the answer */
    uint32_t reserved;
};

/* In the process that enters, last of all: has no_new_privs and one thread. `watch` is 1 from then on, or minus
 * errno: nobody watches. */
void isolate_watch_network(int socket_fd, int pid, volatile int32_t *watch);
/* Once more, before the process says that it has entered: what the supervisor has answered meanwhile. */
void isolate_watch_settle(void);

#endif
