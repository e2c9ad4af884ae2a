// SPDX-License-Identifier: Apache-2.0
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/machine.h"

static void threads_are_shares_of_the_cores(void **state) {
    int cores = machine_cores();
    assert_true(cores >= 1);
    assert_int_equal(machine_threads(0, 1), cores);
    assert_int_equal(machine_threads(0, 0), cores);
    assert_int_equal(machine_threads(0, cores), 1);
    assert_int_equal(machine_threads(0, cores + 1), 1);
    assert_int_equal(machine_threads(7, cores + 1), 7);
}

static void a_bound_process_has_one_core(void **state) {
    cpu_set_t before, one;
    size_t first = 0;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(first, &before)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(machine_cores(), 1);
    assert_int_equal(machine_threads(0, 2), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

// ---- made-up control groups: files below a folder that stands for /

struct tree_file {
    const char *path, *text; // from the folder on
};

static void make_tree(char root[64], const struct tree_file *files, size_t n) {
    struct err e = {0};
    snprintf(root, 64, "/tmp/orrery-test-machine-XXXXXX");
    assert_non_null(mkdtemp(root));
    for (size_t i = 0; i < n; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", root, files[i].path);
        char *slash = strrchr(path, '/');
        *slash = 0;
        assert_int_equal(bytes_make_dirs(path, &e), 0);
        *slash = '/';
        assert_int_equal(bytes_write_file(path, files[i].text, strlen(files[i].text), &e), 0);
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    return remove(path);
}

static void check_tree(const struct tree_file *files, size_t n, int64_t cores, int64_t memory) {
    char root[64];
    make_tree(root, files, n);
    int64_t found_cores = machine_cgroup_cores(root), found_memory = machine_cgroup_memory(root);
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    assert_int_equal(found_cores, cores);
    assert_int_equal(found_memory, memory);
}

#define CHECK_TREE(files, cores, memory) check_tree(files, sizeof(files) / sizeof *(files), cores, memory)

static void the_least_limit_on_the_way_up_counts(void **state) {
    const struct tree_file parent[] = {{"proc/self/cgroup", "0::/pod/job/step\n"},
                                       {"sys/fs/cgroup/cpu.max", "max 100000\n"},
                                       {"sys/fs/cgroup/pod/cpu.max", "250000 100000\n"},
                                       {"sys/fs/cgroup/pod/memory.max", "max\n"},
                                       {"sys/fs/cgroup/pod/job/cpu.max", "800000 100000\n"},
                                       {"sys/fs/cgroup/pod/job/memory.max", "3000000000\n"},
                                       {"sys/fs/cgroup/pod/job/step/cpu.max", "max 100000\n"},
                                       {"sys/fs/cgroup/pod/job/step/memory.max", "4000000000\n"},
                                       {"sys/fs/cgroup/other/cpu.max", "100000 100000\n"}};
    CHECK_TREE(parent, 3, 3000000000);
    const struct tree_file innermost[] = {{"proc/self/cgroup", "0::/pod/job\n"},
                                          {"sys/fs/cgroup/pod/cpu.max", "900000 100000\n"},
                                          {"sys/fs/cgroup/pod/job/cpu.max", "50000 100000\n"}};
    CHECK_TREE(innermost, 1, INT64_MAX);
}

// In a container the path counts from another root than the one that is mounted, or leads out of it.
static void a_container_sees_its_own_limit_at_the_root(void **state) {
    const struct tree_file foreign[] = {{"proc/self/cgroup", "0::/docker/0123\n"},
                                        {"sys/fs/cgroup/cpu.max", "400000 100000\n"},
                                        {"sys/fs/cgroup/memory.max", "7\n"}};
    CHECK_TREE(foreign, 4, 7);
    const struct tree_file outside[] = {{"proc/self/cgroup", "0::/../../x\n"},
                                        {"x/cpu.max", "100000 100000\n"},
                                        {"sys/x/cpu.max", "100000 100000\n"},
                                        {"sys/fs/cgroup/cpu.max", "500000 100000\n"}};
    CHECK_TREE(outside, 5, INT64_MAX);
    const struct tree_file untold[] = {{"sys/fs/cgroup/cpu.max", "600000 100000\n"}};
    CHECK_TREE(untold, 6, INT64_MAX);
}

static void version_1_limits_by_quota_and_period(void **state) {
    const char *groups = "12:cpuset:/a\n5:memory:/pod/job\n4:cpu,cpuacct:/pod/job\n1:name=systemd:/z\n0::/\n";
    const struct tree_file quota[] = {
        {"proc/self/cgroup", groups},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"},
        {"sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us", "150000\n"},
        {"sys/fs/cgroup/cpu/pod/cpu.cfs_period_us", "50000\n"},
        {"sys/fs/cgroup/cpu/pod/job/cpu.cfs_quota_us", "-1\n"},
        {"sys/fs/cgroup/cpu/pod/job/cpu.cfs_period_us", "100000\n"},
        {"sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "5000\n"},
        {"sys/fs/cgroup/memory/pod/job/memory.limit_in_bytes", "9223372036854771712\n"}};
    CHECK_TREE(quota, 3, 5000);
}

static void what_cannot_be_read_is_no_limit(void **state) {
    const struct tree_file nothing[] = {{"proc/self/cgroup", "nonsense\n:\n0::/a\n"}};
    CHECK_TREE(nothing, INT64_MAX, INT64_MAX);
    const struct tree_file odd[] = {{"proc/self/cgroup", "0::/a"},
                                    {"sys/fs/cgroup/a/cpu.max", "100000 0\n"},
                                    {"sys/fs/cgroup/cpu.max", "\n"},
                                    {"sys/fs/cgroup/a/memory.max", ""}};
    CHECK_TREE(odd, INT64_MAX, INT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_are_shares_of_the_cores),
                                       cmocka_unit_test(a_bound_process_has_one_core),
                                       cmocka_unit_test(the_least_limit_on_the_way_up_counts),
                                       cmocka_unit_test(a_container_sees_its_own_limit_at_the_root),
                                       cmocka_unit_test(version_1_limits_by_quota_and_period),
                                       cmocka_unit_test(what_cannot_be_read_is_no_limit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
