#define _GNU_SOURCE
#include "in_root.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As if the tree were the root: "/" and ".." lead no further up, in links too (openat2(2), since Linux 5.6).
 * A descriptor, or -1 and errno. */
int isolate_open_in_root(int root_fd, const char *path, int flags) {
    struct open_how how = {
        .flags = (unsigned)flags | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, root_fd, path, &how, sizeof how);
}
