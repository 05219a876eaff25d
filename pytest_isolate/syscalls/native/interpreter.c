/* Stands at the interpreter's path in a root that is not the host's, whose C library is another one or none:
 * starts the host's loader with the host's libraries and the host's interpreter (ld.so(8)), all of them at
 * places where sandbox/lending.py binds them. No C library of its own, so that it runs everywhere. */
#include <stddef.h>
#include <sys/syscall.h>

#define AT "/run/pytest-isolate/"
#define LIBRARIES AT "libraries/"

static const char loader[] = AT "loader";
static const char interpreter[] = AT "interpreter";
/* MOST_DIRECTORIES of kernel/loader.py; what is not there is passed over. */
static const char libraries[] = LIBRARIES "0:" LIBRARIES "1:" LIBRARIES "2:" LIBRARIES "3:" LIBRARIES "4:"
    LIBRARIES "5:" LIBRARIES "6:" LIBRARIES "7";

static long syscall3(long number, long a, long b, long c) {
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#else
#error "pytest-isolate knows x86_64 and aarch64"
#endif
}

/* ``stack``: as the kernel lays it out (argc, argv, NULL, envp, NULL). */
__attribute__((used)) void start(char **stack) {
    long argc = (long)stack[0];
    char **argv = stack + 1;
    char **envp = argv + argc + 1;
    const char *head[] = {loader, "--library-path", libraries, "--argv0", argv[0], interpreter};
    const size_t head_count = sizeof head / sizeof *head;
    const char *volatile command[head_count + (size_t)argc]; /* volatile: no loop becomes a call of memcpy */
    for (size_t i = 0; i < head_count; i++)
        command[i] = head[i];
    for (long i = 1; i <= argc; i++) /* the NULL at the end too */
        command[head_count + (size_t)i - 1] = argv[i];
    syscall3(SYS_execve, (long)loader, (long)command, (long)envp);
    static const char problem[] = "pytest-isolate: cannot start the host's interpreter in this root\n";
    syscall3(SYS_write, 2, (long)problem, sizeof problem - 1);
    syscall3(SYS_exit_group, 127, 0, 0);
    __builtin_unreachable();
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tmov x29, #0\n\tbl start\n");
#endif
