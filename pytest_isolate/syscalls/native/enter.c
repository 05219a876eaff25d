#define _GNU_SOURCE
#include "enter.h"
#include "libc_state.h"
#include "seccomp.h"
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef PTRACE_SETSIGMASK
#define PTRACE_SETSIGMASK 0x420b
#endif

/* ---- the hop: the same memory goes on in another process ---------------------------------------- */

/* setns(CLONE_NEWPID) and CLONE_INTO_CGROUP act on new processes only, and a second copy of Python's page
 * tables costs as much as the first fork. So the forked child clones once more with CLONE_VM and dies at
 * once: its memory, stack and all, goes on in the new process. CLONE_PARENT makes that one a child of
 * pytest like the first (since Linux 3.13 also after setns), and the death of the first hands the memory's
 * ownership over, so that the cgroup is charged (mm_update_next_owner in kernel/exit.c).
 *
 * Both run on one stack, so the first may not touch memory after the call: hence the assembly. */
static long clone_and_leave(struct clone_args *args, size_t size) {
#if defined(__x86_64__)
    register long result __asm__("rax") = SYS_clone3;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jle 1f\n\t"
                     "xor %%edi, %%edi\n\t"
                     "mov %[leave], %%eax\n\t"
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "+r"(result), "+D"(args)
                     : "S"(size), [leave] "i"(SYS_exit_group)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long number __asm__("x8") = SYS_clone3;
    register long result __asm__("x0") = (long)args;
    register long second __asm__("x1") = (long)size;
    __asm__ volatile("svc 0\n\t"
                     "cmp x0, #0\n\t"
                     "b.le 1f\n\t"
                     "mov x0, #0\n\t"
                     "mov x8, %[leave]\n\t"
                     "svc 0\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(result), "+r"(number)
                     : "r"(second), [leave] "i"(SYS_exit_group)
                     : "memory", "cc");
    return result;
#else
#error "pytest-isolate knows x86_64 and aarch64"
#endif
}

static int hop(int cgroup_fd, struct enter_result *result) {
    struct libc_state state;
    libc_save(&state);
    syscall(SYS_set_tid_address, NULL); /* or the kernel would zero it when the first process dies */
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_PARENT | CLONE_PARENT_SETTID,
        .parent_tid = (uint64_t)(uintptr_t)&result->pid,
    };
    if (state.tid) {
        args.flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
        args.child_tid = (uint64_t)(uintptr_t)state.tid;
    }
    if (cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup_fd;
    }
    long failed = clone_and_leave(&args, sizeof args);
    if (failed)
        syscall(SYS_set_tid_address, state.tid);
    libc_restore(&state);
    errno = failed ? (int)-failed : 0;
    return failed ? -1 : 0;
}

/* Where clone3 is refused, as it is in containers, whose filters cannot see its flags. Also where nothing asks for
 * another process. */
static int stay(int cgroup_fd, struct enter_result *result) {
    int fd = cgroup_fd < 0 ? -1 : openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (cgroup_fd >= 0 && (fd < 0 || write(fd, "0", 1) != 1))
        return -1;
    if (fd >= 0)
        close(fd);
    result->pid = getpid();
    return 0;
}

static int settle(const struct enter_plan *plan, struct enter_result *result) {
    if (plan->pid_fd < 0 && plan->cgroup_fd < 0)
        return stay(-1, result);
    if (hop(plan->cgroup_fd, result) == 0)
        return 0;
    return plan->pid_fd < 0 && (errno == ENOSYS || errno == EPERM) ? stay(plan->cgroup_fd, result) : -1;
}

/* ---- entering ----------------------------------------------------------------------------------- */

static int join(int fd, int type) { return fd < 0 ? 0 : setns(fd, type); }

static int keep_only(uint64_t keep) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}, {0}};
    /* PR_CAPBSET_DROP answers EINVAL past the last capability that this kernel knows. */
    for (int cap = 0; cap < 64; cap++)
        if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL)
            return -1;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    for (int half = 0; half < 2; half++) {
        uint32_t mask = (uint32_t)(keep >> (32 * half));
        data[half].permitted &= mask;
        data[half].effective &= mask;
        data[half].inheritable = 0;
    }
    return (int)syscall(SYS_capset, &header, data);
}

static int fail(struct enter_result *result, enum enter_step step) {
    result->error = errno;
    result->step = step;
    return -1;
}

