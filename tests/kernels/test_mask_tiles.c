// SPDX-License-Identifier: Apache-2.0
// Masks cut into tiles and masks turned round, against the pairs they stand for.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernels/cuda/schedule.h"
#include "mask_make.h"

static bool sees(const struct mask *m, int64_t q, int64_t k) {
    for (int32_t r = 0; r < m->n_runs; r++) {
        if (q < m->runs[r].q_lo || q >= m->runs[r].q_hi) continue;
        for (int32_t i = 0; i < m->runs[r].count; i++) {
            struct mask_interval v = m->intervals[m->runs[r].first + i];
            if (k >= v.lo && k < v.hi) return true;
        }
    }
    return false;
}

// -1: nothing seen, 0: all (and inside the mask), 1: partly.
static int kind_of(const struct mask *m, int64_t q, int64_t k, int32_t rows, int32_t cols) {
    int64_t seen = 0;
    for (int64_t i = q; i < q + rows && i < m->queries; i++) {
        for (int64_t j = k; j < k + cols && j < m->keys; j++) seen += sees(m, i, j);
    }
    return seen == 0 ? -1 : seen == (int64_t)rows * cols ? 0 : 1;
}

static void check_schedule(const struct mask *m, int32_t rows, int32_t cols) {
    struct err e = {0};
    struct schedule s;
    assert_int_equal(schedule_build(&s, m, rows, cols, &e), 0);
    assert_int_equal(s.n_tiles, (m->queries + rows - 1) / rows);
    for (int32_t t = 0; t < s.n_tiles; t++) {
        int32_t steps = 0, next = 0, r = s.tile[t].first;
        for (int32_t j = 0; j < (m->keys + cols - 1) / cols; j++) {
            int want = kind_of(m, (int64_t)t * rows, (int64_t)j * cols, rows, cols), got = -1;
            while (r < s.tile[t].first + s.tile[t].count && s.range[r].hi <= j) r++;
            if (r < s.tile[t].first + s.tile[t].count && s.range[r].lo <= j) got = s.range[r].partly;
            assert_int_equal(got, want);
            steps += got >= 0;
        }
        for (r = s.tile[t].first; r < s.tile[t].first + s.tile[t].count; r++) {
            assert_true(s.range[r].lo >= next && s.range[r].hi > s.range[r].lo);
            next = s.range[r].hi;
        }
        assert_int_equal(s.tile[t].steps, steps);
    }
    for (int32_t t = 1; t < s.n_tiles; t++) {
        int32_t a = s.tile[s.order[t - 1]].steps, b = s.tile[s.order[t]].steps;
        assert_true(a > b || (a == b && s.order[t - 1] < s.order[t]));
    }
    schedule_fini(&s);
}

static void check_transpose(const struct mask *m) {
    struct err e = {0};
    struct mask t;
    assert_int_equal(mask_transpose(&t, m, &e), 0);
    assert_int_equal(mask_check(&t, &e), 0);
    assert_int_equal(t.queries, m->keys);
    assert_int_equal(t.keys, m->queries);
    assert_int_equal(mask_pairs(&t), mask_pairs(m));
    for (int64_t q = 0; q < m->queries; q++) {
        for (int64_t k = 0; k < m->keys; k++) assert_int_equal(sees(m, q, k), sees(&t, k, q));
    }
    struct schedule_row *row = malloc((size_t)(m->queries + 1) * sizeof *row);
    schedule_rows(m, row);
    for (int64_t q = 0; q < m->queries; q++) {
        for (int32_t i = row[q].first; i < row[q].end; i++) assert_true(sees(m, q, m->intervals[i].lo));
    }
    free(row);
    mask_fini(&t);
}

static void random_masks(void **state) {
    for (uint64_t round = 0; round < 60; round++) {
        struct mask_blocks h = {round * 77, 1 + (int64_t)(round % 11), (int)(round % 9)};
        int64_t queries = 1 + (int64_t)(rng_mix64(round) % 60),
                keys = 1 + (int64_t)(rng_mix64(round + 99) % 60);
        struct mask m = mask_make(queries, keys, mask_blocks_visible, &h);
        check_schedule(&m, 8, 4);
        check_schedule(&m, 4, 8);
        check_transpose(&m);
        mask_fini(&m);
    }
}

