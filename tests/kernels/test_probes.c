// SPDX-License-Identifier: Apache-2.0
// The probes for a GPU's first minutes (tests/bench/gpu/probes.cu) on the emulator: there they must all be
// right.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/bench/gpu/probes.h"

static void descriptors_of_wgmma(void **state) {
    for (int form = 0; form < PROBE_FORMS; form++) assert_int_equal(probe_wgmma(stdout, form), 0);
    assert_int_equal(probe_wgmma(stdout, PROBE_FORMS), -1);
}

static void boxes_of_the_copy_engine(void **state) {
    assert_int_equal(probe_boxes(stdout), 0);
}

static void additions_in_order(void **state) {
    assert_int_equal(probe_order(stdout, 3, 1, 0), 0);
}

static void pairs_of_blocks(void **state) {
    assert_int_equal(probe_pairs(stdout), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_of_wgmma),
        cmocka_unit_test(boxes_of_the_copy_engine),
        cmocka_unit_test(additions_in_order),
        cmocka_unit_test(pairs_of_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
