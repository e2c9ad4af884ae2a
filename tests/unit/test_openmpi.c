// SPDX-License-Identifier: Apache-2.0
#include "launcher/openmpi.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void reads_both_forms(void **state) {
    struct openmpi v;
    (void)state;
    assert_true(openmpi_parse("mpirun (Open MPI) 4.1.4\n\nReport bugs to ...", &v));
    assert_true(v.major == 4 && v.minor == 1 && v.patch == 4 && !openmpi_is_5(&v));
    assert_true(openmpi_parse("orrery-rank 0.1.0\nOpen MPI v5.0.11\n", &v));
    assert_true(v.major == 5 && v.minor == 0 && v.patch == 11 && openmpi_is_5(&v));
    assert_true(openmpi_parse("mpirun (Open MPI) 5.1.0rc2", &v));
    assert_int_equal(v.minor, 1);
}

static void tells_what_is_none(void **state) {
    static const char *const others[] = {"", "HYDRA build details: Version 4.0", "Open MPI", "Open MPI vX.Y",
                                         "Open MPI v5"};
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct openmpi v = {1, 2, 3};
        assert_false(openmpi_parse(others[i], &v));
        assert_int_equal(v.major, 0);
    }
}

static void compares_series(void **state) {
    struct openmpi old = {4, 1, 4}, older = {4, 1, 2}, new = {5, 0, 11}, unknown = {0};
    char text[160] = "";
    (void)state;
    assert_false(openmpi_differ(&old, &older, text, sizeof text));
    assert_false(openmpi_differ(&unknown, &new, text, sizeof text));
    assert_false(openmpi_differ(&new, &unknown, text, sizeof text));
    assert_true(openmpi_differ(&new, &old, text, sizeof text));
    assert_string_equal(text, "mpirun is Open MPI 5.0.11, orrery-rank is linked with 4.1.4");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_both_forms),
        cmocka_unit_test(tells_what_is_none),
        cmocka_unit_test(compares_series),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
