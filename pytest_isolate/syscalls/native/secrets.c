#define _GNU_SOURCE
#include "secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "secret_names.h"
#include "sockets.h"
#include "wire.h"

enum { LOOK_MS = 1000, MAX_LOOKS = 10, MAX_TRIES = 8 };

static int is_secret(const char *path, const char *homes) {
    for (const char *home = homes; *home; home += strlen(home) + 1) {
        size_t home_size = strlen(home);
        if (strncmp(path, home, home_size) != 0 || path[home_size] != '/')
            continue;
        const char *name = path + home_size + 1;
        for (const char *const *secret = isolate_secrets; *secret; secret++) {
            size_t size = strlen(*secret);
            if (!strncmp(name, *secret, size) && (name[size] == 0 || name[size] == '/'))
                return 1;
        }
    }
    return 0;
}

/* An absolute path, without "//", "." and "..", of which programs make many as they join names. */
static void tidy(char *path) {
    char *to = path;
    for (const char *from = path; *from;) {
        size_t size = strcspn(from + 1, "/");
        int is_dot = size == 1 && from[1] == '.', is_up = size == 2 && from[1] == '.' && from[2] == '.';
        if (is_up)
            while (to > path && *--to != '/') {
            }
        else if (size && !is_dot) {
            memmove(to, from, size + 1);
            to += size + 1;
        }
        from += size + 1;
    }
    *to = 0;
}

/* 0, or why nobody would find something there: as the thread goes there, with its own root. */
static int look_for(pid_t tid, const char *path) {
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    char root_path[64];
    snprintf(root_path, sizeof root_path, "/proc/%d/root", tid);
    int root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return EBADF;
    for (int tries = 0; tries < MAX_TRIES; tries++)
        if (syscall(SYS_openat2, root, path, &how, sizeof how) >= 0)
            return 0;
        else if (errno != EAGAIN) /* somebody mounts or renames meanwhile (openat2(2)) */
            return errno;
    return EAGAIN;
}

/* It has a processor, or waits for one (proc_pid_stat(5)). */
static int is_running(pid_t pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    const char *state = strrchr(text, ')');
    return state && !strncmp(state, ") R", 3);
}

/* A file system of the test's own may never answer: so another process asks, and is left where it is then. Whatever
 * nobody can say is not there. */
static int is_missing(pid_t tid, const char *path, int *hangs) {
    int ends[2], answer = ETIMEDOUT, has_answer = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], WIRE_SOCKET_FD);
        syscall(SYS_close_range, (unsigned)WIRE_SOCKET_FD + 1, ~0U, 0U);
        answer = look_for(tid, path);
        _exit(write(WIRE_SOCKET_FD, &answer, sizeof answer) != sizeof answer);
    }
    close(ends[1]);
    struct pollfd answered = {ends[0], POLLIN, 0};
    for (int look = 0; child > 0 && !has_answer && look < MAX_LOOKS && (!look || is_running(child)); look++)
        has_answer = poll(&answered, 1, LOOK_MS) > 0 && read(ends[0], &answer, sizeof answer) > 0;
    close(ends[0]);
    *hangs = child > 0 && !has_answer;
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, has_answer ? 0 : WNOHANG); /* or the supervisor, some day */
    }
    return !has_answer || answer == ENOENT || answer == ENOTDIR;
}

size_t find_missing_secret(pid_t tid, int directory_fd, const char *path, const char *homes, char *absolute,
                           size_t size, int *hangs) {
    char whole[2 * PATH_MAX], link[64];
    size_t start = 0;
    if (*path != '/') {
        if (directory_fd == AT_FDCWD) {
            snprintf(link, sizeof link, "/proc/%d/cwd", tid);
            ssize_t got = readlink(link, whole, PATH_MAX);
            start = got > 0 ? (size_t)got : 0;
        } else {
            start = read_descriptor_link(tid, directory_fd, whole, PATH_MAX);
        }
        if (!start || *whole != '/') /* nobody knows, or no file at all: "socket:[7]" */
            return 0;
        whole[start++] = '/';
    }
    snprintf(whole + start, sizeof whole - start, "%s", path);
    tidy(whole);
    if (!is_secret(whole, homes) || (!*hangs && !is_missing(tid, whole, hangs)))
        return 0;
    size_t wanted = strlen(whole);
    if (wanted > size)
        wanted = size;
    memcpy(absolute, whole, wanted);
    return wanted;
}
