/* What a process has around it, for comparing before and after a test. In Python this would copy some
 * hundred pages of memory in each child. */
#ifndef PYTEST_ISOLATE_LOOK_H
#define PYTEST_ISOLATE_LOOK_H

#include <stdint.h>

enum { LOOK_DESCRIPTORS = 1024 };

struct look {
    unsigned char open[LOOK_DESCRIPTORS]; /* whether each of the first descriptors is */
    int system_v;  /* System V objects of the ipc namespace */
    int queues;    /* POSIX message queues, as /dev/mqueue shows them */
    uint64_t processes; /* a hash of those that /proc shows */
};

void isolate_look_at_descriptors(struct look *look);
void isolate_look_at_ipc(struct look *look);
void isolate_look_at_processes(struct look *look);
int isolate_umask(void);

#endif
