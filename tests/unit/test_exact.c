// SPDX-License-Identifier: Apache-2.0
// The exact reduction for many world sizes in one process: each rank is a thread, the collectives are a fake
// that copies between the threads' buffers.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "comm/exact_slices.h"
#include "comm/exact_stream.h"
#include "comm/grid.h"
#include "fake_coll.h"

#define MAX_CUTS 8
#define ELEMS    37

// ---- leaves and the sum that they must give

static float leaf_value(int64_t shard, int step, int i) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(7, RNG_TEST, (uint32_t)i), (uint32_t)step, (uint64_t)shard);
    float magnitude = (float)(1 << rng_next_below(&r, 20));
    return (rng_next_unit(&r) - 0.5f) * magnitude;
}

static float tree_sum(int64_t lo, int64_t hi, int step, int i) {
    if (hi - lo == 1) return leaf_value(lo, step, i);
    int64_t half = 1;
    while (half * 2 < hi - lo) half *= 2;
    return tree_sum(lo, lo + half, step, i) + tree_sum(lo + half, hi, step, i);
}

struct run {
    struct fake_meeting *meeting;
    int64_t shards, offset[FAKE_RANKS + 1];
    int size, rank;
    float out[2][ELEMS];
    int64_t cut[MAX_CUTS];
    int buckets;
    bool early; // parts of a leaf are ready before its end
    int buffers;
    int64_t planned;
    struct coll *coll;
    struct err err;
};

// From the end to the start, as a backward pass does.
static int write_leaf(struct exact *x, struct run *r, float *leaf, int64_t shard, int step) {
    int rc = 0;
    for (int i = ELEMS - 1; !rc && i >= 0; i--) {
        leaf[i] += leaf_value(shard, step, i);
        if (r->early && i % 5 == 0) rc = exact_leaf_ready(x, shard, i, &r->err);
    }
    return rc;
}

static int one_step(struct exact *x, struct run *r, int step) {
    int64_t lo, hi;
    float *leaf;
    exact_leaves(x, &lo, &hi);
    for (int64_t shard = lo; shard < hi; shard++) {
        int rc = exact_leaf(x, shard, &leaf, &r->err);
        if (rc) return rc;
        rc = write_leaf(x, r, leaf, shard, step);
        if (!rc) rc = exact_leaf_done(x, shard, &r->err);
        if (rc) return rc;
    }
    return exact_finish(x, r->out[step] + r->offset[r->rank], &r->err);
}

static int stream_bucket(struct exact_stream *x, struct run *r, int64_t round, int k, float *room, int step) {
    int64_t lo, hi, first = r->cut[k + 1];
    struct coll_op *op = NULL;
    float leaf[ELEMS];
    grid_split(r->shards, r->size, r->rank, &lo, &hi);
    for (int64_t i = first; i < r->cut[k]; i++) leaf[i - first] = leaf_value(lo + round, step, (int)i);
    int rc = exact_stream_send(x, &op, "bucket", round, k, lo + round < hi ? leaf : NULL, room, &r->err);
    if (!rc) rc = coll_join(r->coll, op, &r->err);
    return rc ? rc : exact_stream_add(x, round, k, room, &r->err);
}

static void *stream_rank(void *arg) {
    struct run *r = arg;
    struct fake_coll c = fake_coll(r->meeting, r->rank, r->size);
    struct fake_device d = fake_device();
    struct exact_stream *x = NULL;
    const struct exact_cut cut = {.n = r->buckets, .cut = r->cut};
    int64_t room_elems = exact_stream_room(r->size, r->rank, &cut);
    float *room = malloc((size_t)(room_elems + 1) * sizeof(float));
    r->coll = &c.base;
    int rc = exact_stream_open(&x, &c.base, r->shards, r->offset, &cut, &d.base, &r->err);
    r->planned = exact_stream_kept(r->shards, r->size, r->rank, &cut);
    if (d.bytes != r->planned * (int64_t)sizeof(float)) abort();
    for (int step = 0; step < 2 && !rc; step++) {
        for (int64_t round = 0; round < exact_stream_rounds(r->shards, r->size); round++)
            for (int k = 0; !rc && k < r->buckets; k++) rc = stream_bucket(x, r, round, k, room, step);
        if (!rc) rc = exact_stream_deliver(x, r->out[step] + r->offset[r->rank], &r->err);
    }
    exact_stream_close(x);
    free(room);
    if (d.blocks) abort(); // a buffer was not given back
    return NULL;
}

