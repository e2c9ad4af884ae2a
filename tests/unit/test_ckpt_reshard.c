// SPDX-License-Identifier: Apache-2.0
// Saved on N ranks, loaded on M, N and M in 1 .. 8, split by rows or by columns on either side: the same
// bits, and at most 1.05 times the bytes that were asked for.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
// cmocka.h needs the four above
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "storage/ckpt.h"

#define RANKS   8
#define AT_MOST 1.05

struct toy {
    const char *name;
    int rank;
    int64_t shape[CKPT_DIMS];
};
static const struct toy toys[] = {{"w", 2, {333, 517}},  {"optim.m.w", 2, {333, 517}},
                                  {"up", 2, {512, 384}}, {"conv", 3, {24, 9, 300}},
                                  {"bias", 1, {50000}},  {"scale", 1, {7}}};
#define TOYS (sizeof toys / sizeof *toys)

static int64_t count(const struct ckpt_tensor *t) {
    int64_t n = 1;
    for (int d = 0; d < t->rank; d++) n *= t->extent[d];
    return n;
}

// The part of rank r of n, split along the first (0) or last (1) dimension; false when it has none.
static bool part_of(size_t toy, int r, int n, int split, struct ckpt_tensor *t) {
    *t = (struct ckpt_tensor){.name = toys[toy].name, .rank = toys[toy].rank};
    memcpy(t->shape, toys[toy].shape, sizeof t->shape);
    memcpy(t->extent, t->shape, sizeof t->extent);
    int d = split ? t->rank - 1 : 0;
    int64_t lo = t->shape[d] * r / n, hi = t->shape[d] * (r + 1) / n;
    t->offset[d] = lo;
    t->extent[d] = hi - lo;
    return hi > lo;
}

static float element(size_t toy, const struct ckpt_tensor *t, int64_t i) {
    int64_t at[CKPT_DIMS], whole = 0;
    for (int d = t->rank - 1; d >= 0; d--) {
        at[d] = t->offset[d] + i % t->extent[d];
        i /= t->extent[d];
    }
    for (int d = 0; d < t->rank; d++) whole = whole * t->shape[d] + at[d];
    return (float)(whole * 8 + (int64_t)toy);
}

static void save(struct store *s, int n, int split) {
    struct err e = {ERR_OK};
    struct buf parts[RANKS];
    const char *texts[RANKS];
    char id[CKPT_ID_BYTES];
    struct ckpt_state *state = calloc(1, sizeof *state);
    assert_non_null(state);
    state->step = n * 10 + split;
    ckpt_new_id(id, state->step, 1);
    for (int r = 0; r < n; r++) {
        struct ckpt_tensor tensors[TOYS];
        float *data[TOYS];
        size_t have = 0;
        for (size_t i = 0; i < TOYS; i++) {
            if (!part_of(i, r, n, split, &tensors[have])) continue;
            int64_t elems = count(&tensors[have]);
            data[have] = malloc((size_t)elems * sizeof(float));
            assert_non_null(data[have]);
            for (int64_t k = 0; k < elems; k++) data[have][k] = element(i, &tensors[have], k);
            tensors[have].data = data[have];
            have++;
        }
        buf_init(&parts[r], 1 << 24);
        assert_int_equal(ckpt_write_part(s, id, r, tensors, have, &parts[r], &e), 0);
        texts[r] = parts[r].data;
        for (size_t i = 0; i < have; i++) free(data[i]);
    }
    assert_int_equal(ckpt_commit(s, id, state, texts, (size_t)n, &e), 0);
    for (int r = 0; r < n; r++) buf_fini(&parts[r]);
    free(state);
}

// Loads rank r's parts of all tensors at once; the bytes that it needs.
static int64_t load(struct ckpt *c, int r, int m, int split) {
    struct err e = {ERR_OK};
    struct ckpt_tensor wants[TOYS];
    void *into[TOYS];
    size_t have = 0, which[TOYS];
    int64_t needed = 0;
    for (size_t i = 0; i < TOYS; i++) {
        if (!part_of(i, r, m, split, &wants[have])) continue;
        into[have] = calloc((size_t)count(&wants[have]), sizeof(float));
        assert_non_null(into[have]);
        needed += count(&wants[have]) * 4;
        which[have++] = i;
    }
    assert_int_equal(ckpt_read_many(c, wants, into, have, &e), 0);
    for (size_t i = 0; i < have; i++) {
        const float *got = into[i];
        for (int64_t k = 0; k < count(&wants[i]); k++)
            if (!(got[k] == element(which[i], &wants[i], k))) fail_msg("%s[%" PRId64 "]", wants[i].name, k);
        free(into[i]);
    }
    return needed;
}

static void any_layout_loads_into_any(void **state) {
    (void)state;
    struct store *s;
    struct err e = {ERR_OK};
    double worst = 0;
    assert_int_equal(store_open(&s, "mem:reshard", NULL, &e), 0);
    for (int n = 1; n <= RANKS; n++)
        for (int saved = 0; saved < 2; saved++) {
            char step[16];
            struct ckpt *c;
            save(s, n, saved);
            snprintf(step, sizeof step, "%d", n * 10 + saved);
            assert_int_equal(ckpt_open(&c, s, step, &e), 0);
            for (int m = 1; m <= RANKS; m++)
                for (int loaded = 0; loaded < 2; loaded++) {
                    int64_t needed = 0, before = ckpt_fetched(c);
                    for (int r = 0; r < m; r++) needed += load(c, r, m, loaded);
                    double ratio = (double)(ckpt_fetched(c) - before) / (double)needed;
                    if (!(ratio <= worst)) worst = ratio;
                    if (!(ratio <= AT_MOST))
                        fail_msg("saved on %d by %s, loaded on %d by %s: %.3f times the bytes", n,
                                 saved ? "columns" : "rows", m, loaded ? "columns" : "rows", ratio);
                }
            ckpt_close(c);
        }
    print_message("worst: %.4f times the bytes that are needed\n", worst);
    store_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_layout_loads_into_any)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
