// SPDX-License-Identifier: Apache-2.0
#include "base/machine.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"

// Numbers in a cgroup file, "max" as INT64_MAX; how many were read.
static int read_numbers(const char *path, int64_t *out, int most) {
    struct buf text;
    struct err ignored = {0};
    int n = 0;
    buf_init(&text, 4096);
    if (!bytes_read_file(path, 4096, &text, &ignored)) {
        for (char *word = text.data; *word && n < most; n++) {
            size_t len = strcspn(word, " \n");
            bool last = !word[len];
            word[len] = 0;
            if (!bytes_parse_i64(word, &out[n])) out[n] = INT64_MAX;
            word += last ? len : len + 1;
        }
    }
    buf_fini(&text);
    return n;
}

int machine_cores(void) {
    cpu_set_t set;
    int64_t quota[2];
    int cores = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    if (read_numbers("/sys/fs/cgroup/cpu.max", quota, 2) == 2 && quota[0] != INT64_MAX && quota[1] > 0) {
        int64_t allowed = (quota[0] + quota[1] - 1) / quota[1];
        if (allowed < cores) cores = (int)allowed;
    }
    return cores > 0 ? cores : 1;
}

int64_t machine_memory_bytes(void) {
    struct sysinfo info;
    int64_t limit;
    if (sysinfo(&info)) return -1;
    int64_t physical = (int64_t)info.totalram * info.mem_unit;
    if (read_numbers("/sys/fs/cgroup/memory.max", &limit, 1) == 1 && limit < physical) return limit;
    return physical;
}

int64_t machine_free_bytes(const char *path) {
    struct statvfs st;
    if (statvfs(path, &st)) return -1;
    return (int64_t)st.f_bavail * (int64_t)st.f_frsize;
}

bool machine_can_read_peers(void) {
    char from = 1, to = 0;
    struct iovec here = {&to, 1}, there = {&from, 1};
    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 1;
}

int machine_threads(int64_t asked, int ranks) {
    if (asked > 0) return (int)asked;
    int share = machine_cores() / (ranks > 0 ? ranks : 1);
    return share > 0 ? share : 1;
}
