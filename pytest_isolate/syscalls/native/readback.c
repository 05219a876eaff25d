#define _GNU_SOURCE
#include "confine.h"
#include "readback.h"
#include "watch.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_BYTES = 2048, WORD_BYTES = 64, LINE_BYTES = 4096 };

/* A frame of the channel: its length, and a message as sandbox/messages.py encodes it. */
struct frame {
    char bytes[FRAME_BYTES];
    size_t size;
};

/* Cut off where the frame is full, which makes it no message: the parent says so. */
__attribute__((format(printf, 2, 3))) static void add(struct frame *frame, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int wanted = vsnprintf(frame->bytes + frame->size, FRAME_BYTES - frame->size, format, values);
    va_end(values);
    if (wanted > 0)
        frame->size += (size_t)wanted < FRAME_BYTES - frame->size ? (size_t)wanted : FRAME_BYTES - frame->size - 1;
}

static void add_namespaces(struct frame *frame) {
    static const char *const names[] = {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"};
    const char *separator = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[WORD_BYTES];
        struct stat status;
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        if (stat(path, &status) < 0)
            continue;
        add(frame, "%s\"%s\": %" PRIuMAX, separator, names[i], (uintmax_t)status.st_ino);
        separator = ", ";
    }
}

struct mounts {
    int count, masked;
    int is_read_only[3]; /* see places */
    char root_type[WORD_BYTES];
};

static const char *const places[] = {"/", "/proc/sys", "/sys"};

/* What hides a part of /proc or of /sys, as sandbox/masks.py has it. */
static int is_mask(const char *at, const char *type) {
    return (strncmp(at, "/proc/", 6) == 0 && strcmp(type, "proc") != 0) || strncmp(at, "/sys/firmware", 13) == 0 ||
           strncmp(at, "/sys/devices/virtual/powercap", 29) == 0;
}

/* A line of mountinfo (proc(5)): the fifth field is where, the sixth its options, and the type follows the
 * lone dash. Of several mounts on one place the last hides the others. */
static void read_mount(char *line, struct mounts *mounts) {
    char *rest = line, *at = NULL, *options, *word, type[WORD_BYTES];
    size_t size = 0;
    for (int field = 0; field < 5 && rest; field++)
        at = strsep(&rest, " ");
    options = strsep(&rest, " ");
    if (!rest || !(word = strncmp(rest, "- ", 2) == 0 ? rest - 1 : strstr(rest, " - ")))
        return;
    for (word += 3; size < WORD_BYTES - 1 && *word && (isalnum((unsigned char)*word) || strchr("._-", *word)); word++)
        type[size++] = *word;
    type[size] = 0;
    mounts->count++;
    mounts->masked += is_mask(at, type);
    if (strcmp(at, "/") == 0)
        memcpy(mounts->root_type, type, sizeof type);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strcmp(at, places[i]) == 0)
            mounts->is_read_only[i] = strncmp(options, "ro", 2) == 0 && (options[2] == ',' || !options[2]);
}

static void add_mounts(struct frame *frame) {
    struct mounts mounts = {0};
    char line[LINE_BYTES];
    const char *separator = "";
    int is_start = 1;
    FILE *lines = fopen(isolate_own_path, "re");
    while (lines && fgets(line, sizeof line, lines)) {
        int is_end = strchr(line, '\n') != NULL; /* a longer line comes in pieces */
        if (is_start)
            read_mount(line, &mounts); /* which cuts the line up */
        is_start = is_end;
    }
    if (lines)
        fclose(lines);
    if (*mounts.root_type)
        add(frame, "\"root\": \"%s\"", mounts.root_type);
    else
        add(frame, "\"root\": null");
    add(frame, ", \"mounts\": %d, \"masked\": %d, \"read_only\": [", mounts.count, mounts.masked);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (mounts.is_read_only[i]) {
            add(frame, "%s\"%s\"", separator, places[i]);
            separator = ", ";
        }
    add(frame, "]");
}

static uint64_t read_bounding(void) {
    uint64_t found = 0;
    int has;
    for (int cap = 0; cap < 64 && (has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0)) >= 0; cap++)
        found |= (uint64_t)has << cap;
    return found;
}

static void add_rights(struct frame *frame) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}, {0}};
    if (syscall(SYS_capget, &header, data) == 0)
        add(frame, "\"capabilities\": \"%08x%08x\"", data[1].effective, data[0].effective);
    else
        add(frame, "\"capabilities\": null");
    add(frame, ", \"capabilities_bounding\": \"%016" PRIx64 "\"", read_bounding());
    add(frame, ", \"no_new_privs\": %s", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? "true" : "false");
    add(frame, ", \"seccomp\": %d", prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
}

static void add_limits(struct frame *frame) {
    static const struct {
        const char *name;
        int resource;
    } limits[] = {{"RLIMIT_NOFILE", RLIMIT_NOFILE}, {"RLIMIT_CPU", RLIMIT_CPU}};
    const char *separator = "";
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        if (getrlimit(limits[i].resource, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
            continue;
        add(frame, "%s\"%s\": \"%" PRIuMAX "\"", separator, limits[i].name, (uintmax_t)limit.rlim_cur);
        separator = ", ";
    }
}

/* Only tried where there is a parent to be seen: with a pid namespace there are the others, too. */
static void add_confinement(struct frame *frame) {
    static const struct {
        const char *name;
        int bit;
    } kinds[] = {{"files", CONFINED_FILES}, {"network", CONFINED_NETWORK}, {"signals", CONFINED_SIGNALS}};
    const char *separator = "";
    int found = getppid() > 0 ? isolate_confined() : 0;
    add(frame, ", \"confined\": [");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!(found & kinds[i].bit))
            continue;
        add(frame, "%s\"%s\"", separator, kinds[i].name);
        separator = ", ";
    }
    add(frame, "]");
    if (found & CONFINED_FILES)
        add(frame, ", \"landlock\": %d", isolate_landlock_abi());
}

int isolate_tell_entered(int channel_fd) {
    struct frame frame = {.size = sizeof(uint32_t)};
    struct timespec now;
    add(&frame, "[\"Entered\", {\"namespaces\": {");
    add_namespaces(&frame);
    add(&frame, "}, ");
    add_mounts(&frame);
    add(&frame, ", ");
    add_rights(&frame);
    add_confinement(&frame);
    add(&frame, ", \"limits\": {");
    add_limits(&frame);
    isolate_watch_settle();
    clock_gettime(CLOCK_MONOTONIC, &now);
    add(&frame, "}}, %jd.%09ld]", (intmax_t)now.tv_sec, now.tv_nsec);
    uint32_t length = htonl((uint32_t)(frame.size - sizeof length));
    memcpy(frame.bytes, &length, sizeof length);
    for (size_t sent = 0; sent < frame.size;) {
        ssize_t count = write(channel_fd, frame.bytes + sent, frame.size - sent);
        if (count < 0 && errno != EINTR)
            return -1;
        sent += count > 0 ? (size_t)count : 0;
    }
    return 0;
}
