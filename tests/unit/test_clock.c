// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/clock.h"

static void iso_dates_are_utc(void **state) {
    char text[CLOCK_ISO_BYTES];
    assert_string_equal(clock_iso(0, text), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_iso(1795370584123000000, text), "2026-11-22T18:03:04.123Z");
    assert_string_equal(clock_iso(951827696999999999, text), "2000-02-29T12:34:56.999Z"); // cut, not rounded
}

static void monotonic_time_moves_on(void **state) {
    int64_t before = clock_monotonic_ns();
    double seconds = clock_seconds();
    clock_sleep_ms(5);
    assert_true(clock_monotonic_ns() - before >= 5000000);
    assert_true(clock_seconds() - seconds >= 0.005);
    assert_true(clock_utc_ns() > 1700000000000000000);
}

static void a_process_knows_its_age(void **state) {
    double before = clock_process_seconds();
    assert_true(before >= -0.02 && before < 60);
    clock_sleep_ms(50);
    double passed = clock_process_seconds() - before;
    assert_true(passed > 0.045 && passed < 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iso_dates_are_utc),
        cmocka_unit_test(monotonic_time_moves_on),
        cmocka_unit_test(a_process_knows_its_age),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
