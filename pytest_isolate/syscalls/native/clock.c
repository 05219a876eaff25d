#include <Python.h>

#include "clock.h"

#include <string.h>

/* PyCFunctionObject as far as its method (cpython/methodobject.h), the same from CPython 3.10 to 3.14 with the GIL.
 * A call reads ml_meth anew (methodobject.c, ceval.c), also a specialized one. */
struct function {
    Py_ssize_t references;
    void *type;
    PyMethodDef *method;
};

typedef PyObject *(*fast)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

static struct clock_counts counts;
static PyCFunction originals[CLOCK_FUNCTIONS];

static PyObject *count_sleep(PyObject *self, PyObject *seconds) {
    if (counts.is_on) {
        double asked = PyFloat_AsDouble(seconds);
        if (PyErr_Occurred())
            PyErr_Clear(); /* the call itself will say it */
        else if (asked > 0)
            counts.slept_s += asked;
    }
    return originals[CLOCK_SLEEP](self, seconds);
}

#define READER(which)                                                                                                  \
    static PyObject *count_##which(PyObject *self, PyObject *nothing) {                                                \
        counts.reads += counts.is_on;                                                                                  \
        return originals[which](self, nothing);                                                                        \
    }
READER(CLOCK_TIME)
READER(CLOCK_TIME_NS)
READER(CLOCK_UTCNOW)

/* With an argument they convert that, and read no clock. */
#define CONVERTER(which)                                                                                               \
    static PyObject *count_##which(PyObject *self, PyObject *arguments) {                                              \
        counts.reads += counts.is_on && PyTuple_Size(arguments) == 0;                                                  \
        return originals[which](self, arguments);                                                                      \
    }
CONVERTER(CLOCK_LOCALTIME)
CONVERTER(CLOCK_GMTIME)
CONVERTER(CLOCK_CTIME)

static PyObject *count_now(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names) {
    counts.reads += counts.is_on;
    return ((fast)(void *)originals[CLOCK_NOW])(self, arguments, count, names);
}

static const struct {
    PyCFunction function;
    int flags;
} counting[CLOCK_FUNCTIONS] = {
    [CLOCK_SLEEP] = {count_sleep, METH_O},
    [CLOCK_TIME] = {count_CLOCK_TIME, METH_NOARGS},
    [CLOCK_TIME_NS] = {count_CLOCK_TIME_NS, METH_NOARGS},
    [CLOCK_LOCALTIME] = {count_CLOCK_LOCALTIME, METH_VARARGS},
    [CLOCK_GMTIME] = {count_CLOCK_GMTIME, METH_VARARGS},
    [CLOCK_CTIME] = {count_CLOCK_CTIME, METH_VARARGS},
    [CLOCK_NOW] = {(PyCFunction)(void *)count_now, METH_FASTCALL | METH_KEYWORDS | METH_CLASS},
    [CLOCK_UTCNOW] = {count_CLOCK_UTCNOW, METH_NOARGS | METH_CLASS},
};

int isolate_count_clock(void *function, void *type, const char *name, int which) {
    const struct function *found = function;
    if (found->type != type || strcmp(found->method->ml_name, name) != 0 ||
        found->method->ml_flags != counting[which].flags)
        return -1;
    if (found->method->ml_meth != counting[which].function) {
        originals[which] = found->method->ml_meth;
        found->method->ml_meth = counting[which].function;
    }
    return 0;
}

struct clock_counts *isolate_clock_counts(void) { return &counts; }
