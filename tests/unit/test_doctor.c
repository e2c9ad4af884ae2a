// SPDX-License-Identifier: Apache-2.0
// What doctor makes of the ranks' sum, with made-up answers: no machine is fast or slow enough to be relied
// on.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "launcher/doctor_impl.h"

static void check_sum(int status, const char *answer, enum doctor_grade grade, const char *text,
                      const char *cure) {
    struct doctor_finding f = {.name = "ranks"};
    doctor_judge_sum(&f, 3, status, answer, "-----\nmpirun says this\nand that\n");
    assert_int_equal(f.grade, grade);
    assert_non_null(strstr(f.text, text));
    assert_non_null(strstr(f.cure, cure));
}

static void speed_makes_it_good_or_slow(void **state) {
    check_sum(0, "{\"ranks\": 3, \"wrong\": 0, \"bytes\": 4194304, \"seconds\": 0.004}", DOCTOR_GOOD,
              "3 ranks sum right, 1049 MB/s for 4.2 MB", "");
    check_sum(0, "{\"ranks\": 3, \"wrong\": 0, \"bytes\": 50000000, \"seconds\": 1.0}", DOCTOR_GOOD,
              "50 MB/s", "");
    check_sum(0, "{\"ranks\": 3, \"wrong\": 0, \"bytes\": 49000000, \"seconds\": 1.0}", DOCTOR_WARN,
              "49 MB/s", "slow");
    check_sum(0, "{\"ranks\": 3, \"wrong\": 0, \"bytes\": 4194304, \"seconds\": 15.0}", DOCTOR_WARN,
              "3 ranks sum right, 0.3 MB/s", "slow");
    check_sum(0, "{\"ranks\": 3, \"wrong\": 0, \"bytes\": 4194304, \"seconds\": 0.0}", DOCTOR_WARN,
              "0.0 MB/s", "slow");
}

static void what_is_wrong_is_bad_at_any_speed(void **state) {
    check_sum(0, "{\"ranks\": 3, \"wrong\": 2, \"bytes\": 4194304, \"seconds\": 0.001}", DOCTOR_BAD,
              "2 of the sums of 3 ranks are wrong", "test its memory");
    check_sum(0, "{\"ranks\": 1, \"wrong\": 0, \"bytes\": 4194304, \"seconds\": 0.001}", DOCTOR_BAD,
              "3 ranks were started, and each sees 1", "do not know each other");
}

static void no_answer_is_told_in_the_words_that_were_said(void **state) {
    check_sum(1, "{\"ranks\": 3, \"wrong\": 0, \"bytes\": 1, \"seconds\": 1}", DOCTOR_BAD,
              "did not come together (exit 1): mpirun says this", "mpirun -np 2");
    for (size_t i = 0; i < 4; i++) {
        const char *const answers[] = {"", "nonsense", "{\"ranks\": 3", "{\"ranks\": 3, \"wrong\": 0}"};
        check_sum(0, answers[i], DOCTOR_BAD, "did not come together", "mpirun -np 2");
    }
    check_sum(0, "a greeting\n{\"ranks\": 3, \"wrong\": 0, \"bytes\": 100000000, \"seconds\": 1.0}\n",
              DOCTOR_GOOD, "100 MB/s", "");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(speed_makes_it_good_or_slow),
                                       cmocka_unit_test(what_is_wrong_is_bad_at_any_speed),
                                       cmocka_unit_test(no_answer_is_told_in_the_words_that_were_said)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
