// SPDX-License-Identifier: Apache-2.0
// Where gradients lie and how they are summed, for many worlds in one process, each rank a thread: every way
// gives its sums to the bit, in the memory that was planned for it.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "comm/grid.h"
#include "fake_coll.h"
#include "fake_config.h"
#include "fake_set.h"
#include "trainer/grads.h"
#include "trainer/optim.h"

enum { STEPS = 2 };

// A config, its table and its buckets, which all ranks share.
struct world {
    struct config_file *file;
    const struct config *config;
    struct params params;
    struct buckets buckets;
    int64_t offset[FAKE_RANKS + 1];
    int size;
    struct fake_meeting *meeting;
};

struct run {
    const struct world *world;
    int rank;
    float *own[STEPS];
    int64_t bytes;
    bool in_backward;
    struct err err;
};

static void open_world(struct world *w, int size, const char *const *words) {
    struct modality_set set;
    struct err e = {0};
    *w = (struct world){.file = fake_config_of(words), .size = size, .meeting = fake_meeting_open()};
    w->config = config_values(w->file);
    fake_set(&set, w->config);
    if (params_init(&w->params, w->config, &set, &e) ||
        buckets_init(&w->buckets, &w->params, buckets_least(w->config, &w->params), &e))
        fail_msg("%s", e.text);
    optim_split(w->config, &w->params, size, w->offset);
    if (buckets_deal(&w->buckets, w->offset, size, &e)) fail_msg("%s", e.text);
}

static void close_world(struct world *w) {
    buckets_fini(&w->buckets);
    params_fini(&w->params);
    fake_meeting_close(w->meeting);
    config_close(w->file);
}

// What a shard adds to an element: of very unlike sizes, so that the order of a sum shows.
static float term(int64_t shard, int step, int64_t i) {
    uint64_t h = ((uint64_t)i * 64 + (uint64_t)shard * 2 + (uint64_t)step + 1) * 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u;
    h ^= h >> 32;
    return ((float)(h & 0xffff) - 32768) * (float)(1 << (h >> 16 & 15));
}

static int write_stage(struct grads *g, const struct run *r, int64_t shard, int step, int stage,
                       struct err *e) {
    const struct params *p = &r->world->params;
    struct params_place at;
    int rc = grads_place(g, stage, &at, e);
    for (int i = 0; !rc && i < p->n; i++) {
        const struct param *t = &p->list[i];
        for (int64_t k = t->offset; t->stage == stage && k < t->offset + t->elems; k++)
            at.at[k - at.first] += term(shard, step, k);
    }
    return rc ? rc : grads_final(g, stage, e);
}

static int one_step(struct grads *g, struct run *r, int step, struct err *e) {
    const struct world *w = r->world;
    const float *own;
    int64_t lo, hi, n = w->offset[r->rank + 1] - w->offset[r->rank];
    grid_split(w->config->comm_shards, w->size, r->rank, &lo, &hi);
    int rc = grads_begin(g, e);
    for (int64_t shard = lo; !rc && shard < hi; shard++) {
        rc = grads_shard(g, shard, e);
        for (int stage = w->params.stages - 1; !rc && stage >= 0; stage--)
            rc = write_stage(g, r, shard, step, stage, e);
        if (!rc) rc = grads_shard_done(g, e);
    }
    if (!rc) rc = grads_finish(g, &own, e);
    r->own[step] = calloc((size_t)n + 1, sizeof(float));
    if (!rc && n) memcpy(r->own[step], own, (size_t)n * sizeof(float));
    return rc;
}

static void *run_rank(void *arg) {
    struct run *r = arg;
    const struct world *w = r->world;
    struct fake_coll c = fake_coll(w->meeting, r->rank, w->size);
    struct fake_device d = fake_device();
    const struct grads_options o = {
        .config = w->config, .buckets = &w->buckets, .offset = w->offset, .coll = &c.base, .device = &d.base};
    struct grads *g = NULL;
    int rc = grads_open(&g, &o, &r->err);
    r->bytes = d.bytes;
    r->in_backward = g && grads_in_backward(g);
    for (int step = 0; step < STEPS && !rc; step++) rc = one_step(g, r, step, &r->err);
    grads_close(g);
    if (d.blocks || d.bytes != r->bytes) abort(); // taken in a step, or not given back
    return NULL;
}

