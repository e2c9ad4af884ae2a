// SPDX-License-Identifier: Apache-2.0
// A toy checkpoint for tests: tensors whose every element is a function of its place and the step, saved by
// any number of writers in any layout, and compared bit by bit when loaded.
#ifndef ORRERY_TESTS_CKPT_TOY_H
#define ORRERY_TESTS_CKPT_TOY_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "storage/ckpt.h"

struct ckpt_toy {
    const char *name;
    int rank;
    int64_t shape[CKPT_DIMS];
    int split_dim; // -1: one writer has it whole
};
static const struct ckpt_toy ckpt_toys[] = {
    {"blocks.0.w", 2, {96, 257}, 0}, {"blocks.1.w", 2, {64, 300}, 1}, {"optim.m.blocks.0.w", 2, {96, 257}, 0},
    {"scale", 0, {0}, -1},           {"tail", 1, {33}, -1},
};
#define CKPT_TOY_OWNER 1
#define CKPT_TOYS      (sizeof ckpt_toys / sizeof *ckpt_toys)

// The box of writer w of n; false when it has none.
static inline bool ckpt_toy_box(size_t toy, int w, int n, struct ckpt_tensor *t) {
    const struct ckpt_toy *y = &ckpt_toys[toy];
    *t = (struct ckpt_tensor){.name = y->name, .rank = y->rank};
    memcpy(t->shape, y->shape, sizeof t->shape);
    memcpy(t->extent, y->shape, sizeof t->extent);
    if (y->split_dim < 0) return (int)toy % n == w;
    int64_t whole = y->shape[y->split_dim], lo = whole * w / n, hi = whole * (w + 1) / n;
    t->offset[y->split_dim] = lo;
    t->extent[y->split_dim] = hi - lo;
    return hi > lo;
}

static inline int64_t ckpt_toy_elems(const struct ckpt_tensor *t) {
    int64_t n = 1;
    for (int d = 0; d < t->rank; d++) n *= t->extent[d];
    return n;
}

// The caller frees.
static inline float *ckpt_toy_fill(size_t toy, const struct ckpt_tensor *t, int64_t step) {
    int64_t n = ckpt_toy_elems(t);
    float *data = malloc((size_t)n * sizeof *data);
    if (!data) abort();
    for (int64_t i = 0; i < n; i++) {
        int64_t left = i, at[CKPT_DIMS], element = 0;
        uint32_t words[4];
        for (int d = t->rank - 1; d >= 0; d--) {
            at[d] = t->offset[d] + left % t->extent[d];
            left /= t->extent[d];
        }
        for (int d = 0; d < t->rank; d++) element = element * t->shape[d] + at[d];
        rng_block(rng_key((uint64_t)step, RNG_TEST, (uint32_t)toy), 0, (uint64_t)element, 0, words);
        data[i] = rng_unit(words[0]);
    }
    return data;
}

static inline int ckpt_toy_write(struct store *s, const char *id, int w, int n, int64_t step,
                                 struct buf *part, struct err *e) {
    struct ckpt_tensor tensors[CKPT_TOYS];
    float *data[CKPT_TOYS];
    size_t count = 0;
    for (size_t i = 0; i < CKPT_TOYS; i++)
        if (ckpt_toy_box(i, w, n, &tensors[count])) {
            data[count] = ckpt_toy_fill(i, &tensors[count], step);
            tensors[count].data = data[count];
            count++;
        }
    int rc = ckpt_write_part(s, id, w, tensors, count, part, e);
    for (size_t i = 0; i < count; i++) free(data[i]);
    return rc;
}

static inline int ckpt_toy_commit(struct store *s, const char *id, int64_t step, const char *const *parts,
                                  size_t n, struct err *e) {
    struct ckpt_state *state = calloc(1, sizeof *state);
    if (!state) abort();
    state->step = step;
    state->next_sample = step * 12;
    state->seed = 1;
    memset(state->sample_sha256, '0', 64);
    snprintf(state->config_yaml, sizeof state->config_yaml, "train:\n  steps: %d\n", (int)step);
    int rc = ckpt_commit(s, id, state, parts, n, e);
    free(state);
    return rc;
}

#define CKPT_TOY_WRITERS 8

// All writers one after the other, then the commit.
static inline int ckpt_toy_save(struct store *s, int64_t step, int writers, struct err *e) {
    struct buf parts[CKPT_TOY_WRITERS];
    const char *texts[CKPT_TOY_WRITERS];
    char id[CKPT_ID_BYTES];
    int rc = 0, made = 0;
    ckpt_new_id(id, step, CKPT_TOY_OWNER);
    for (; made < writers && !rc; made++) {
        buf_init(&parts[made], 1 << 24);
        rc = ckpt_toy_write(s, id, made, writers, step, &parts[made], e);
        texts[made] = parts[made].data;
    }
    if (!rc) rc = ckpt_toy_commit(s, id, step, texts, (size_t)writers, e);
    for (int w = 0; w < made; w++) buf_fini(&parts[w]);
    return rc;
}

// Loads every tensor as a whole; 0 when each bit is what the checkpoint's step makes it, 1 when not.
static inline int ckpt_toy_check(struct ckpt *c, struct err *e) {
    int64_t step = ckpt_state_of(c)->step;
    int wrong = ckpt_tensors(c) != CKPT_TOYS;
    for (size_t i = 0; i < CKPT_TOYS && !wrong; i++) {
        struct ckpt_tensor t;
        (void)ckpt_toy_box(i, (int)i % 1, 1, &t);
        float *want = ckpt_toy_fill(i, &t, step), *got = calloc((size_t)ckpt_toy_elems(&t), sizeof *got);
        int rc = got ? ckpt_read(c, &t, got, e) : -1;
        wrong = rc ? rc : memcmp(got, want, (size_t)ckpt_toy_elems(&t) * sizeof *got) != 0;
        free(want);
        free(got);
    }
    return wrong;
}

#endif
