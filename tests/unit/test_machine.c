// SPDX-License-Identifier: Apache-2.0
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_are_shares_of_the_cores),
                                       cmocka_unit_test(a_bound_process_has_one_core)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