static float tree_sum(int64_t lo, int64_t hi, int step, int64_t i) {
    if (hi - lo == 1) return term(lo, step, i);
    int64_t half = 1;
    while (half * 2 < hi - lo) half *= 2;
    return tree_sum(lo, lo + half, step, i) + tree_sum(lo + half, hi, step, i);
}

// One after the other over this rank's shards, then over ranks; or over ranks, then one after the other.
static float sum_of(const struct world *w, int step, int64_t i) {
    float sum = 0, of_rank[FAKE_RANKS] = {0};
    int64_t lo, hi, most = (w->config->comm_shards + w->size - 1) / w->size;
    bool rounds = w->config->comm_zero == 2 && w->size > 1; // of fast
    if (w->config->comm_reduce == CONFIG_comm_reduce_exact)
        return tree_sum(0, w->config->comm_shards, step, i);
    for (int64_t round = 0; round < most; round++) {
        float over_ranks = 0;
        for (int r = 0; r < w->size; r++) {
            grid_split(w->config->comm_shards, w->size, r, &lo, &hi);
            float x = lo + round < hi ? term(lo + round, step, i) : 0;
            over_ranks += x;
            of_rank[r] += x;
        }
        sum += over_ranks;
    }
    if (rounds) return sum;
    sum = of_rank[0];
    for (int r = 1; r < w->size; r++) sum += of_rank[r];
    return sum;
}

// Returns how many elements the exact tree gives other bits for.
static int64_t check_sums(const struct run *r) {
    const struct world *w = r->world;
    int64_t at = w->offset[r->rank], end = w->offset[r->rank + 1], differ = 0;
    for (int i = 0; i < w->params.n; i++) {
        const struct param *t = &w->params.list[i];
        if (t->offset < at || t->offset >= end) continue;
        for (int step = 0; step < STEPS; step++)
            for (int64_t k = t->offset; k < t->offset + t->elems; k++) {
                float want = sum_of(w, step, k);
                assert_memory_equal(&r->own[step][k - at], &want, sizeof want);
                differ += want != tree_sum(0, w->config->comm_shards, step, k);
            }
        for (int64_t k = t->offset + t->elems; k < end && (i + 1 == w->params.n || k < t[1].offset); k++)
            assert_true(r->own[0][k - at] == 0 && r->own[1][k - at] == 0); // a gap
    }
    return differ;
}

static void check_memory(const struct run *r) {
    const struct world *w = r->world;
    int64_t planned = grads_bytes(w->config, &w->params, w->size, r->rank);
    int64_t own = w->offset[r->rank + 1] - w->offset[r->rank], slots = w->config->comm_overlap ? 2 : 1;
    bool fast = w->config->comm_reduce == CONFIG_comm_reduce_fast;
    assert_int_equal(r->bytes, planned + (own == 0 ? 64 : 0)); // no device hands out nothing
    assert_int_equal(r->in_backward, w->config->comm_zero == 2 && w->size > 1);
    if (r->in_backward && fast) assert_int_equal(planned, 4 * (own + slots * buckets_largest(&w->buckets)));
}

static uint64_t add_bits(uint64_t hash, const float *x, int64_t n) {
    uint32_t bits;
    for (int64_t i = 0; i < n; i++) {
        memcpy(&bits, &x[i], sizeof bits);
        hash = (hash ^ bits) * 1099511628211u;
    }
    return hash;
}

struct outcome {
    int64_t differ; // elements that the exact tree gives other bits for
    uint64_t hash;  // of all sums
};

static struct outcome check_world(int size, const char *const *words) {
    struct run runs[FAKE_RANKS];
    struct world w;
    pthread_t threads[FAKE_RANKS];
    struct outcome out = {0};
    open_world(&w, size, words);
    for (int r = 0; r < size; r++) {
        runs[r] = (struct run){.world = &w, .rank = r};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &runs[r]), 0);
    }
    for (int r = 0; r < size; r++) pthread_join(threads[r], NULL);
    for (int r = 0; r < size; r++) {
        if (runs[r].err.code) fail_msg("rank %d of %d: %s", r, size, runs[r].err.text);
        check_memory(&runs[r]);
        out.differ += check_sums(&runs[r]);
        for (int step = 0; step < STEPS; step++) {
            out.hash = add_bits(out.hash, runs[r].own[step], w.offset[r + 1] - w.offset[r]);
            free(runs[r].own[step]);
        }
    }
    close_world(&w);
    return out;
}

