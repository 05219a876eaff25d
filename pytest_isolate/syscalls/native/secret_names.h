#ifndef PYTEST_ISOLATE_SECRET_NAMES_H
#define PYTEST_ISOLATE_SECRET_NAMES_H

/* What only the user's own machine has: files and directories of a home. NULL ends them. */
extern const char *const isolate_secrets[];

#endif