static void *run_rank(void *arg) {
    struct run *r = arg;
    struct fake_coll c = fake_coll(r->meeting, r->rank, r->size);
    struct fake_device d = fake_device();
    struct exact *x = NULL;
    const struct exact_cut cut = {.n = r->buckets, .cut = r->cut};
    int rc = exact_open(&x, &c.base, r->shards, r->offset, &cut, &d.base, &r->err);
    r->buffers = d.blocks;
    r->planned = exact_bytes(r->shards, r->size, r->rank, &cut);
    for (int step = 0; step < 2 && !rc; step++) rc = one_step(x, r, step);
    exact_close(x);
    if (d.blocks) abort(); // a buffer was not given back
    return NULL;
}

static int log2_up(int64_t n) {
    int bits = 0;
    while (((int64_t)1 << bits) < n) bits++;
    return bits;
}

static void check_memory(const struct run *r) {
    assert_true(r->buffers <= log2_up(r->shards) + 2 + 2); // and the receive space, and the sums
    assert_true(r->planned >= ELEMS * (int64_t)sizeof(float));
}

// At most a number of this rank's slices that grows with the logarithm of the leaves on a rank.
static void check_kept(const struct run *r) {
    const struct exact_cut cut = {.n = r->buckets, .cut = r->cut};
    int64_t each = exact_stream_rounds(r->shards, r->size);
    int64_t slices = exact_slices_elems(r->size, r->rank, &cut);
    assert_true(slices <= ELEMS / r->size + 2 * 8 * r->buckets);
    if (each == 1)
        assert_int_equal(r->planned, slices);
    else
        assert_true(r->planned <= 2 * log2_up(each) * r->size * slices);
}

static void check_run(const struct run *r) {
    if (r->err.code) fail_msg("%s", r->err.text);
    for (int step = 0; step < 2; step++)
        for (int64_t i = r->offset[r->rank]; i < r->offset[r->rank + 1]; i++) {
            float want = tree_sum(0, r->shards, step, (int)i);
            assert_memory_equal(&r->out[step][i], &want, sizeof want);
        }
}

static const int64_t cuts[][MAX_CUTS] = {{ELEMS, 0}, {ELEMS, 16, 0}, {ELEMS, 30, 29, 14, 3, 0}};
static const int n_cuts[] = {1, 2, 5};

typedef void *rank_fn(void *run);

static void check_world(int64_t shards, int size, int way, rank_fn *rank, bool early) {
    struct run *runs = calloc((size_t)size, sizeof *runs);
    struct fake_meeting *m = fake_meeting_open();
    pthread_t threads[FAKE_RANKS];
    assert_non_null(runs);
    for (int r = 0; r < size; r++) {
        runs[r] = (struct run){.meeting = m, .shards = shards, .size = size, .rank = r, .early = early};
        runs[r].buckets = n_cuts[way];
        memcpy(runs[r].cut, cuts[way], sizeof cuts[way]);
        // Uneven segments, some of them empty.
        for (int s = 1; s <= size; s++) runs[r].offset[s] = s == size ? ELEMS : ELEMS * (s / 2) / size;
        assert_int_equal(pthread_create(&threads[r], NULL, rank, &runs[r]), 0);
    }
    for (int r = 0; r < size; r++) pthread_join(threads[r], NULL);
    for (int r = 0; r < size; r++) {
        check_run(&runs[r]);
        (rank == run_rank ? check_memory : check_kept)(&runs[r]);
    }
    fake_meeting_close(m);
    free(runs);
}