static const char *const ways[][2] = {{"comm.reduce=exact", "comm.zero=1"},
                                      {"comm.reduce=fast", "comm.zero=1"},
                                      {"comm.reduce=fast", "comm.zero=2"},
                                      {"comm.reduce=exact", "comm.zero=2"}};
enum { EXACT, WHOLE, RING, EXACT_RING, WAYS };

static struct outcome check_way(int way, int size, int64_t shards, const char *bucket_mb,
                                const char *overlap) {
    char shards_key[32];
    snprintf(shards_key, sizeof shards_key, "comm.shards=%d", (int)shards);
    const char *const words[] = {
        "model.width=16", "model.layers=3",  "model.head_dim=16", "model.cond_width=8",
        "video.height=8", "video.width=8",   "video.patch=4",     "video.margin=0",
        "audio.bins=1",   "train.batch=840", shards_key,          bucket_mb,
        overlap,          ways[way][0],      ways[way][1],        NULL};
    return check_world(size, words);
}

static void every_world_gives_its_sums(void **state) {
    static const int64_t shards[] = {1, 2, 4, 5, 7, 12};
    static const char *const cuts[] = {"comm.bucket_mb=0.0001", "comm.bucket_mb=0.03", "comm.bucket_mb=1"};
    static const char *const overlaps[] = {"comm.overlap=true", "comm.overlap=false"};
    int64_t differ[WAYS] = {0};
    for (int way = 0; way < WAYS; way++)
        for (size_t s = 0; s < sizeof shards / sizeof *shards; s++)
            for (int size = 1; size <= 5 && size <= shards[s]; size++)
                for (int k = 0; k < 6; k++)
                    differ[way] += check_way(way, size, shards[s], cuts[k % 3], overlaps[k / 3]).differ;
    assert_int_equal(differ[EXACT] + differ[EXACT_RING], 0);
    assert_true(differ[WHOLE] > 1000 && differ[RING] > 1000); // so the order of these numbers' sum matters
}

// With a shard on each rank there is one sum over ranks either way.
static void a_shard_each_gives_the_same_bits(void **state) {
    for (int size = 2; size <= 5; size++) {
        struct outcome whole = check_way(WHOLE, size, size, "comm.bucket_mb=0.0001", "comm.overlap=true");
        struct outcome ring = check_way(RING, size, size, "comm.bucket_mb=0.0001", "comm.overlap=true");
        assert_true(whole.hash == ring.hash && whole.hash != 0);
    }
    struct outcome whole = check_way(WHOLE, 2, 4, "comm.bucket_mb=0.0001", "comm.overlap=true");
    struct outcome ring = check_way(RING, 2, 4, "comm.bucket_mb=0.0001", "comm.overlap=true");
    assert_true(whole.hash != ring.hash); // two shards each: another order
}

// With a shard on each rank.
static void check_less_is_kept(const char *reduce) {
    struct world all, shared;
    const char *words[] = {reduce,
                           "comm.zero=1",
                           "comm.shards=4",
                           "model.layers=24",
                           "comm.bucket_mb=0.1",
                           "model.cond_width=16",
                           NULL};
    open_world(&all, 4, words);
    words[1] = "comm.zero=2";
    open_world(&shared, 4, words);
    for (int r = 0; r < 4; r++) {
        int64_t whole = grads_bytes(all.config, &all.params, 4, r);
        int64_t kept = grads_bytes(shared.config, &shared.params, 4, r);
        if (!(kept > 0 && kept < whole / 2)) fail_msg("rank %d keeps %d of %d", r, (int)kept, (int)whole);
    }
    assert_int_equal(grads_bytes(all.config, &all.params, 1, 0),
                     grads_bytes(shared.config, &shared.params, 1, 0));
    close_world(&all);
    close_world(&shared);
}

static void less_is_kept(void **state) {
    check_less_is_kept("comm.reduce=fast");
    check_less_is_kept("comm.reduce=exact");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_world_gives_its_sums),
        cmocka_unit_test(a_shard_each_gives_the_same_bits),
        cmocka_unit_test(less_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
