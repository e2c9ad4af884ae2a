// SPDX-License-Identifier: Apache-2.0
// What this machine offers a job: processors, memory, disk. Asks the kernel; changes nothing.
#ifndef ORRERY_BASE_MACHINE_H
#define ORRERY_BASE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

int machine_cores(void);            // that we may use: affinity and container quota
int64_t machine_memory_bytes(void); // that we may use: physical, or the container's limit
// The least that the control groups of this process allow, those above it included, of versions 1 and 2:
// cores rounded up, bytes; very many where there is no limit. `root` stands before /proc and /sys: "".
int64_t machine_cgroup_cores(const char *root);
int64_t machine_cgroup_memory(const char *root);
int64_t machine_free_bytes(const char *path); // of the file system; -1: unknown
bool machine_can_read_peers(void); // process_vm_readv works: single-copy shared memory between ranks
// Threads per rank: `asked`, or the cores shared out among the ranks, at least 1.
int machine_threads(int64_t asked, int ranks);

#endif
