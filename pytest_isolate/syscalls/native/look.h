/* What a process has around it, for comparing before and after a test. In Python this would copy some
 * hundred pages of memory in each child. */
#ifndef PYTEST_ISOLATE_LOOK_H
#define PYTEST_ISOLATE_LOOK_H

#include <stdint.h>

enum { LOOK_DESCRIPTORS = 1024, LOOK_SIGNALS = 64, LOOK_USES = 64, LOOK_OWN = 16 };

struct process_state {
    uint64_t locale; /* a hash of setlocale(3)'s name */
    int32_t umask;
    unsigned char signals[LOOK_SIGNALS]; /* by number - 1: 0 is SIG_DFL, 1 SIG_IGN, 2 a function */
};

/* A descriptor that tells whether it was used: of a file that has a name, or of a TCP socket. */
struct descriptor_use {
    int32_t fd;
    int32_t is_own; /* in that case of whatever it is */
    uint64_t device, inode;
    uint64_t use; /* the position in the file; a hash of what went over the connection */
};

struct look {
    unsigned char open[LOOK_DESCRIPTORS]; /* whether each of the first descriptors is */
    int system_v;  /* System V objects of the ipc namespace */
    int queues;    /* POSIX message queues, as /dev/mqueue counts them */
    struct process_state state;
    int32_t own[LOOK_OWN]; /* set by the caller: descriptors that are its own business, or -1 */
    int32_t uses_count;
    struct descriptor_use uses[LOOK_USES];
};

void isolate_look_at_descriptors(struct look *look);
void isolate_look_at_uses(struct look *look);
/* Only those that it has found, and that lead to the same files still. */
void isolate_look_again_at_uses(struct look *look);
void isolate_look_at_ipc(struct look *look);
void isolate_look_at_state(struct look *look);
/* Whether its pid namespace has a process that is neither this one nor the init of it. */
int isolate_has_company(void);

#endif
