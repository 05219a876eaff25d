/* What code asks of the clock, through CPython's own functions: whoever took them from their modules earlier calls
 * the same ones, and they stay the objects that they are. */
#ifndef PYTEST_ISOLATE_CLOCK_H
#define PYTEST_ISOLATE_CLOCK_H

#include <stdint.h>

enum {
    CLOCK_SLEEP,
    CLOCK_TIME,
    CLOCK_TIME_NS,
    CLOCK_LOCALTIME,
    CLOCK_GMTIME,
    CLOCK_CTIME,
    CLOCK_NOW,
    CLOCK_UTCNOW,
    CLOCK_FUNCTIONS
};

struct clock_counts {
    int32_t is_on;
    uint32_t reads; /* of the time of day */
    double slept_s;
};

/* 0, or -1 if this Python has the function in another way. `type`: the function's. */
int isolate_count_clock(void *function, void *type, const char *name, int which);
/* Where they are counted while it is on, in all threads, and only ever in this process. */
struct clock_counts *isolate_clock_counts(void);

#endif
