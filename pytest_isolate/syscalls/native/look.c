#define _GNU_SOURCE
#include "look.h"

#include <errno.h>
#include <locale.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* struct tcp_info (linux/tcp.h) up to tcpi_bytes_acked and tcpi_bytes_received, since Linux 4.1. */
enum { TCP_COUNTERS_AT = 120, TCP_INFO_BYTES = 136 };
#ifndef MQUEUE_MAGIC /* not in linux/magic.h */
#define MQUEUE_MAGIC 0x19800202
#endif

static uint64_t hash(const void *data, size_t size) { /* FNV-1a */
    uint64_t found = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < size; i++)
        found = (found ^ ((const unsigned char *)data)[i]) * 0x100000001b3ULL;
    return found;
}

/* Since Linux 6.2 (proc_fd_getattr); 0 before. */
static int64_t count_descriptors(void) {
    struct stat status;
    return stat("/proc/self/fd", &status) < 0 ? 0 : (int64_t)status.st_size;
}

void isolate_look_at_descriptors(struct look *look) {
    enum { AT_ONCE = 128 };
    struct pollfd polled[AT_ONCE];
    struct rlimit limit;
    int64_t all = count_descriptors(), found = 0;
    nfds_t count = AT_ONCE;
    memset(look->open, 0, sizeof look->open);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < count)
        count = limit.rlim_cur; /* poll(2) takes no more */
    for (nfds_t first = 0; count && first + count <= LOOK_DESCRIPTORS && (!all || found < all); first += count) {
        for (nfds_t i = 0; i < count; i++)
            polled[i] = (struct pollfd){.fd = (int)(first + i)};
        if (poll(polled, count, 0) < 0)
            return;
        for (nfds_t i = 0; i < count; i++)
            found += look->open[first + i] = !(polled[i].revents & POLLNVAL);
    }
}

static int is_own(const struct look *look, int fd) {
    for (int i = 0; i < LOOK_OWN; i++)
        if (look->own[i] == fd)
            return 1;
    return 0;
}

/* Whether its use can be told, which is in `use` then. */
static int find_use(int fd, const struct stat *status, uint64_t *use) {
    unsigned char info[TCP_INFO_BYTES];
    socklen_t size = sizeof info;
    if (S_ISREG(status->st_mode) && status->st_nlink) {
        *use = (uint64_t)lseek(fd, 0, SEEK_CUR);
        return 1;
    }
    if (!S_ISSOCK(status->st_mode) || getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) < 0 || size < sizeof info)
        return 0;
    *use = hash(info + TCP_COUNTERS_AT, sizeof info - TCP_COUNTERS_AT);
    return 1;
}

void isolate_look_at_uses(struct look *look) {
    struct stat status;
    isolate_look_at_descriptors(look);
    look->uses_count = 0;
    for (int fd = 0; fd < LOOK_DESCRIPTORS && look->uses_count < LOOK_USES; fd++) {
        if (!look->open[fd] || fstat(fd, &status) < 0)
            continue;
        struct descriptor_use found = {fd, is_own(look, fd), status.st_dev, status.st_ino, 0};
        if (find_use(fd, &status, &found.use) || found.is_own)
            look->uses[look->uses_count++] = found;
    }
}

void isolate_look_again_at_uses(struct look *look) {
    struct stat status;
    for (int i = 0; i < look->uses_count; i++) {
        struct descriptor_use *known = &look->uses[i];
        if (!known->is_own && fstat(known->fd, &status) == 0 && status.st_dev == known->device &&
            status.st_ino == known->inode)
            find_use(known->fd, &status, &known->use);
    }
}

/* Its size tells: 20 bytes for each, and for . and .. (DIRENT_SIZE in the kernel's ipc/mqueue.c). */
static int count_queues(void) {
    enum { ENTRY_BYTES = 20, OF_KERNEL = 2 };
    const char *path = "/dev/mqueue";
    struct statfs file_system;
    struct stat status;
    if (stat(path, &status) < 0 || statfs(path, &file_system) < 0 || file_system.f_type != MQUEUE_MAGIC)
        return 0; /* a root without */
    return (int)(status.st_size / ENTRY_BYTES) - OF_KERNEL;
}

void isolate_look_at_ipc(struct look *look) {
    union { /* semctl(2) wants the caller to define it */
        int value;
        struct seminfo *info;
    } semaphores;
    struct seminfo sets;
    struct shm_info segments;
    struct msginfo messages;
    semaphores.info = &sets;
    look->system_v = 0;
    if (semctl(0, 0, SEM_INFO, semaphores) >= 0)
        look->system_v += sets.semusz;
    if (shmctl(0, SHM_INFO, (struct shmid_ds *)&segments) >= 0)
        look->system_v += segments.used_ids;
    if (msgctl(0, MSG_INFO, (struct msqid_ds *)&messages) >= 0)
        look->system_v += messages.msgpool;
    look->queues = count_queues();
}

void isolate_look_at_state(struct look *look) {
    struct process_state *state = &look->state;
    const char *name = setlocale(LC_ALL, NULL);
    mode_t mask = umask(077);
    umask(mask);
    state->umask = (int32_t)mask;
    state->locale = name ? hash(name, strlen(name)) : 0;
    for (int number = 1; number <= LOOK_SIGNALS; number++) {
        struct sigaction action; /* glibc refuses its own two */
        if (sigaction(number, NULL, &action) != 0 || action.sa_handler == SIG_DFL)
            state->signals[number - 1] = 0;
        else
            state->signals[number - 1] = action.sa_handler == SIG_IGN ? 1 : 2;
    }
}

int isolate_has_company(void) {
    /* kill(2): -1 is everybody in the pid namespace but its init and, on Linux, the caller; 0 is no signal. */
    return kill(-1, 0) == 0 || errno != ESRCH;
}
