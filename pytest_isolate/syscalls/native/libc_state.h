/* What the kernel keeps per process and libc believes to be still there after a clone that libc did not make. */
#ifndef PYTEST_ISOLATE_LIBC_STATE_H
#define PYTEST_ISOLATE_LIBC_STATE_H

#include <signal.h>
#include <stddef.h>

struct libc_state {
    int *tid;               /* libc's record of the thread id, or NULL where the kernel does not tell */
    void *robust_list;      /* set_robust_list(2) */
    size_t robust_list_len;
    stack_t signal_stack;   /* CLONE_VM without CLONE_VFORK drops it; faulthandler needs it */
    sigset_t signal_mask;
};

/* Blocks all signals until it is restored, in whichever process. */
void libc_save(struct libc_state *state);
void libc_restore(const struct libc_state *state);

#endif
