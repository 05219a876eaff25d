/* The template: a copy of pytest that makes the processes of tests, so that pytest need not fork for each. What
 * pytest touches after a fork it copies, page by page; the template touches next to nothing. */
#ifndef PYTEST_ISOLATE_TEMPLATE_H
#define PYTEST_ISOLATE_TEMPLATE_H

#include "enter.h"

enum { TEMPLATE_MAX_TEXT = 4096, TEMPLATE_MAX_FDS = 2 + 6 + 1 + ENTER_MAX_TASKS };

/* One datagram from pytest for each test, with descriptors: of the channel, of the trace, of the namespaces that
 * the plan joins (in the order of struct enter_plan), of the watch, and of the cgroup's `tasks` files or its
 * directory. The answer is the process id, or minus errno. */
struct template_order {
    uint32_t item; /* place in the session */
    uint32_t slot; /* of the results */
    uint32_t tasks_count;
    uint32_t has_cgroup; /* a directory */
    double born_s;       /* set by the child: CLOCK_MONOTONIC */
    char text[TEMPLATE_MAX_TEXT]; /* for Python, with a zero at its end */
};

struct template_places {
    int orders_fd;
    int channel_fd, trace_fd;            /* the numbers that a child is to have them at */
    struct enter_result *results;        /* shared with pytest; no longer in a child that has entered */
    size_t results_bytes;
};

/* In the template. Returns in each child that has entered, with what it was ordered; never in the template. */
void isolate_serve(const struct enter_plan *plan, const struct template_places *places, struct template_order *order);

#endif
