"""What the extension ``_native`` offers to Python: the declarations that cffi checks against the headers."""

from __future__ import annotations

__all__ = ["CDEF", "SOURCE"]

SYSCALLS = [
    "bind",
    "capset",
    "chdir",
    "close",
    "fchmodat",
    "fchownat",
    "ioctl",
    "listen",
    "mkdirat",
    "mknodat",
    "mount",
    "mount_setattr",
    "openat",
    "pivot_root",
    "prctl",
    "sethostname",
    "setsockopt",
    "socket",
    "symlinkat",
    "umount2",
    "unshare",
    "write",
]

CONSTANTS = [
    "AT_FDCWD",
    "AT_RECURSIVE",
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "MNT_DETACH",
    "MOUNT_ATTR_RDONLY",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "O_CLOEXEC",
    "O_CREAT",
    "O_DIRECTORY",
    "O_PATH",
    "O_RDONLY",
    "O_WRONLY",
    "PR_SET_DUMPABLE",
    "PR_SET_NO_NEW_PRIVS",
    "PR_SET_PDEATHSIG",
    "SIOCSIFFLAGS",
    "WIRE_SOCKET_FD",
    "WIRE_MAX_BYTES",
    "WIRE_MAX_SLOTS",
    "WIRE_MAX_EXPORTS",
    "REQUEST_CREATE",
    "REQUEST_DESTROY",
    "REQUEST_REMEMBER_CGROUP",
    "REQUEST_REMEMBER_TREE",
    "REQUEST_COUNTS",
    "REPLY_READY",
    "REPLY_FAILED",
    "REPLY_GONE",
    "REPLY_ATTEMPT",
    "REPLY_COUNTS",
    "ATTEMPT_CONNECT",
    "ATTEMPT_SEND",
    "ATTEMPT_QUERY",
    "ATTEMPT_READ",
    "ATTEMPT_OPEN",
    "ATTEMPT_MAX_ADDRESS",
    "ATTEMPT_MAX_PAYLOAD",
    "ATTEMPT_MAX_COMMAND",
    "ATTEMPT_MAX_COUNTS",
    "OP_EXPORT",
    "OP_MAP_IDS",
    "OP_MAP_IDS_BY_HELPERS",
    "ARG_VALUE",
    "ARG_DATA",
    "ARG_SLOT",
    "ENTER_CGROUP",
    "ENTER_USER_NAMESPACE",
    "ENTER_NAMESPACES",
    "ENTER_PID_NAMESPACE",
    "ENTER_CLONE",
    "ENTER_CGROUP_NAMESPACE",
    "ENTER_CAPABILITIES",
    "ENTER_NO_NEW_PRIVS",
    "ENTER_CONFINEMENT",
    "ENTER_SECCOMP",
    "WATCH_NETWORK",
    "WATCH_FILES",
    "WATCH_HOMES_BYTES",
    "ENTER_MAX_TASKS",
    "ENTRY_FAILED",
    "TEMPLATE_MAX_TEXT",
    "CONTAINER_UP",
    "CONTAINER_DOWN",
]

CDEF = (
    "".join(f"#define SYS_{name} ...\n" for name in SYSCALLS)
    + "".join(f"static const int {name};\n" for name in CONSTANTS)
    + """
    struct request { ...; };
    struct reply { ...; };
    struct op { ...; };
    struct attempt { ...; };
    struct container_status { ...; };

    struct confinement {
        int uses_landlock;
        uint64_t handled_files, handled_tcp, scoped;
        uint64_t in_directories, in_files;
        const char *writable;
        int closes_network;
    };
    int isolate_confine(const struct confinement *asked);
    int isolate_confined(void);
    int isolate_landlock_abi(void);
    int isolate_can_filter(void);

    struct enter_plan {
        int user_fd, pid_fd, mnt_fd, net_fd, ipc_fd, uts_fd;
        int user_first;
        int tasks_fds[8];
        int tasks_count;
        int cgroup_fd;
        int cgroup_namespace;
        int die_with_parent;
        int drop_capabilities;
        uint64_t keep_capabilities;
        const struct confinement *confinement;
        const void *filter;
        int filter_count;
        int watch_fd;
        unsigned watched;
        char homes[1024];
    };
    struct enter_result { int32_t pid, step, error, watch; };

    int isolate_enter(const struct enter_plan *plan, struct enter_result *result);
    int isolate_interrupt(int pid, int signal_number);
    int isolate_unshare_user(int parent_pid);
    int isolate_enter_node(int user_fd, int mnt_fd, int net_fd);
    int isolate_tell_entered(int channel_fd);
    void isolate_watch_settle(void);
    extern const char *const isolate_secrets[];

    enum { LOOK_DESCRIPTORS = 1024, LOOK_SIGNALS = 64, LOOK_USES = 64, LOOK_OWN = 16 };
    struct process_state { uint64_t locale; int32_t umask; unsigned char signals[64]; };
    struct descriptor_use { int32_t fd, is_own; uint64_t device, inode, use; };
    struct look {
        unsigned char open[1024];
        int system_v;
        int queues;
        struct process_state state;
        int32_t own[16];
        int32_t uses_count;
        struct descriptor_use uses[64];
    };
    void isolate_look_at_descriptors(struct look *look);
    void isolate_look_at_uses(struct look *look);
    void isolate_look_again_at_uses(struct look *look);
    void isolate_look_at_ipc(struct look *look);
    void isolate_look_at_state(struct look *look);
    int isolate_has_company(void);
    enum {
        CLOCK_SLEEP, CLOCK_TIME, CLOCK_TIME_NS, CLOCK_LOCALTIME,
        CLOCK_GMTIME, CLOCK_CTIME, CLOCK_NOW, CLOCK_UTCNOW
    };
    struct clock_counts { int32_t is_on; uint32_t reads; double slept_s; };
    int isolate_count_clock(void *function, void *type, const char *name, int which);
    struct clock_counts *isolate_clock_counts(void);
    void *dlopen(const char *name, int flags);
    int isolate_open_in_root(int root_fd, const char *path, int flags);

    struct template_order {
        uint32_t item, slot, tasks_count, has_cgroup;
        double born_s;
        char text[4096];
    };
    struct template_places {
        int orders_fd;
        int channel_fd, trace_fd;
        struct enter_result *results;
        size_t results_bytes;
    };
    void isolate_serve(const struct enter_plan *plan, const struct template_places *places,
                       struct template_order *order);
"""
)

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "clock.h"
#include "confine.h"
#include "enter.h"
#include "in_root.h"
#include "look.h"
#include "readback.h"
#include "secret_names.h"
#include "template.h"
#include "watch.h"
#include "wire.h"
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
"""
