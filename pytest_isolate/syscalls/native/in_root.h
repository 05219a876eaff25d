/* Opening a path of an untrusted directory tree. */
#ifndef PYTEST_ISOLATE_IN_ROOT_H
#define PYTEST_ISOLATE_IN_ROOT_H

int isolate_open_in_root(int root_fd, const char *path, int flags);

#endif