int isolate_enter(const struct enter_plan *plan, struct enter_result *result) {
    for (int i = 0; i < plan->tasks_count; i++)
        /* "0": itself, so that the kernel need not stop the world (cgroup_procs_write_start). */
        if (write(plan->tasks_fds[i], "0", 1) != 1)
            return fail(result, ENTER_CGROUP);
    if (plan->user_first && join(plan->user_fd, CLONE_NEWUSER) < 0)
        return fail(result, ENTER_USER_NAMESPACE);
    if (join(plan->net_fd, CLONE_NEWNET) < 0 || join(plan->ipc_fd, CLONE_NEWIPC) < 0 ||
        join(plan->uts_fd, CLONE_NEWUTS) < 0 || join(plan->mnt_fd, CLONE_NEWNS) < 0)
        return fail(result, ENTER_NAMESPACES);
    if (join(plan->pid_fd, CLONE_NEWPID) < 0)
        return fail(result, ENTER_PID_NAMESPACE);
    /* Or kill(0, ...) would reach pytest, and the terminal would be the test's to take. The hop leaves the
     * session's leader behind: no terminal that the test opens becomes the session's. */
    if (setsid() < 0 || settle(plan, result) < 0)
        return fail(result, ENTER_CLONE);
    if (plan->cgroup_namespace && unshare(CLONE_NEWCGROUP) < 0)
        return fail(result, ENTER_CGROUP_NAMESPACE);
    if (!plan->user_first && join(plan->user_fd, CLONE_NEWUSER) < 0)
        return fail(result, ENTER_USER_NAMESPACE);
    if (plan->drop_capabilities && keep_only(plan->keep_capabilities) < 0)
        return fail(result, ENTER_CAPABILITIES);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(result, ENTER_NO_NEW_PRIVS);
    if (plan->confinement && isolate_confine(plan->confinement) < 0)
        return fail(result, ENTER_CONFINEMENT);
    /* A change of credentials cleared it, and /proc/self would belong to root. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    if (plan->die_with_parent)
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (isolate_filter(plan->filter, plan->filter_count) < 0)
        return fail(result, ENTER_SECCOMP);
    /* Last: whatever names an address or a file from here on is told of. Where nobody can watch, the test is none
     * the worse. */
    if (plan->watch_fd >= 0)
        isolate_watch(plan->watch_fd, plan->watched, plan->homes, result->pid, &result->watch);
    return 0;
}

/* ---- a user namespace for a fork of pytest's own ------------------------------------------------- */

/* Its parent maps the ids, and ends it with itself. 0, or -1 and errno. */
int isolate_unshare_user(int parent_pid) {
    if (unshare(CLONE_NEWUSER) < 0)
        return -1;
    /* After the change of credentials, which would clear it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() == parent_pid)
        return 0;
    errno = ESRCH;
    return -1;
}

/* ---- a node of a network inside a sandbox -------------------------------------------------------- */

/* For a fork of the test's own, with one thread; mnt_fd may be -1. What it executes keeps the rights over its
 * network, and no other. 0, or -1 and errno. */
int isolate_enter_node(int user_fd, int mnt_fd, int net_fd) {
    static const int kept[] = {CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW};
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}, {0}};
    if (setns(user_fd, CLONE_NEWUSER) < 0 || join(mnt_fd, CLONE_NEWNS) < 0 || setns(net_fd, CLONE_NEWNET) < 0 ||
        syscall(SYS_capget, &header, data) < 0)
        return -1;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        data[0].inheritable |= 1U << kept[i];
    if (syscall(SYS_capset, &header, data) < 0)
        return -1;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept[i], 0, 0) < 0)
            return -1;
    /* The change of credentials cleared it, and /proc/self would belong to root. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    return 0;
}

/* ---- waking ------------------------------------------------------------------------------------- */

/* Delivers a signal to a child that may block all of them: ptrace clears its mask (PTRACE_SETSIGMASK,
 * since Linux 3.11) before the signal is sent. 0, or -1 and errno. */
int isolate_interrupt(int pid, int signal_number) {
    uint64_t none = 0;
    siginfo_t stop = {0};
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0)
        return -1;
    if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0)
        return -1;
    struct timespec pause = {0, 1000000};
    int tries = 500;
    /* Without WEXITED: the exit status stays for whoever waits for the child. */
    while (waitid(P_PID, (id_t)pid, &stop, WSTOPPED | WNOHANG | __WALL) == 0 && stop.si_pid == 0) {
        if (tries-- == 0) {
            errno = ETIMEDOUT; /* in uninterruptible sleep, or gone */
            return -1;
        }
        nanosleep(&pause, NULL);
    }
    if (stop.si_pid == 0)
        return -1;
    ptrace(PTRACE_SETSIGMASK, pid, sizeof none, &none);
    /* Not by PTRACE_DETACH, which injects only where a signal was about to be delivered (ptrace(2)). */
    int sent = (int)syscall(SYS_tgkill, pid, pid, signal_number);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    return sent;
}