static const int64_t some_shards[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 31, 64};
enum { SOME = sizeof some_shards / sizeof *some_shards };

static void every_world_gives_the_tree_s_bits(void **state) {
    for (int s = 0; s < SOME; s++)
        for (int size = 1; size <= FAKE_RANKS && size <= some_shards[s]; size++)
            for (int way = 0; way < 3; way++) {
                check_world(some_shards[s], size, way, run_rank, false);
                check_world(some_shards[s], size, way, run_rank, true);
            }
}

static void sums_made_by_their_owners_are_the_same(void **state) {
    for (int s = 0; s < SOME - 1; s++)
        for (int size = 2; size <= FAKE_RANKS && size <= some_shards[s]; size++)
            for (int way = 0; way < 3; way++) check_world(some_shards[s], size, way, stream_rank, false);
}

// The tests above prove something only if another order gives other bits.
static void the_order_matters_for_these_numbers(void **state) {
    int different = 0;
    for (int i = 0; i < ELEMS; i++) {
        float in_turn = 0;
        for (int64_t shard = 0; shard < 8; shard++) in_turn += leaf_value(shard, 0, i);
        different += in_turn != tree_sum(0, 8, 0, i);
    }
    assert_true(different > ELEMS / 4);
}

static void misuse_is_refused(void **state) {
    struct err e = {0};
    struct coll *c;
    struct fake_device d = fake_device();
    struct exact *x;
    float *leaf, out[ELEMS];
    int64_t offset[] = {0, ELEMS}, gap[] = {0, ELEMS - 1}, at[] = {ELEMS, 0}, crossed[] = {ELEMS, 3, 9, 0};
    const struct exact_cut cut = {.n = 1, .cut = at}, wrong = {.n = 3, .cut = crossed};
    struct coll_options options = {.kind = COLL_SELF, .device = &d.base};
    assert_int_equal(coll_open(&c, &options, &e), 0);
    assert_int_equal(exact_open(&x, c, 0, offset, &cut, &d.base, &e), -ERR_CONFIG);
    err_clear(&e);
    assert_int_equal(exact_open(&x, c, 4, gap, &cut, &d.base, &e), -ERR_BUG);
    err_clear(&e);
    assert_int_equal(exact_open(&x, c, 4, offset, &wrong, &d.base, &e), -ERR_BUG);
    err_clear(&e);
    assert_int_equal(exact_open(&x, c, 4, offset, &cut, &d.base, &e), 0);
    assert_int_equal(exact_leaf_ready(x, 0, 0, &e), -ERR_BUG); // not begun
    err_clear(&e);
    assert_int_equal(exact_leaf(x, 1, &leaf, &e), -ERR_BUG); // out of turn
    err_clear(&e);
    assert_int_equal(exact_leaf_done(x, 0, &e), -ERR_BUG); // not begun
    err_clear(&e);
    assert_int_equal(exact_leaf(x, 0, &leaf, &e), 0);
    assert_int_equal(exact_leaf(x, 1, &leaf, &e), -ERR_BUG); // the one before is not done
    err_clear(&e);
    assert_int_equal(exact_leaf_done(x, 0, &e), 0);
    assert_int_equal(exact_finish(x, out, &e), -ERR_BUG); // leaves are missing
    exact_close(x);
    exact_close(NULL);
    struct exact_stream *stream = NULL;
    assert_int_equal(exact_stream_open(&stream, c, 4, offset, &cut, &d.base, &e), -ERR_BUG); // one rank
    exact_stream_close(stream);
    coll_close(c, false);
    assert_int_equal(d.blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_world_gives_the_tree_s_bits),
        cmocka_unit_test(sums_made_by_their_owners_are_the_same),
        cmocka_unit_test(the_order_matters_for_these_numbers),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
