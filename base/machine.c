// SPDX-License-Identifier: Apache-2.0
#include "base/machine.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"

#define CGROUPS_BYTES 65536

// Numbers in a cgroup file, "max" as INT64_MAX; how many were read.
static int read_numbers(const char *path, int64_t *out, int most) {
    struct buf text;
    struct err ignored = {0};
    int n = 0;
    buf_init(&text, 4096);
    if (!bytes_read_file(path, 4096, &text, &ignored) && text.len) {
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

// ---- cgroups: a limit of any folder above ours binds us too

// The path that /proc/self/cgroup gives for `controller`, "" for the one hierarchy of version 2; false: there
// is none.
static bool find_cgroup(const char *text, const char *controller, char *out, size_t n) {
    for (const char *line = text; *line;) {
        const char *end = line + strcspn(line, "\n");
        const char *names = memchr(line, ':', (size_t)(end - line));
        const char *path = names ? memchr(names + 1, ':', (size_t)(end - names - 1)) : NULL;
        line = *end ? end + 1 : end;
        if (!path) continue;
        bool named = !*controller && path == names + 1;
        for (const char *at = names + 1; at < path && *controller; at += strcspn(at, ",:") + 1)
            named = named ||
                    (strcspn(at, ",:") == strlen(controller) && !strncmp(at, controller, strlen(controller)));
        if (!named) continue;
        return (size_t)snprintf(out, n, "%.*s", (int)(end - path - 1), path + 1) < n;
    }
    return false;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

typedef int64_t limit_fn(const char *folder);

// The least limit from our folder of the hierarchy up to its root, as far as it can be seen: a container may
// see another root than the path counts from.
static int64_t least_limit(const char *root, const char *controller, limit_fn *limit_of) {
    char name[PATH_MAX], group[PATH_MAX / 2] = "", folder[PATH_MAX];
    struct buf text;
    struct err ignored = {0};
    int64_t least = INT64_MAX;
    snprintf(name, sizeof name, "%s/proc/self/cgroup", root);
    buf_init(&text, CGROUPS_BYTES);
    bool known = !bytes_read_file(name, CGROUPS_BYTES, &text, &ignored) && text.len &&
                 find_cgroup(text.data, controller, group, sizeof group);
    buf_fini(&text);
    if (!known || strstr(group, "/..")) group[0] = 0;
    for (char *end = group + strlen(group); end; end = strrchr(group, '/')) {
        *end = 0;
        bool fits = (size_t)snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s%s%s", root,
                                     *controller ? "/" : "", controller, group) < sizeof folder;
        if (fits) least = smaller(least, limit_of(folder));
    }
    return least;
}

// Numbers of FOLDER/NAME.
static int limits_in(const char *folder, const char *name, int64_t *out, int most) {
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path) return 0;
    return read_numbers(path, out, most);
}

static int64_t cores_of(int64_t quota, int64_t period) {
    if (quota <= 0 || quota == INT64_MAX || period <= 0) return INT64_MAX;
    return quota / period + (quota % period != 0);
}

static int64_t cores_v2(const char *folder) {
    int64_t quota[2];
    return limits_in(folder, "cpu.max", quota, 2) == 2 ? cores_of(quota[0], quota[1]) : INT64_MAX;
}

static int64_t cores_v1(const char *folder) {
    int64_t quota, period;
    bool told = limits_in(folder, "cpu.cfs_quota_us", &quota, 1) == 1 &&
                limits_in(folder, "cpu.cfs_period_us", &period, 1) == 1;
    return told ? cores_of(quota, period) : INT64_MAX;
}

static int64_t memory_v2(const char *folder) {
    int64_t bytes;
    return limits_in(folder, "memory.max", &bytes, 1) == 1 ? bytes : INT64_MAX;
}

static int64_t memory_v1(const char *folder) {
    int64_t bytes;
    return limits_in(folder, "memory.limit_in_bytes", &bytes, 1) == 1 ? bytes : INT64_MAX;
}

int64_t machine_cgroup_cores(const char *root) {
    return smaller(least_limit(root, "", cores_v2), least_limit(root, "cpu", cores_v1));
}

int64_t machine_cgroup_memory(const char *root) {
    return smaller(least_limit(root, "", memory_v2), least_limit(root, "memory", memory_v1));
}

// ---- what there is

int machine_cores(void) {
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    int64_t allowed = machine_cgroup_cores("");
    if (allowed < cores) cores = (int)allowed;
    return cores > 0 ? cores : 1;
}

int64_t machine_memory_bytes(void) {
    struct sysinfo info;
    if (sysinfo(&info)) return -1;
    return smaller((int64_t)info.totalram * info.mem_unit, machine_cgroup_memory(""));
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
