// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "comm/grid.h"

static void places_and_ranks_are_inverse(void **state) {
    struct grid g;
    struct err e = {0};
    assert_int_equal(grid_init(&g, 48, 2, 4, 3, &e), 0);
    assert_int_equal(g.dp, 2);
    for (int rank = 0; rank < 48; rank++) {
        struct grid_place p = grid_place_of(&g, rank);
        assert_in_range(p.tp, 0, 3);
        assert_in_range(p.cp, 0, 1);
        assert_in_range(p.dp, 0, 1);
        assert_in_range(p.pp, 0, 2);
        assert_int_equal(grid_rank_of(&g, p), rank);
    }
    assert_int_equal(grid_place_of(&g, 1).tp, 1); // tp fastest, then cp, dp, pp
    assert_int_equal(grid_place_of(&g, 4).cp, 1);
    assert_int_equal(grid_place_of(&g, 8).dp, 1);
    assert_int_equal(grid_place_of(&g, 16).pp, 1);
}

static void refuses(int world, int cp, int tp, int pp) {
    struct grid g;
    struct err e = {0};
    assert_int_equal(grid_init(&g, world, cp, tp, pp, &e), -ERR_CONFIG);
    assert_true(e.text[0] != 0);
}

static void what_does_not_divide_is_refused(void **state) {
    refuses(6, 4, 1, 1);
    refuses(2, 1, 4, 1);
    refuses(0, 1, 1, 1);
    refuses(4, 0, 1, 1);
    refuses(4, 1, -1, 1);
    refuses(2147483647, 65536, 65536, 65536);
}

static void a_split_covers_everything_once(void **state) {
    for (int64_t n = 0; n < 40; n++) {
        for (int parts = 1; parts < 12; parts++) {
            int64_t at = 0, shortest = n, longest = 0;
            for (int part = 0; part < parts; part++) {
                int64_t lo, hi;
                grid_split(n, parts, part, &lo, &hi);
                assert_int_equal(lo, at);
                if (hi - lo < shortest) shortest = hi - lo;
                if (hi - lo > longest) longest = hi - lo;
                at = hi;
            }
            assert_int_equal(at, n);
            assert_true(longest - shortest <= 1);
        }
    }
}

static void every_rank_needs_a_shard(void **state) {
    struct err e = {0};
    assert_int_equal(grid_check_shards(4, 4, &e), 0);
    assert_int_equal(grid_check_shards(4, 1, &e), 0);
    assert_int_equal(grid_check_shards(4, 5, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "comm.shards 4 is less than the 5 ranks"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_and_ranks_are_inverse),
        cmocka_unit_test(what_does_not_divide_is_refused),
        cmocka_unit_test(a_split_covers_everything_once),
        cmocka_unit_test(every_rank_needs_a_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
