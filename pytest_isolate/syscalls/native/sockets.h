/* What /proc tells of another process and of its sockets, without a copy of a descriptor (pidfd_getfd(2)): whoever
 * has one may be the last to close it, and then sleeps for as long as the test has said (SO_LINGER, socket(7)), or
 * until the test's own file system answers. */
#ifndef PYTEST_ISOLATE_SOCKETS_H
#define PYTEST_ISOLATE_SOCKETS_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { SOCKET_TYPE = 0xf }; /* of the second argument of socket(2): SOCK_TYPE_MASK of linux/net.h */

struct descriptor {
    enum { DESCRIPTOR_CLOSED, DESCRIPTOR_UNKNOWN, DESCRIPTOR_OTHER, DESCRIPTOR_SOCKET } kind;
    uint16_t domain, type, protocol; /* of a socket; 0: unknown */
    unsigned long inode;
};

union peer {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Once, first of all: see look_at_descriptor. Not for the inits. */
void handle_alarm(void);
/* As the thread itself sees it: it may have a table of descriptors of its own (CLONE_FILES). */
struct descriptor look_at_descriptor(pid_t tid, int number);
int is_nonblocking(pid_t tid, int number);
/* What /proc/PID/fd says of it. Gives the size; the text ends with 0. */
size_t read_descriptor_link(pid_t tid, int number, char *text, size_t size);
/* Of a socket of UDP. Gives the size, or 0: it is not connected. */
size_t find_peer(pid_t tid, const struct descriptor *of, union peer *peer);
/* Somebody in the sandbox answers on the resolver's port. That of a stream is in a table which takes some 10 ms to read. */
int has_name_server(pid_t tid, int type);
/* A socket of the sandbox itself that was bound to a path which ends alike: files do not tell whose they are. */
int has_local_socket(pid_t tid, const char *path);

/* Gives the size; the text ends with 0. */
size_t read_file(pid_t tid, const char *name, char *text, size_t size);
int has_capability(pid_t tid, int number);
/* A thread's process, as we see it and as it sees itself. */
void find_process(pid_t tid, int32_t *pid, int32_t *inner_pid);

#endif
