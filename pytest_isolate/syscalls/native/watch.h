/* Calls that are watched: a seccomp filter has the supervisor told of each that names an address, or a file. */
#ifndef PYTEST_ISOLATE_WATCH_H
#define PYTEST_ISOLATE_WATCH_H

#include <stdint.h>

enum { WATCH_NETWORK = 1, WATCH_FILES = 2 };
/* Where secrets would be: paths, each with its 0, and one more. */
enum { WATCH_HOMES_BYTES = 1024 };

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
    char homes[WATCH_HOMES_BYTES];
};

/* What our own code opens in each test's process: known by its address, it is not told of. */
extern const char isolate_own_path[];

/* In the process that enters, last of all: has no_new_privs and one thread. `watch` is 1 from then on, or minus
 * errno: nobody watches. */
void isolate_watch(int socket_fd, unsigned watched, const char *homes, int pid, volatile int32_t *watch);
/* Once more, before the process says that it has entered: what the supervisor has answered meanwhile. */
void isolate_watch_settle(void);

#endif
