/* A call that a process waits in, and what of its memory the call names: of 32-bit programs as of others. */
#ifndef PYTEST_ISOLATE_CALLER_H
#define PYTEST_ISOLATE_CALLER_H

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#else
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#endif
/* The other one that kernels of x86_64 run programs of; those of no other are let run (kernel/seccomp.py). The
 * numbers are those of arch/x86/entry/syscalls/syscall_32.tbl. */
#define COMPAT_ARCH AUDIT_ARCH_I386
enum { COMPAT_OPEN = 5, COMPAT_SOCKETCALL = 102, COMPAT_OPENAT = 295, COMPAT_SENDMMSG = 345 };
enum { COMPAT_CONNECT = 362, COMPAT_SENDTO = 369, COMPAT_SENDMSG = 370, COMPAT_OPENAT2 = 437 };

struct caller {
    pid_t tid;
    int is_compat;  /* its pointers have 32 bits */
    int is_refused; /* to read what it names */
    int nr;         /* as of a native call; open(2) is openat(2); -1: none that is watched */
    uint64_t args[6];
};

struct caller find_caller(const struct seccomp_notif *notif);

/* Gives how much could be read. */
size_t read_memory(struct caller *caller, uint64_t at, void *data, size_t size);
/* A text, cut off. */
void read_text(struct caller *caller, uint64_t at, char *text, size_t size);
/* As native ones, whose pointers are the caller's. Gives how many. */
size_t read_headers(struct caller *caller, uint64_t at, struct mmsghdr *headers, size_t count);
size_t read_header(struct caller *caller, uint64_t at, struct msghdr *header);
size_t read_part(struct caller *caller, uint64_t at, struct iovec *part);

#endif
