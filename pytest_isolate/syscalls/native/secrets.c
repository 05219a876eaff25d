#define _GNU_SOURCE
#include "secrets.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const isolate_secrets[] = {
    ".aws",
    ".azure",
    ".boto",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/chromium",
    ".config/gcloud",
    ".config/gh",
    ".config/google-chrome",
    ".config/hub",
    ".docker/config.json",
    ".gem/credentials",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".local/share/keyrings",
    ".mozilla",
    ".my.cnf",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pgpass",
    ".pypirc",
    ".s3cfg",
    ".ssh",
    ".vault-token",
    NULL,
};

static int is_secret(const char *path) {
    for (const char *at = path; (at = strstr(at, "/.")); at++)
        for (const char *const *secret = isolate_secrets; *secret; secret++) {
            size_t size = strlen(*secret);
            if (!strncmp(at + 1, *secret, size) && (at[1 + size] == 0 || at[1 + size] == '/'))
                return 1;
        }
    return 0;
}

/* Without "//" and "/./", of which programs make many as they join names. */
static void tidy(char *path) {
    char *to = path;
    for (const char *from = path; *from; from++) {
        int is_empty = from[0] == '/' && from[1] == '/', is_dot = !strncmp(from, "/./", 3);
        if (is_dot)
            from++;
        else if (!is_empty)
            *to++ = *from;
    }
    *to = 0;
}

/* Whether it leads somewhere, as the thread goes there: with its own root. */
static int is_there(pid_t tid, const char *path) {
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    char root_path[64];
    snprintf(root_path, sizeof root_path, "/proc/%d/root", tid);
    int root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return 0;
    int found = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    if (found >= 0)
        close(found);
    close(root);
    return found >= 0;
}

size_t find_missing_secret(pid_t tid, int directory_fd, const char *path, char *absolute, size_t size) {
    char whole[2 * PATH_MAX], link[64];
    size_t start = 0;
    if (*path != '/') {
        if (directory_fd == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/%d/cwd", tid);
        else
            snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, directory_fd);
        ssize_t got = readlink(link, whole, PATH_MAX);
        if (got <= 0 || *whole != '/') /* nobody knows, or no file at all: "socket:[7]" */
            return 0;
        start = (size_t)got;
        whole[start++] = '/';
    }
    snprintf(whole + start, sizeof whole - start, "%s", path);
    tidy(whole);
    if (!is_secret(whole) || is_there(tid, whole))
        return 0;
    size_t wanted = strlen(whole);
    if (wanted > size)
        wanted = size;
    memcpy(absolute, whole, wanted);
    return wanted;
}
