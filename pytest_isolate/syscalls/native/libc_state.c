#define _GNU_SOURCE
#include "libc_state.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *thread_pointer(void) {
#if defined(__x86_64__)
    void *pointer;
    __asm__("mov %%fs:0, %0" : "=r"(pointer));
    return pointer;
#else
    return __builtin_thread_pointer();
#endif
}

static void register_rseq(void) {
    /* glibc >= 2.35 registers restartable sequences and trusts the cpu number in them; a clone with
     * CLONE_VM starts without (rseq_fork in kernel/rseq.c). */
#if defined(SYS_rseq)
#if defined(__x86_64__)
    enum { SIGNATURE = 0x53053053 };
#else
    enum { SIGNATURE = (int)0xd428bc00 };
#endif
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
    const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
    if (offset && size && *size)
        syscall(SYS_rseq, (char *)thread_pointer() + *offset, *size < 32 ? 32 : *size, 0, SIGNATURE);
#endif
}

void libc_save(struct libc_state *state) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &state->signal_mask); /* a handler would run on a stack that two processes share */
    state->tid = NULL;
    prctl(PR_GET_TID_ADDRESS, &state->tid);
    syscall(SYS_get_robust_list, 0, &state->robust_list, &state->robust_list_len);
    sigaltstack(NULL, &state->signal_stack);
}

void libc_restore(const struct libc_state *state) {
    syscall(SYS_set_robust_list, state->robust_list, state->robust_list_len);
    sigaltstack(&state->signal_stack, NULL);
    register_rseq();
    pthread_sigmask(SIG_SETMASK, &state->signal_mask, NULL);
}
