#define _GNU_SOURCE
#include <Python.h>

#include "libc_state.h"
#include "readback.h"
#include "seccomp.h"
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct received {
    int fds[TEMPLATE_MAX_FDS];
    int count;
};

/* clone(2), whose last two arguments change places from one architecture to another. */
static long clone_old(const struct clone_args *args) {
#if defined(__x86_64__)
    return syscall(SYS_clone, (unsigned long)args->flags, NULL, NULL, (void *)(uintptr_t)args->child_tid, 0UL);
#elif defined(__aarch64__)
    return syscall(SYS_clone, (unsigned long)args->flags, NULL, NULL, 0UL, (void *)(uintptr_t)args->child_tid);
#else
#error "pytest-isolate knows x86_64 and aarch64"
#endif
}

/* What os.fork does, but for a child of pytest: a sibling (CLONE_PARENT). There is one thread here, so that no
 * lock of libc can be held by another; handlers of pthread_atfork have run when the template was forked. */
static long fork_sibling(void) {
    struct libc_state state;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyOS_BeforeFork();
    libc_save(&state);
    struct clone_args args = {.flags = CLONE_PARENT}; /* its exit signal is the template's: SIGCHLD */
    if (state.tid) {
        args.flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
        args.child_tid = (uint64_t)(uintptr_t)state.tid;
    }
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0 && (errno == ENOSYS || errno == EPERM)) /* the filters of containers cannot see its flags */
        pid = clone_old(&args);
    int error = errno;
    libc_restore(&state);
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    PyGILState_Release(gil);
    return pid < 0 ? -error : pid;
}

static int receive(int orders_fd, struct template_order *order, struct received *received) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof received->fds)];
    } control;
    struct iovec part = {order, sizeof *order};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size;
    do
        size = recvmsg(orders_fd, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < (ssize_t)offsetof(struct template_order, text) + 1)
        return -1; /* pytest has closed it, or is gone */
    received->count = 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (rights && rights->cmsg_type == SCM_RIGHTS) {
        received->count = (int)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(received->fds, CMSG_DATA(rights), (size_t)received->count * sizeof(int));
    }
    return 0;
}

static void give(const struct received *received, const struct template_order *order, struct enter_plan *plan) {
    const int *next = received->fds + 2, *end = received->fds + received->count;
    int *namespaces[] = {&plan->user_fd, &plan->pid_fd, &plan->mnt_fd, &plan->net_fd, &plan->ipc_fd, &plan->uts_fd};
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++)
        if (*namespaces[i] >= 0 && next < end) /* -1: the plan stays in this one */
            *namespaces[i] = *next++;
    if (plan->watch_fd >= 0 && next < end)
        plan->watch_fd = *next++;
    for (plan->tasks_count = 0; plan->tasks_count < (int)order->tasks_count && next < end; plan->tasks_count++)
        plan->tasks_fds[plan->tasks_count] = *next++;
    if (order->has_cgroup && next < end)
        plan->cgroup_fd = *next++;
}

/* Or ends the process: pytest finds the step that failed among the results. */
static void become(const struct enter_plan *asked, const struct template_places *places,
                   const struct received *received, const struct template_order *order) {
    struct enter_plan plan = *asked;
    plan.filter_count = 0; /* it is inherited */
    close(places->orders_fd);
    if (received->count < 2 || dup3(received->fds[0], places->channel_fd, O_CLOEXEC) < 0 ||
        dup3(received->fds[1], places->trace_fd, O_CLOEXEC) < 0)
        _exit(1);
    give(received, order, &plan);
    if (isolate_enter(&plan, &places->results[order->slot]) != 0)
        _exit(ENTRY_FAILED);
    for (int i = 0; i < received->count; i++)
        close(received->fds[i]);
    if (isolate_tell_entered(places->channel_fd) != 0)
        _exit(1);
    /* Results of other tests are none of a test's business; whoever unmaps it later finds something to unmap. */
    mmap(places->results, places->results_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

void isolate_serve(const struct enter_plan *plan, const struct template_places *places, struct template_order *order) {
    struct received received;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* Ctrl-C is not for the template, which pytest ends */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Once for all of its children: to make ready a filter costs the kernel more than a test's entering. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || isolate_filter(plan->filter, plan->filter_count) < 0)
        _exit(1);
    for (;;) {
        if (receive(places->orders_fd, order, &received) < 0)
            _exit(0);
        int32_t answer = (int32_t)fork_sibling();
        if (answer == 0)
            break;
        for (int i = 0; i < received.count; i++)
            close(received.fds[i]);
        if (send(places->orders_fd, &answer, sizeof answer, MSG_NOSIGNAL) < 0)
            _exit(0);
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    order->born_s = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    become(plan, places, &received, order);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
