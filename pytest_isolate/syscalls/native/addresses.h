/* Addresses of sockets, as a call names them. */
#ifndef PYTEST_ISOLATE_ADDRESSES_H
#define PYTEST_ISOLATE_ADDRESSES_H

#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "wire.h"

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
    char bytes[ATTEMPT_MAX_ADDRESS];
};

/* All but the last: of one of the internet's protocols. */
int is_loopback(const union address *a);
int is_localhost(const union address *a); /* as hosts(5) has it */
int port_of(const union address *a);
/* Whether a network has a way to it, as the kernel itself would go; `netlink` is a socket there (rtnetlink(7)). */
int has_route(int netlink, const union address *a);
/* Of the internet's protocols, and all of it. */
int is_internet(const union address *a, size_t size);

#endif
