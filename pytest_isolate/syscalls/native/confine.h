/* What a process gives up where it gets no namespaces of its own: files and more by Landlock, sockets by seccomp.
 * What is to be given up is decided in Python (kernel/landlock.py); nothing here knows a version of the kernel. */
#ifndef PYTEST_ISOLATE_CONFINE_H
#define PYTEST_ISOLATE_CONFINE_H

#include <stdint.h>

struct confinement {
    int uses_landlock;
    uint64_t handled_files, handled_tcp, scoped; /* as landlock_ruleset_attr has them */
    uint64_t in_directories, in_files;           /* what stays allowed below the paths */
    const char *writable;                        /* paths, each ended by NUL, and an empty one */
    int closes_network;
};

enum { CONFINED_FILES = 1, CONFINED_NETWORK = 2, CONFINED_SIGNALS = 4 };

/* All take no_new_privs. 0, or -1 and errno. */
int isolate_confine(const struct confinement *asked);
/* The ABI of the running kernel's Landlock, or minus errno. */
int isolate_landlock_abi(void);
/* 0 if a filter may refuse system calls, or minus errno. */
int isolate_can_filter(void);
/* What is refused to the calling process, found out by trying. */
int isolate_confined(void);

#endif
