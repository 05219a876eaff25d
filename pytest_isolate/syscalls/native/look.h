/* What a process has around it, for comparing before and after a test. In Python this would copy some
 * hundred pages of memory in each child. */
#ifndef PYTEST_ISOLATE_LOOK_H
#define PYTEST_ISOLATE_LOOK_H

#include <stdint.h>

enum { LOOK_DESCRIPTORS = 1024, LOOK_SIGNALS = 64 };

struct process_state {
    uint64_t locale; /* a hash of setlocale(3)'s name */
    int32_t umask;
    unsigned char signals[LOOK_SIGNALS]; /* by number - 1: 0 is SIG_DFL, 1 SIG_IGN, 2 a function */
};

struct look {
    unsigned char open[LOOK_DESCRIPTORS]; /* whether each of the first descriptors is */
    int system_v;  /* System V objects of the ipc namespace */
    int queues;    /* POSIX message queues, as /dev/mqueue counts them */
    struct process_state state;
};

void isolate_look_at_descriptors(struct look *look);
void isolate_look_at_ipc(struct look *look);
void isolate_look_at_state(struct look *look);
/* Whether its pid namespace has a process that is neither this one nor the init of it. */
int isolate_has_company(void);

#endif
