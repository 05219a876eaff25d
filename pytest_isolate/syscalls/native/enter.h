/* What must not run as Python: entering a sandbox from a forked child, and waking a child that blocks
 * every signal. */
#ifndef PYTEST_ISOLATE_ENTER_H
#define PYTEST_ISOLATE_ENTER_H

#include <stdint.h>

#include "confine.h"
#include "watch.h"

enum { ENTER_MAX_TASKS = 8 };

/* The exit status of a child that could not enter; the result says more. */
enum { ENTRY_FAILED = 120 };

enum enter_step {
    ENTER_CGROUP = 1,
    ENTER_USER_NAMESPACE,
    ENTER_NAMESPACES,
    ENTER_PID_NAMESPACE,
    ENTER_CLONE,
    ENTER_CGROUP_NAMESPACE,
    ENTER_CAPABILITIES,
    ENTER_NO_NEW_PRIVS,
    ENTER_CONFINEMENT,
    ENTER_SECCOMP,
};

struct enter_plan {
    int user_fd, pid_fd, mnt_fd, net_fd, ipc_fd, uts_fd; /* namespaces to join, -1: stay */
    int user_first;                                      /* without privileges all else needs the user namespace */
    int tasks_fds[ENTER_MAX_TASKS];                      /* cgroup v1: open `tasks` files */
    int tasks_count;
    int cgroup_fd; /* cgroup v2: the directory, or -1 */
    int cgroup_namespace;
    int die_with_parent; /* where no pid namespace ends the test with its init */
    int drop_capabilities;
    uint64_t keep_capabilities;
    const struct confinement *confinement; /* where there are no namespaces, or NULL */
    const void *filter; /* of system calls, see seccomp.h */
    int filter_count;
    int watch_fd; /* takes the listener of the watch, or -1 */
    unsigned watched; /* see watch.h */
    char homes[WATCH_HOMES_BYTES];
};

/* In memory that parent and child share, because the child that returns is not the one that was forked. */
struct enter_result {
    volatile int32_t pid; /* of the process that runs the test, as the host sees it; 0: not yet */
    volatile int32_t step;
    volatile int32_t error;
    volatile int32_t watch; /* what isolate_watch says; 0: not asked */
};

int isolate_enter(const struct enter_plan *plan, struct enter_result *result);
int isolate_unshare_user(int parent_pid);
int isolate_enter_node(int user_fd, int mnt_fd, int net_fd);
int isolate_interrupt(int pid, int signal_number);

#endif