static void block_causal_masks(void **state) {
    struct err e = {0};
    for (int64_t window = 0; window < 3; window++) {
        for (int64_t per_frame = 1; per_frame < 12; per_frame += 2) {
            struct mask m;
            assert_int_equal(mask_block_causal(&m, 7, per_frame, window, 7 - window, &e), 0);
            check_schedule(&m, 8, 8);
            check_transpose(&m);
            mask_fini(&m);
        }
    }
}

// A long mask of single tokens: the sweep must not take quadratic time, nor the lists quadratic room.
// As sequences that lack a sense have them: every frame sees a longer stretch of one list, with holes.
static void runs_share_intervals(void **state) {
    enum { FRAMES = 23, TOKENS = 7 };
    struct mask m = {
        .queries = FRAMES * TOKENS, .keys = FRAMES * TOKENS, .n_runs = FRAMES, .n_intervals = 2 * FRAMES};
    m.runs = calloc(FRAMES, sizeof *m.runs);
    m.intervals = calloc(2 * FRAMES, sizeof *m.intervals);
    for (int32_t f = 0; f < FRAMES; f++) {
        m.intervals[2 * f] = (struct mask_interval){f * TOKENS, f * TOKENS + 2};
        m.intervals[2 * f + 1] = (struct mask_interval){f * TOKENS + 3, f * TOKENS + 6};
        m.runs[f] = (struct mask_run){f * TOKENS, (f + 1) * TOKENS, 0, 2 * (f + 1)};
    }
    check_transpose(&m);
    check_schedule(&m, 16, 8);
    mask_fini(&m);
}

static void long_causal_mask(void **state) {
    struct err e = {0};
    struct mask m, t;
    struct schedule s;
    assert_int_equal(mask_block_causal(&m, 262144, 1, 0, 262144, &e), 0);
    assert_int_equal(mask_transpose(&t, &m, &e), 0);
    assert_int_equal(t.n_runs, 262144);
    assert_int_equal(t.n_intervals, 262144);
    assert_int_equal(schedule_build(&s, &m, 128, 128, &e), 0);
    assert_int_equal(s.n_ranges, 2 * 2048 - 1);
    assert_int_equal(s.order[0], 2047);
    schedule_fini(&s);
    mask_fini(&t);
    mask_fini(&m);
}

// Work of tiles of so many rows, over frames of `per_frame` tokens, block-causal.
static int64_t work_of(int64_t frames, int64_t per_frame, int32_t rows) {
    struct mask m;
    struct schedule s;
    struct err e = {0};
    assert_int_equal(mask_block_causal(&m, frames, per_frame, 0, frames, &e), 0);
    assert_int_equal(schedule_build(&s, &m, rows, SM90_KEYS, &e), 0);
    int64_t work = schedule_work(&s);
    schedule_fini(&s);
    mask_fini(&m);
    return work;
}

// Pairs of blocks pay where both halves of a pair's tile see next to the same keys.
static void pairs_where_they_pay(void **state) {
    static const struct {
        int64_t frames, per_frame;
        bool pays;
    } cases[] = {{1, 8192, true},   {32, 256, true},  {8192, 1, false}, {32768, 1, true},
                 {16384, 1, false}, {40, 200, false}, {1, 128, false},  {1, 8320, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t alone = work_of(cases[i].frames, cases[i].per_frame, SM90_ROWS);
        int64_t both = work_of(cases[i].frames, cases[i].per_frame, 2 * SM90_ROWS);
        assert_true(2 * both >= alone);
        assert_int_equal(gpu_attention_pairs(alone, both), cases[i].pays);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_masks),         cmocka_unit_test(block_causal_masks),
        cmocka_unit_test(runs_share_intervals), cmocka_unit_test(long_causal_mask),
        cmocka_unit_test(pairs_where_they_pay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
