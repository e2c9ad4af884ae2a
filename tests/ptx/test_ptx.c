// SPDX-License-Identifier: Apache-2.0
// The machine that runs what nvcc made of kernels: it computes what their C++ computes, and finds what is
// wrong with those that do wrong. ORRERY_PTX: the folder with the PTX.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/ptx/test_ptx.h"

static const char *folder;

static int64_t sample(int i) {
    static const int64_t edges[] = {0,         1,         -1,         INT64_MAX, INT64_MIN,
                                    INT32_MAX, INT32_MIN, 0x7f800000, 0x80000000};
    if (i < (int)(sizeof edges / sizeof *edges)) return edges[i];
    uint64_t x = (uint64_t)i * 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    return (int64_t)(x * 0xbf58476d1ce4e5b9u) >> i % 48;
}

static void computes_like_the_source(void **state) {
    static int64_t in[PTX_TEST_THREADS], a[PTX_TEST_THREADS * PTX_TEST_RESULTS],
        b[PTX_TEST_THREADS * PTX_TEST_RESULTS];
    for (int i = 0; i < PTX_TEST_THREADS; i++) in[i] = sample(i);
    ptx_test_use(NULL);
    assert_int_equal(ptx_test_compute(in, a), 0);
    ptx_test_use(folder);
    assert_int_equal(ptx_test_compute(in, b), 0);
    for (int i = 0; i < PTX_TEST_THREADS * PTX_TEST_RESULTS; i++)
        if (a[i] != b[i])
            fail_msg("thread %d, result %d: %llx, not %llx", i / PTX_TEST_RESULTS, i % PTX_TEST_RESULTS,
                     (unsigned long long)b[i], (unsigned long long)a[i]);
}

// What the run says before it aborts; empty: it did not.
static void said_by(int which, int wrong, char *text, size_t size) {
    int ends[2], status = 0;
    size_t n = 0;
    fflush(NULL);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        _exit(ptx_test_fault(which, wrong));
    }
    close(ends[1]);
    for (ssize_t got; n < size - 1 && (got = read(ends[0], text + n, size - 1 - n)) > 0; n += (size_t)got)
        ;
    text[n] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (n == 0) assert_int_equal(status, 0);
    if (n > 0) assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void faults_are_named(void **state) {
    static const char *const wanted[] = {"nothing orders the two",
                                         "nothing orders the two",
                                         "nothing orders the two",
                                         "nobody has written",
                                         "of block 0 wrote",
                                         "of block 0",
                                         "not device memory",
                                         "nobody has written",
                                         "not aligned",
                                         "a cp.async wrote",
                                         "a bulk store reads",
                                         "thread 17 wrote it and has not fenced it",
                                         "a load of the copy engine wrote",
                                         "a load of the copy engine wrote",
                                         "writes shared memory",
                                         "the cluster's block 1, which has ended"};
    for (int i = 0; i < (int)(sizeof wanted / sizeof *wanted); i++) {
        char text[2000];
        said_by(i, 0, text, sizeof text);
        if (text[0] != '\0') fail_msg("kernel %d, done right: %s", i, text);
        said_by(i, 1, text, sizeof text);
        if (strstr(text, wanted[i]) == NULL) fail_msg("kernel %d: \"%s\", not \"%s\"", i, text, wanted[i]);
        if (i != 11 && i != 15 && strstr(text, "test_ptx.cu:") == NULL && strstr(text, "ptx.cuh:") == NULL)
            fail_msg("kernel %d: \"%s\" names no line", i, text);
    }
}

int main(void) {
    folder = getenv("ORRERY_PTX");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(computes_like_the_source),
        cmocka_unit_test(faults_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
