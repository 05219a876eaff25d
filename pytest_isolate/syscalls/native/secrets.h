/* Attempts to read what only the user's own machine has. */
#ifndef PYTEST_ISOLATE_SECRETS_H
#define PYTEST_ISOLATE_SECRETS_H

#include <stddef.h>
#include <sys/types.h>

/* Whether a path that a thread would open (openat(2)) is that of a secret of one of the `homes` (see watch.h), and
 * leads nowhere. `absolute` takes it then, cut off, and its size is given; else 0. `hangs`: nobody could say, and
 * is asked no more; all are missing then. */
size_t find_missing_secret(pid_t tid, int directory_fd, const char *path, const char *homes, char *absolute,
                           size_t size, int *hangs);

#endif
