/* The network of a sandbox, watched: a seccomp filter has the supervisor told of each call that names an address. */
#ifndef PYTEST_ISOLATE_WATCH_H
#define PYTEST_ISOLATE_WATCH_H

#include <stdint.h>

/* From a process that enters, over the socket that the supervisor has exported for it; descriptors of the
 * filter's listener and of a netlink socket of the sandbox's network namespace come along, if there is no error. */
struct watch_hello {
    uint64_t net_inode;
    int32_t error;
    uint32_t reserved;
};

/* In the process that enters, last of all: has no_new_privs and one thread. 1, or minus errno: nobody watches. */
int isolate_watch_network(int socket_fd);

#endif
