#include "addresses.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>

static int is_loopback_v4(uint32_t address) { return address >> 24 == 127 || address == INADDR_ANY; }

int is_loopback(const union address *a) {
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

int is_localhost(const union address *a) {
    if (a->any.sa_family == AF_INET)
        return ntohl(a->v4.sin_addr.s_addr) == INADDR_LOOPBACK;
    return IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

int port_of(const union address *a) {
    return ntohs(a->any.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);
}

int is_internet(const union address *a, size_t size) {
    return (a->any.sa_family == AF_INET && size >= sizeof a->v4) ||
           (a->any.sa_family == AF_INET6 && size >= offsetof(struct sockaddr_in6, sin6_scope_id));
}

int has_route(int netlink, const union address *a) {
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
    if (send(netlink, &ask, ask.header.nlmsg_len, 0) < 0)
        return 0;
    ssize_t got = recv(netlink, &answer, sizeof answer, MSG_DONTWAIT);
    if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct rtmsg)) || answer.header.nlmsg_type != RTM_NEWROUTE)
        return 0;
    const struct rtmsg *route = NLMSG_DATA(&answer.header);
    return route->rtm_type < RTN_BLACKHOLE;
}
