// SPDX-License-Identifier: Apache-2.0
// Random rounding to bf16: exact where bf16 can be, right in the mean where it cannot, and the same bits for
// the same (seed, step, parameter).
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/rounding.h"

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double value_of(uint16_t low) {
    uint32_t bits = (uint32_t)low << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

static uint16_t draw(float x, uint64_t seed, uint32_t step, uint64_t number) {
    uint32_t words[4];
    rounding_draw(rng_key(seed, RNG_ROUNDING, 0), step, number / ROUNDING_GROUP, words);
    return rounding_random(bits_of(x), words, number);
}

static double mean_of(float x, uint32_t steps) {
    double sum = 0;
    for (uint32_t step = 0; step < steps; step++) sum += value_of(draw(x, 7, step, 12345));
    return sum / steps;
}

// A last place of x in bf16.
static double place_of(float x) {
    return ldexp(1, ilogb((double)x) - 7);
}

// The error of a mean over n draws has a sigma of at most half a place / sqrt(n); nearest never comes closer.
static void the_mean_comes_closer(void **state) {
    const float numbers[] = {1.001f, 3.1415927f, -2.7182817f, 1e-30f, -1e30f, 6.1e-5f, -0.3333333f};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        float x = numbers[i];
        for (uint32_t n = 100; n <= 1000000; n *= 100) {
            double off = fabs(mean_of(x, n) - (double)x) / place_of(x);
            if (!(off <= 2.5 / sqrt(n))) fail_msg("%a: the mean of %u is %g places off", (double)x, n, off);
        }
    }
    double nearest = value_of(rounding_nearest(bits_of(1.001f)));
    assert_true(fabs(nearest - 1.001) > 0.1 * place_of(1.001f));
}

// Over parameters in one step as over steps for one parameter.
static void parameters_are_independent(void **state) {
    enum { N = 400000 };
    double sum = 0, neighbours = 0, before = 0;
    for (uint64_t i = 0; i < N; i++) {
        double off = (value_of(draw(1 + 0x1p-8f, 7, 3, i)) - (1 + 0x1p-8)) * 256; // -1 or 1
        sum += off;
        neighbours += off * before;
        before = off;
    }
    assert_true(fabs(sum) < 4 * sqrt(N));
    assert_true(fabs(neighbours) < 4 * sqrt(N));
}

static void what_fits_stays(void **state) {
    for (uint32_t low = 0; low < 65536; low++) {
        uint32_t bits = low << 16, exponent = bits & 0x7f800000u;
        uint32_t words[4] = {0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu};
        bool nan = exponent == 0x7f800000u && (bits & 0x7fffffu);
        uint16_t want = (uint16_t)(nan ? low | 0x40 : low);
        assert_int_equal(rounding_random(bits, words, low), want);
        assert_int_equal(rounding_nearest(bits), want);
    }
}

static void strange_numbers_pass(void **state) {
    const uint32_t nans[] = {0x7f800001u, 0x7fffffffu, 0xff80ffffu, 0xffffffffu};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++)
        for (uint32_t random = 0; random < 65536; random += 5) {
            uint32_t words[4] = {random, random, random, random};
            uint16_t got = rounding_random(nans[i], words, 0);
            assert_true(isnan(value_of(got)));
            assert_int_equal(got >> 15, nans[i] >> 31);
        }
    assert_true(value_of(draw(INFINITY, 1, 1, 1)) == (double)INFINITY);
    assert_true(value_of(draw(-INFINITY, 1, 1, 1)) == -(double)INFINITY);
    assert_int_equal(draw(-0.0f, 1, 1, 1), 0x8000);
}

// Never further than to a neighbour, and -x as x.
static void neighbours_and_signs(void **state) {
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t words[4], bits;
        rng_block(rng_key(5, RNG_TEST, 0), 0, 0, i, words);
        bits = words[0] & 0x7fffffffu;
        if (bits >= 0x7f7f0000u) continue;
        uint16_t up = rounding_random(bits, words, i), down = rounding_random(bits | 0x80000000u, words, i);
        assert_true(up == bits >> 16 || up == (bits >> 16) + 1);
        assert_int_equal(down, up | 0x8000);
    }
}

static void bits_belong_to_seed_step_and_number(void **state) {
    int same[3] = {0};
    enum { N = 10000 };
    for (uint64_t i = 0; i < N; i++) {
        uint64_t far = i + ((uint64_t)1 << 35); // beyond 32 bits of groups
        uint16_t got = draw(1 + 0x1p-8f, 1, 1, i);
        assert_int_equal(got, draw(1 + 0x1p-8f, 1, 1, i));
        same[0] += got == draw(1 + 0x1p-8f, 2, 1, i);
        same[1] += got == draw(1 + 0x1p-8f, 1, 2, i);
        same[2] += got == draw(1 + 0x1p-8f, 1, 1, far);
    }
    for (int k = 0; k < 3; k++) assert_in_range(same[k], N * 46 / 100, N * 54 / 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mean_comes_closer), cmocka_unit_test(parameters_are_independent),
        cmocka_unit_test(what_fits_stays),       cmocka_unit_test(strange_numbers_pass),
        cmocka_unit_test(neighbours_and_signs),  cmocka_unit_test(bits_belong_to_seed_step_and_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
