/* What the kernel enforces on the calling process, told by itself before it runs any Python of a test: in
 * Python this would copy some hundred pages of memory in each child. */
#ifndef PYTEST_ISOLATE_READBACK_H
#define PYTEST_ISOLATE_READBACK_H

int isolate_tell_entered(int channel_fd);

#endif
