// SPDX-License-Identifier: Apache-2.0
// What a store asks of its server, by the numbers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "storage/store_s3_pace.h"

#define S ((int64_t)1000000000)

static void window_halves_and_grows(void **state) {
    struct s3_pace p;
    store_s3_pace_init(&p, 16, 0);
    assert_int_equal(store_s3_pace_reply(&p, false, S), 16);
    assert_int_equal(store_s3_pace_reply(&p, true, S), 8);
    for (int i = 0; i < 20; i++)
        assert_int_equal(store_s3_pace_reply(&p, true, S + i * 1000), 8); // one round
    assert_int_equal(store_s3_pace_reply(&p, true, 2 * S), 4);
    for (int i = 3; i < 20; i++) (void)store_s3_pace_reply(&p, true, i * S);
    assert_int_equal(store_s3_pace_reply(&p, true, 20 * S), 1);
    for (int i = 0; i < 3; i++) (void)store_s3_pace_reply(&p, false, 21 * S);
    assert_in_range(store_s3_pace_reply(&p, false, 21 * S), 2, 3);
    for (int i = 0; i < 1000; i++) assert_true(store_s3_pace_reply(&p, false, 21 * S) <= 16);
    assert_int_equal(store_s3_pace_reply(&p, false, 21 * S), 16);
}

// Through an outage the attempts are bounded whatever the number of requests.
static void retries_have_a_budget(void **state) {
    struct s3_pace p;
    int at_once = 0;
    int64_t last = 0;
    store_s3_pace_init(&p, 16, 0);
    for (int i = 0; i < 1000; i++) {
        int64_t wait = store_s3_pace_retry_ns(&p, 0);
        at_once += !wait;
        assert_true(wait >= last);
        last = wait;
    }
    assert_int_equal(at_once, 100);
    assert_in_range(last, 55 * S, 57 * S); // 900 at 16 a second
    store_s3_pace_init(&p, 16, 0);
    for (int i = 0; i < 10000; i++) { // a fifth of all replies bad: never waits
        if (i % 5 == 0) assert_int_equal(store_s3_pace_retry_ns(&p, 0), 0);
        store_s3_pace_success(&p);
    }
}

static void hedges_are_rare(void **state) {
    struct s3_pace p;
    int made = 0;
    store_s3_pace_init(&p, 16, 0);
    assert_int_equal(store_s3_pace_hedge_ns(&p), 2 * S);
    for (int i = 0; i < 100; i++) store_s3_pace_first(&p, S / 1000 * (90 + i % 20));
    assert_in_range(store_s3_pace_hedge_ns(&p), S / 5, S / 2);
    for (int i = 0; i < 100; i++) store_s3_pace_first(&p, 60 * S);
    assert_int_equal(store_s3_pace_hedge_ns(&p), 10 * S);
    for (int i = 0; i < 10000; i++) {
        store_s3_pace_success(&p);
        made += store_s3_pace_hedge(&p);
    }
    assert_in_range(made, 200, 210);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_halves_and_grows),
        cmocka_unit_test(retries_have_a_budget),
        cmocka_unit_test(hedges_are_rare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
