// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "trainer/fault.h"

static struct fault make(const char *spec, int rank, int attempt) {
    struct fault f;
    struct err e = {0};
    assert_int_equal(fault_init(&f, spec, rank, 8, attempt, &e), 0);
    return f;
}

static void selectors_choose_rank_step_phase_and_attempt(void **state) {
    struct fault f = make("nan:rank=1,step=20,phase=backward", 1, 1);
    assert_int_equal(fault_at(&f, 19, PHASE_BACKWARD), FAULT_NONE);
    assert_int_equal(fault_at(&f, 20, PHASE_FORWARD), FAULT_NONE);
    assert_int_equal(fault_at(&f, 20, PHASE_BACKWARD), FAULT_NAN);
    assert_int_equal(fault_at(&f, 20, PHASE_BACKWARD), FAULT_NONE); // once
    assert_int_equal(make("nan:rank=1", 0, 1).n, 0);
    assert_int_equal(make("nan", 0, 2).n, 0); // the run that resumes goes on
    assert_int_equal(make("nan:attempt=2", 0, 2).n, 1);
    assert_int_equal(make("nan:attempt=any", 0, 7).n, 1);
    assert_int_equal(make("", 0, 1).n, 0);
    assert_int_equal(make("nan:step=3;kill:rank=4;enospc", 0, 1).n, 2);
}

static void store_faults_make_a_url(void **state) {
    char url[128];
    struct err e = {0};
    struct fault f = make("store=503:5%;kill:step=4;store=delay:20ms@10%:rank=1", 1, 1);
    assert_int_equal(f.n, 1);
    assert_int_equal(fault_store_url(&f, "s3://b/p", url, sizeof url, &e), 0);
    assert_string_equal(url, "fault:503=5%,delay=20ms@10%:s3://b/p");
    assert_int_equal(fault_store_url(&f, "", url, sizeof url, &e), 0);
    assert_string_equal(url, "");
    assert_int_not_equal(fault_store_url(&f, "s3://b/p", url, 20, &e), 0);
    f = make("store=503:5%:rank=1", 0, 1);
    assert_int_equal(fault_store_url(&f, "dir", url, sizeof url, NULL), 0);
    assert_string_equal(url, "dir");
    assert_string_equal(make("store=503:5%", 0, 2).store, "");
    assert_string_equal(make("store=lost:5%:attempt=any", 0, 2).store, "lost=5%");
}

static void nan_waits_for_the_forward(void **state) {
    struct fault f = make("nan:step=5", 0, 1);
    assert_int_equal(fault_at(&f, 5, PHASE_DATA), FAULT_NONE);
    assert_int_equal(fault_at(&f, 5, PHASE_FORWARD), FAULT_NAN);
}

static void enospc_waits_for_a_checkpoint(void **state) {
    struct fault f = make("enospc:step=5", 0, 1);
    assert_int_equal(fault_at(&f, 5, PHASE_FORWARD), FAULT_NONE);
    assert_int_equal(fault_at(&f, 5, PHASE_CHECKPOINT), FAULT_ENOSPC);
}

// Runs one fault in a child and returns its wait status.
static int status_of(const char *spec) {
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        struct fault f = make(spec, 0, 1);
        alarm(2); // for spin
        fault_at(&f, 0, PHASE_DATA);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    if (WIFSTOPPED(status)) {
        int end;
        kill(pid, SIGKILL);
        waitpid(pid, &end, 0);
    }
    return status;
}

static void deadly_kinds_do_what_they_say(void **state) {
    int status = status_of("kill");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    status = status_of("segv");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = status_of("exit=7");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    status = status_of("stop");
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    status = status_of("spin");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
}

static void slow_takes_its_time_every_step(void **state) {
    struct fault f = make("slow=20ms", 0, 1);
    int64_t begin = clock_monotonic_ns();
    for (int64_t step = 1; step <= 3; step++) {
        fault_at(&f, step, PHASE_DATA);
        fault_at(&f, step, PHASE_FORWARD);
    }
    assert_true(clock_monotonic_ns() - begin >= 60000000);
}

static void bad_specs_are_refused_with_their_place(void **state) {
    static const char *const bad[] = {"explode",      "kill=3",
                                      "exit",         "exit=256",
                                      "exit=x",       "slow",
                                      "slow=5",       "slow=0.5x",
                                      "slow=1e9x",    "kill:rank",
                                      "kill:rank=x",  "kill:rank=-1",
                                      "kill:where=1", "kill:phase=lunch",
                                      "kill:step=",   ":",
                                      "kill:rank=1,", "nan:step=99999999999999999999",
                                      "store",        "store=503",
                                      "store=:5%",    "store=503:5",
                                      "store=503=5%"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fault f;
        struct err e = {0};
        assert_int_not_equal(fault_init(&f, bad[i], 0, 8, 1, &e), 0);
        assert_int_equal(e.code, ERR_CONFIG);
        assert_non_null(strstr(e.text, "fault.inject"));
    }
}

static void a_rank_that_is_not_there_cannot_fail(void **state) {
    struct fault f;
    struct err e = {0};
    assert_int_equal(fault_init(&f, "kill:rank=2", 0, 2, 1, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "no rank 2"));
    err_clear(&e);
    assert_int_equal(fault_init(&f, "kill:rank=1", 0, 2, 1, &e), 0);
    // A run that goes on with fewer ranks keeps its config.
    assert_int_equal(fault_init(&f, "kill:rank=2", 0, 2, 2, &e), 0);
    assert_int_equal(fault_init(&f, "slow=20ms:rank=2,attempt=any", 0, 2, 2, &e), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selectors_choose_rank_step_phase_and_attempt),
        cmocka_unit_test(store_faults_make_a_url),
        cmocka_unit_test(a_rank_that_is_not_there_cannot_fail),
        cmocka_unit_test(nan_waits_for_the_forward),
        cmocka_unit_test(enospc_waits_for_a_checkpoint),
        cmocka_unit_test(deadly_kinds_do_what_they_say),
        cmocka_unit_test(slow_takes_its_time_every_step),
        cmocka_unit_test(bad_specs_are_refused_with_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
