/* The filter of system calls, which kernel/seccomp.py makes. */
#ifndef PYTEST_ISOLATE_SECCOMP_H
#define PYTEST_ISOLATE_SECCOMP_H

/* For the calling thread, and all that it makes; `count` 0: no filter. 0, or -1 and errno. */
int isolate_filter(const void *filter, int count);

#endif
