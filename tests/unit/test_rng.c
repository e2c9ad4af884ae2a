// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/rng.h"

// The known answers of the paper's own library for Philox4x32-10.
static void philox_gives_the_known_answers(void **state) {
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const uint32_t *c = rows[i].counter;
        uint32_t out[4];
        struct rng_key key = {rows[i].key[0], rows[i].key[1]};
        rng_block(key, c[3], (uint64_t)c[2] << 32 | c[1], c[0], out);
        assert_memory_equal(out, rows[i].want, sizeof out);
    }
}

static void keys_keep_purposes_apart(void **state) {
    struct rng_key a = rng_key(1, RNG_SHUFFLE, 0), b = rng_key(1, RNG_WINDOW, 0),
                   c = rng_key(1, RNG_SHUFFLE, 1), d = rng_key(2, RNG_SHUFFLE, 0);
    assert_true(a.k0 != b.k0 || a.k1 != b.k1);
    assert_true(a.k0 != c.k0 || a.k1 != c.k1);
    assert_true(a.k0 != d.k0 || a.k1 != d.k1);
}

static void a_stream_is_its_blocks_in_a_row(void **state) {
    struct rng_key key = rng_key(9, RNG_WORLD, 2);
    struct rng_stream r;
    rng_stream_init(&r, key, 5, 77);
    for (uint32_t element = 0; element < 5; element++) {
        uint32_t want[4];
        rng_block(key, 5, 77, element, want);
        for (int i = 0; i < 4; i++) assert_int_equal(rng_next_u32(&r), want[i]);
    }
}

static void units_stay_inside(void **state) {
    assert_true(rng_unit(0) > 0);
    assert_true(rng_unit(0xffffffff) < 1);
    struct rng_stream r;
    rng_stream_init(&r, rng_key(3, RNG_TEST, 0), 0, 0);
    for (int i = 0; i < 100000; i++) {
        double v = rng_next_range(&r, -2, 5);
        assert_true(v > -2 && v < 5);
    }
}

static void below_is_uniform(void **state) {
    struct rng_stream r;
    int seen[7] = {0};
    rng_stream_init(&r, rng_key(4, RNG_TEST, 0), 0, 0);
    for (int i = 0; i < 70000; i++) {
        uint32_t v = rng_next_below(&r, 7);
        assert_true(v < 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++) assert_in_range(seen[i], 9500, 10500); // 5 standard deviations
    assert_int_equal(rng_next_below(&r, 1), 0);
    assert_true(rng_next_below(&r, 0xffffffff) < 0xffffffff);
}

static void normals_have_mean_0_and_variance_1(void **state) {
    struct rng_stream r;
    double sum = 0, squares = 0, fourth = 0;
    int n = 200000;
    rng_stream_init(&r, rng_key(5, RNG_TEST, 0), 0, 0);
    for (int i = 0; i < n; i++) {
        double v = rng_next_normal(&r);
        sum += v;
        squares += v * v;
        fourth += v * v * v * v;
    }
    assert_true(fabs(sum / n) < 0.02);
    assert_true(fabs(squares / n - 1) < 0.02);
    assert_true(fabs(fourth / n - 3) < 0.15);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(keys_keep_purposes_apart),
        cmocka_unit_test(a_stream_is_its_blocks_in_a_row),
        cmocka_unit_test(units_stay_inside),
        cmocka_unit_test(below_is_uniform),
        cmocka_unit_test(normals_have_mean_0_and_variance_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
