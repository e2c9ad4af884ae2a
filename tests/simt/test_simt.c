// SPDX-License-Identifier: Apache-2.0
// The emulator of CUDA kernels: barriers, shuffles, shared memory, and that it finds what it should find.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/simt/test_simt.h"

static void sums_of_blocks(void **state) {
    enum { N = 10007, BLOCKS = 3 };
    float *x = malloc(N * sizeof *x), out[BLOCKS], sum = 0;
    for (int i = 0; i < N; i++) x[i] = (float)(i % 7), sum += x[i];
    assert_int_equal(simt_test_sums(x, out, N, BLOCKS), 0);
    assert_true(out[0] + out[1] + out[2] == sum);
    free(x);
}

static void shared_memory_crosses_threads(void **state) {
    uint16_t x[384];
    float out[256];
    for (int i = 0; i < 384; i++) x[i] = (uint16_t)(i < 128 ? 0x3f80 : 0x4000); // 1, then 2
    assert_int_equal(simt_test_reverse(x, out), 0);
    for (int i = 0; i < 256; i++) assert_true(out[i] == (i < 128 ? 2.0f : 1.0f));
}

// The signal that ends `run`.
static int death_of(int (*run)(int), int arg) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(1);
        run(arg);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static int hang(int arg) {
    return simt_test_hang();
}

static void faults_are_found(void **state) {
    assert_int_equal(death_of(hang, 0), SIGABRT);
    assert_int_equal(death_of(simt_test_beyond, 999), 0);
    assert_int_equal(death_of(simt_test_beyond, 1000), SIGABRT);
    assert_int_equal(death_of(simt_test_beyond, 1024), SIGSEGV);
    assert_int_equal(simt_test_unfenced(-1), 0);
    assert_int_equal(death_of(simt_test_unfenced, 17), SIGABRT);
    assert_int_not_equal(death_of(simt_test_beyond, -1), 0);
}

static void shared_memory_has_to_be_asked_for(void **state) {
    assert_int_equal(simt_test_room(48 << 10, 0), 0);
    assert_int_not_equal(simt_test_room(49 << 10, 0), 0);
    assert_int_equal(simt_test_room(49 << 10, 49 << 10), 0);
    assert_int_not_equal(simt_test_room(64 << 10, 0), 0);
    assert_int_equal(simt_test_room(227 << 10, 228 << 10), -1);
}

static void captured_work_runs_when_launched(void **state) {
    float x[3] = {1, 1, 1};
    assert_int_equal(simt_test_capture(x, 3), 0);
    assert_true(x[0] == 10 && x[1] == 10 && x[2] == 3); // ((1 + 1) 2 + 1) 2; the last is not doubled
}

static void what_cannot_be_captured_is_refused(void **state) {
    static const int wanted[] = {0, 901, 901, 904, 907};
    for (int i = 0; i < 5; i++) assert_int_equal(simt_test_refused(i), wanted[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_blocks),
        cmocka_unit_test(shared_memory_crosses_threads),
        cmocka_unit_test(faults_are_found),
        cmocka_unit_test(shared_memory_has_to_be_asked_for),
        cmocka_unit_test(captured_work_runs_when_launched),
        cmocka_unit_test(what_cannot_be_captured_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
