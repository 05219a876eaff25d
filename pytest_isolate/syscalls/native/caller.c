#define _GNU_SOURCE
#include "caller.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/net.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { PAGE_BYTES = 4096 };

struct compat_part {
    uint32_t base, len;
};

struct compat_header {
    uint32_t name, name_bytes, parts, part_count, control, control_bytes, flags;
};

struct compat_message {
    struct compat_header header;
    uint32_t sent;
};

static void *pointer(uint64_t at) { return (void *)(uintptr_t)at; }

/* ---- the call ------------------------------------------------------------------------------------ */

/* open(2), as openat(2). */
static void open_here(struct caller *caller) {
    memmove(caller->args + 1, caller->args, 3 * sizeof *caller->args);
    caller->args[0] = (uint64_t)AT_FDCWD;
    caller->nr = SYS_openat;
}

/* socketcall(2): all that there was before Linux 4.3, and what many a program of that age has. */
static void unpack_socketcall(struct caller *caller) {
    static const struct {
        int number, nr, args;
    } calls[] = {{SYS_CONNECT, SYS_connect, 3},
                 {SYS_SEND, SYS_sendto, 4},
                 {SYS_SENDTO, SYS_sendto, 6},
                 {SYS_SENDMSG, SYS_sendmsg, 3},
                 {SYS_SENDMMSG, SYS_sendmmsg, 4}};
    uint64_t number = caller->args[0];
    uint32_t args[6] = {0};
    caller->nr = -1;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        size_t size = (size_t)calls[i].args * sizeof *args;
        if ((uint64_t)calls[i].number != number)
            continue;
        caller->nr = calls[i].nr;
        if (read_memory(caller, caller->args[1], args, size) != size)
            args[0] = UINT32_MAX; /* no descriptor */
    }
    for (size_t i = 0; i < 6; i++)
        caller->args[i] = args[i];
}

struct caller find_caller(const struct seccomp_notif *notif) {
    const struct seccomp_data *data = &notif->data;
    struct caller caller = {(pid_t)notif->pid, data->arch == COMPAT_ARCH, 0, data->nr, {0}};
    memcpy(caller.args, data->args, sizeof caller.args);
#ifdef SYS_open
    if (!caller.is_compat && data->nr == SYS_open)
        open_here(&caller);
#endif
    if (!caller.is_compat)
        return caller;
    for (size_t i = 0; i < 6; i++)
        caller.args[i] = (uint32_t)data->args[i]; /* int $0x80 of a 64-bit program leaves what is above */
    switch (data->nr) {
    case COMPAT_OPEN:
        open_here(&caller);
        break;
    case COMPAT_OPENAT:
        caller.nr = SYS_openat;
        break;
    case COMPAT_OPENAT2:
        caller.nr = SYS_openat2;
        break;
    case COMPAT_CONNECT:
        caller.nr = SYS_connect;
        break;
    case COMPAT_SENDTO:
        caller.nr = SYS_sendto;
        break;
    case COMPAT_SENDMSG:
        caller.nr = SYS_sendmsg;
        break;
    case COMPAT_SENDMMSG:
        caller.nr = SYS_sendmmsg;
        break;
    case COMPAT_SOCKETCALL:
        unpack_socketcall(&caller);
        break;
    default:
        caller.nr = -1;
    }
    return caller;
}

/* ---- its memory ---------------------------------------------------------------------------------- */

/* EFAULT is the caller's own mistake, and ESRCH its end. Whatever else is said is said to us: of a process whose
 * memory is nobody's business (PR_SET_DUMPABLE(2const), unshare(CLONE_NEWUSER)). */
size_t read_memory(struct caller *caller, uint64_t at, void *data, size_t size) {
    struct iovec here = {data, size}, there = {pointer(at), size};
    ssize_t got = at ? process_vm_readv(caller->tid, &here, 1, &there, 1, 0) : 0;
    if (got < 0 && errno != EFAULT && errno != ESRCH)
        caller->is_refused = 1;
    return got > 0 ? (size_t)got : 0;
}

/* Page by page: the next one may be nobody's. */
void read_text(struct caller *caller, uint64_t at, char *text, size_t size) {
    size_t first = PAGE_BYTES - at % PAGE_BYTES, got;
    size--;
    if (first > size)
        first = size;
    got = read_memory(caller, at, text, first);
    text[got] = 0;
    if (got == first && first < size && strlen(text) == first) {
        got += read_memory(caller, at + first, text + first, size - first);
        text[got] = 0;
    }
}

static struct msghdr as_native(const struct compat_header *header) {
    return (struct msghdr){
        .msg_name = pointer(header->name),
        .msg_namelen = header->name_bytes,
        .msg_iov = pointer(header->parts),
        .msg_iovlen = header->part_count,
    };
}

size_t read_headers(struct caller *caller, uint64_t at, struct mmsghdr *headers, size_t count) {
    if (!caller->is_compat)
        return read_memory(caller, at, headers, count * sizeof *headers) / sizeof *headers;
    size_t got = 0;
    for (struct compat_message one; got < count; got++) {
        if (read_memory(caller, at + got * sizeof one, &one, sizeof one) != sizeof one)
            break;
        headers[got].msg_hdr = as_native(&one.header);
    }
    return got;
}

size_t read_header(struct caller *caller, uint64_t at, struct msghdr *header) {
    struct compat_header compat;
    if (!caller->is_compat)
        return read_memory(caller, at, header, sizeof *header) == sizeof *header;
    if (read_memory(caller, at, &compat, sizeof compat) != sizeof compat)
        return 0;
    *header = as_native(&compat);
    return 1;
}

size_t read_part(struct caller *caller, uint64_t at, struct iovec *part) {
    struct compat_part compat;
    if (!caller->is_compat)
        return read_memory(caller, at, part, sizeof *part) == sizeof *part;
    if (read_memory(caller, at, &compat, sizeof compat) != sizeof compat)
        return 0;
    *part = (struct iovec){pointer(compat.base), compat.len};
    return 1;
}
