// SPDX-License-Identifier: Apache-2.0
#include "storage/loader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage/hash.h"

static struct loader_plan *make(const int64_t *frames, int64_t n, uint64_t seed, int64_t window,
                                int64_t block) {
    struct err e = {ERR_OK};
    struct loader_plan *p;
    struct loader_options o = {seed, window, block};
    int rc = loader_plan_create_frames(&p, frames, n, &o, &e);
    if (rc) fprintf(stderr, "%s\n", e.text);
    assert_int_equal(rc, 0);
    return p;
}

static void hash_range(struct hash_sha256 *h, const struct loader_plan *p, int64_t lo, int64_t hi) {
    for (int64_t g = lo; g < hi; g++) {
        struct loader_item item;
        loader_item_at(p, g, &item);
        hash_sha256_update(h, &item, sizeof item);
    }
}

// Every window of an episode once, in bounds, apart from each other by exactly a window.
static void check_epoch(const struct loader_plan *p, const int64_t *frames, int64_t n, int64_t window,
                        int64_t epoch) {
    int64_t items = loader_items_in_epoch(p);
    int64_t *count = calloc((size_t)n, sizeof *count);
    unsigned char **seen = calloc((size_t)n, sizeof *seen);
    assert_true(count && seen);
    for (int64_t i = 0; i < n; i++) seen[i] = calloc((size_t)frames[i] + 1, 1);
    for (int64_t g = epoch * items; g < (epoch + 1) * items; g++) {
        struct loader_item item;
        loader_item_at(p, g, &item);
        assert_int_equal(item.epoch, epoch);
        assert_true(item.sample >= 0 && item.sample < n);
        assert_true(item.first_frame >= 0 && item.first_frame + window <= frames[item.sample]);
        for (int64_t f = 0; f < window; f++) {
            assert_int_equal(seen[item.sample][item.first_frame + f], 0);
            seen[item.sample][item.first_frame + f] = 1;
        }
        count[item.sample]++;
    }
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t want = (frames[i] - window + 1) / window;
        assert_int_equal(count[i], want < 1 ? 1 : want);
        total += count[i];
        free(seen[i]);
    }
    assert_int_equal(total, items);
    free(count);
    free(seen);
}

static void each_window_once_per_epoch(void **state) {
    (void)state;
    int64_t frames[230];
    int64_t windows[] = {1, 2, 7, 10};
    int64_t blocks[] = {1, 3, 64, 229, 230, 1000000};
    for (int64_t i = 0; i < 230; i++) frames[i] = 10 + (i * 37) % 91;
    for (int n = 1; n <= 230; n += n < 5 ? 1 : 75)
        for (size_t w = 0; w < 4; w++)
            for (size_t b = 0; b < 6; b++) {
                struct loader_plan *p = make(frames, n, 5 + w, windows[w], blocks[b]);
                for (int64_t epoch = 0; epoch < 3; epoch++) check_epoch(p, frames, n, windows[w], epoch);
                check_epoch(p, frames, n, windows[w], (int64_t)1 << 33);
                loader_plan_destroy(p);
            }
}

static void one_digest_however_ranges_are_split(void **state) {
    (void)state;
    int64_t frames[50];
    for (int64_t i = 0; i < 50; i++) frames[i] = 100;
    struct loader_plan *p = make(frames, 50, 1, 10, 8);
    unsigned char want[32], got[32];
    struct hash_sha256 *h = hash_sha256_create();
    hash_range(h, p, 0, 1350);
    hash_sha256_peek(h, want);
    hash_sha256_destroy(h);
    for (int ranks = 1; ranks <= 8; ranks++) {
        struct loader_plan *again = make(frames, 50, 1, 10, 8); // as another process would
        h = hash_sha256_create();
        for (int r = 0; r < ranks; r++) hash_range(h, again, 1350 * r / ranks, 1350 * (r + 1) / ranks);
        hash_sha256_peek(h, got);
        hash_sha256_destroy(h);
        loader_plan_destroy(again);
        assert_memory_equal(want, got, 32);
    }
    loader_plan_destroy(p);
}

static void the_order_is_fixed_for_ever(void **state) {
    (void)state;
    int64_t frames[40];
    for (int64_t i = 0; i < 40; i++) frames[i] = 30 + i;
    struct loader_plan *p = make(frames, 40, 123, 10, 6);
    struct hash_sha256 *h = hash_sha256_create();
    unsigned char digest[32];
    char hex[65];
    for (int64_t g = 0; g < 1000; g++) {
        struct loader_item item;
        loader_item_at(p, g, &item);
        char line[64];
        int n = snprintf(line, sizeof line, "%lld %lld %lld\n", (long long)item.epoch, (long long)item.sample,
                         (long long)item.first_frame);
        hash_sha256_update(h, line, (size_t)n);
    }
    hash_sha256_peek(h, digest);
    bytes_hex(digest, 32, hex);
    assert_string_equal(hex, "d08d74e1bc716a41df3b36ded11bab2cd6ca1a14676aee648ad9c11fc9e0d331");
    hash_sha256_destroy(h);
    loader_plan_destroy(p);
}

