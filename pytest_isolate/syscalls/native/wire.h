/* What pytest and the supervisor say to each other. program.py packs the same layouts with struct;
 * tests/unit/test_wire.py holds both against each other. */
#ifndef PYTEST_ISOLATE_WIRE_H
#define PYTEST_ISOLATE_WIRE_H

#include <stdint.h>

enum { WIRE_SOCKET_FD = 3, WIRE_MAX_BYTES = 192 * 1024, WIRE_MAX_SLOTS = 128, WIRE_MAX_EXPORTS = 64 };

/* Requests, pytest -> supervisor: one datagram each. */
enum { REQUEST_CREATE = 1, REQUEST_DESTROY = 2, REQUEST_REMEMBER_CGROUP = 3, REQUEST_REMEMBER_TREE = 4, REQUEST_COUNTS = 5 };

struct request {
    uint32_t kind;
    uint32_t op_count;    /* CREATE: this many struct op follow */
    uint64_t id;          /* CREATE, DESTROY, COUNTS: pytest's name for the sandbox */
    uint64_t clone_flags; /* CREATE: namespaces of the new init */
    uint32_t data_bytes;  /* then this many bytes that the ops point into, or a path to REMEMBER */
    uint32_t watch;       /* CREATE: export a socket, last of all, that takes a listener (watch.h) */
    uint32_t inside;      /* CREATE: a process in whose user namespace it is made, or 0 */
    uint32_t unused;
};

/* Replies, supervisor -> pytest. */
enum { REPLY_READY = 1, REPLY_FAILED = 2, REPLY_GONE = 3, REPLY_ATTEMPT = 4, REPLY_COUNTS = 5 };

struct reply {
    uint32_t kind;
    uint32_t op_index; /* FAILED: which op; ATTEMPT: its place among the counts; COUNTS: how many follow (uint32_t) */
    uint64_t id;
    int32_t pid;   /* READY: of the sandbox's init, as the host sees it; exported descriptors come along */
    int32_t error; /* FAILED: errno; an op_index of op_count means clone3 itself;
                      COUNTS: so many more attempts */
};

/* Follows a reply ATTEMPT, and after it the bytes that it counts. */
enum { ATTEMPT_CONNECT = 1, ATTEMPT_SEND = 2, ATTEMPT_QUERY = 3, ATTEMPT_READ = 4, ATTEMPT_OPEN = 5 };
enum { ATTEMPT_MAX_ADDRESS = 128, ATTEMPT_MAX_PAYLOAD = 512, ATTEMPT_MAX_COMMAND = 256, ATTEMPT_MAX_COUNTS = 96 };

struct attempt {
    int32_t pid, inner_pid; /* of the process, as the host and as the sandbox see it */
    uint16_t act;
    uint16_t type, protocol; /* of the socket; 0: unknown */
    uint16_t address_bytes;  /* struct sockaddr; OPEN: its family alone */
    uint16_t payload_bytes;  /* QUERY: the message; READ: the path */
    uint16_t command_bytes;  /* as /proc/PID/cmdline has it */
};

/* One system call of a program. A program is data: the init of a sandbox runs it, top to bottom. */
enum { OP_EXPORT = 1 }; /* the result is a descriptor that pytest gets */
enum { ARG_VALUE = 0, ARG_DATA = 1, ARG_SLOT = 2 };
/* Not calls. The supervisor writes uid_map (arg 0) and gid_map (arg 1), or has the programs newuidmap (arg 2)
 * and newgidmap (arg 3) do it. */
enum { OP_MAP_IDS = 0x10000, OP_MAP_IDS_BY_HELPERS = 0x10001 };

struct op {
    uint32_t number;
    uint32_t flags;
    int32_t tolerated; /* an errno that does not end the program, or 0 */
    int32_t slot;      /* where the result is kept for later ops, or -1 */
    uint64_t args[6];
    uint8_t arg_kinds[8];
};

/* What the init of a container (init.c) says to pytest, beside a descriptor of itself and one of the test. */
enum { CONTAINER_UP = 1, CONTAINER_DOWN = 2, CONTAINER_MAX_FDS = 32 };

struct container_status {
    uint32_t kind;
    int32_t wait_status; /* DOWN, and the rest: the test's, as wait4(2) tells it */
    uint64_t user_us, system_us, peak_rss_kib, minor_faults, major_faults, context_switches, blocks_in, blocks_out;
};

#endif