static void epochs_and_seeds_differ(void **state) {
    (void)state;
    int64_t frames[60];
    for (int64_t i = 0; i < 60; i++) frames[i] = 100;
    struct loader_plan *p = make(frames, 60, 1, 10, 16), *q = make(frames, 60, 2, 10, 16);
    int64_t items = loader_items_in_epoch(p), same_epoch = 0, same_seed = 0;
    for (int64_t g = 0; g < items; g++) {
        struct loader_item a, b, c;
        loader_item_at(p, g, &a);
        loader_item_at(p, g + items, &b);
        loader_item_at(q, g, &c);
        same_epoch += a.sample == b.sample && a.first_frame == b.first_frame;
        same_seed += a.sample == c.sample && a.first_frame == c.first_frame;
    }
    assert_true(same_epoch < items / 20);
    assert_true(same_seed < items / 20);
    loader_plan_destroy(p);
    loader_plan_destroy(q);
}

static void windows_are_cut_anywhere(void **state) {
    (void)state;
    int64_t frames[3] = {100, 25, 10};
    struct loader_plan *p = make(frames, 3, 9, 10, 4);
    int64_t items = loader_items_in_epoch(p);
    int starts[100] = {0}, short_starts[25] = {0};
    for (int64_t g = 0; g < items * 400; g++) {
        struct loader_item item;
        loader_item_at(p, g, &item);
        if (item.sample == 0) starts[item.first_frame]++;
        if (item.sample == 1) short_starts[item.first_frame]++;
        if (item.sample == 2) assert_int_equal(item.first_frame, 0);
    }
    for (int f = 0; f <= 90; f++) assert_true(starts[f] > 0);
    for (int f = 0; f <= 15; f++) assert_true(short_starts[f] > 0);
    loader_plan_destroy(p);
}

// Of a permutation of a few things every order must come up about equally often.
static void small_orders_are_even(void **state) {
    (void)state;
    int64_t frames[4] = {10, 10, 10, 10};
    struct loader_plan *p = make(frames, 4, 77, 10, 100);
    int seen[256] = {0}, orders = 0;
    for (int64_t epoch = 0; epoch < 24000; epoch++) {
        int code = 0;
        for (int64_t i = 0; i < 4; i++) {
            struct loader_item item;
            loader_item_at(p, epoch * 4 + i, &item);
            code = code * 4 + (int)item.sample;
        }
        seen[code]++;
    }
    for (int c = 0; c < 256; c++) {
        orders += seen[c] > 0;
        if (seen[c]) assert_in_range(seen[c], 700, 1300); // 1000 expected, standard deviation 31
    }
    assert_int_equal(orders, 24);
    loader_plan_destroy(p);
}

// Items that follow each other come from a block of the ring: few shards at a time.
static void blocks_are_local(void **state) {
    (void)state;
    int64_t *frames = malloc(10000 * sizeof *frames);
    assert_non_null(frames);
    for (int64_t i = 0; i < 10000; i++) frames[i] = 100;
    struct loader_plan *p = make(frames, 10000, 3, 10, 50);
    for (int64_t block = 0; block < 20; block++) {
        int64_t lo = INT64_MAX, hi = 0;
        for (int64_t i = 0; i < 450; i++) {
            struct loader_item item;
            loader_item_at(p, block * 450 + i, &item);
            int64_t at = item.sample;
            if (at < lo) lo = at;
            if (at > hi) hi = at;
        }
        assert_true(hi - lo <= 51 || hi - lo >= 9948); // the second where the ring closes
    }
    free(frames);
    loader_plan_destroy(p);
}

static void short_episodes_are_left_out(void **state) {
    (void)state;
    enum { N = 9 };
    // Some between equal ones, one at either end, two together.
    const int64_t frames[N] = {3, 100, 9, 100, 100, 0, 9, 45, 5};
    struct loader_plan *p = make(frames, N, 1, 10, 3);
    int64_t seen[N] = {0};
    assert_int_equal(loader_items_in_epoch(p), 3 * 9 + 3);
    for (int64_t g = 0; g < 2 * (3 * 9 + 3); g++) {
        struct loader_item item;
        loader_item_at(p, g, &item);
        assert_in_range(item.sample, 0, N - 1);
        assert_true(item.first_frame >= 0 && item.first_frame + 10 <= frames[item.sample]);
        seen[item.sample]++;
    }
    for (int i = 0; i < N; i++) assert_int_equal(seen[i], frames[i] == 100 ? 18 : frames[i] == 45 ? 6 : 0);
    loader_plan_destroy(p);
}

static void no_episode_long_enough_names_the_cure(void **state) {
    (void)state;
    const int64_t frames[3] = {7, 9, 0}, unknown[2] = {0, 0};
    struct err e = {ERR_OK};
    struct loader_plan *p;
    struct loader_options o = {1, 10, 4};
    assert_int_equal(loader_plan_create_frames(&p, frames, 3, &o, &e), -ERR_DATA);
    assert_string_equal(e.text,
                        "no episode has the 10 frames of a window, the longest has 9; lower data.frames");
    assert_null(p);
    err_clear(&e);
    assert_int_equal(loader_plan_create_frames(&p, unknown, 2, &o, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "orrery data index --schema"));
    loader_plan_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_window_once_per_epoch),
        cmocka_unit_test(one_digest_however_ranges_are_split),
        cmocka_unit_test(the_order_is_fixed_for_ever),
        cmocka_unit_test(epochs_and_seeds_differ),
        cmocka_unit_test(windows_are_cut_anywhere),
        cmocka_unit_test(small_orders_are_even),
        cmocka_unit_test(blocks_are_local),
        cmocka_unit_test(short_episodes_are_left_out),
        cmocka_unit_test(no_episode_long_enough_names_the_cure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
