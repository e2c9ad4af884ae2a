// SPDX-License-Identifier: Apache-2.0
// Recorded steps on the GPU of the plug-in (the emulator): the same bits as kernel by kernel, whatever
// happens in between, and what was recorded is what ran; among peers too, where collectives are queued.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "comm/coll_impl.h"
#include "fake_step.h"
#include "trainer/step_impl.h"

enum { STEPS = 11, LACKS = 1 };

// What befalls each step: a letter for the frames that sense LACKS has, and what comes with it.
static const struct plan {
    char frames; // a: all, b: a sequence lacks some, c: another one does
    enum { CALM, BAD_DATA, LARGER_SCRATCH } event;
    bool recorded; // or launched
} plan[STEPS] = {
    {'a', CALM, false},           // takes memory, so that all is forgotten
    {'a', CALM, false},           // the bucket's first
    {'a', CALM, true},            // recorded
    {'b', CALM, false},           //
    {'a', BAD_DATA, true},        // skipped
    {'b', CALM, true},            // recorded
    {'a', CALM, true},            //
    {'c', LARGER_SCRATCH, false}, // what was recorded is void
    {'a', CALM, false},           //
    {'a', CALM, true},            // recorded anew
    {'a', CALM, true},            // a rehearsed NaN: skipped
};

struct trace {
    struct step_report report[STEPS];
    float *weights[STEPS];
};

// ---- a peer whose gradients are this rank's own, and whose weights never change: collectives as NCCL has
// them, in the device's queue, so that they are recorded

static int queue_zero(struct coll *c, float *at, int64_t first, int64_t end, struct err *e) {
    if (end <= first) return 0;
    return c->device->vtable->zero(c->device, at + first, (size_t)(end - first) * sizeof(float), e);
}

// Outside this rank's own segment a reduce-scatter leaves nothing of use.
static int queue_sum(struct coll *c, const struct coll_request *q, struct err *e) {
    int64_t lo = q->offset[c->rank], hi = q->offset[c->rank + 1];
    int rc = queue_zero(c, q->buffer, q->offset[0], lo, e);
    if (!rc) rc = queue_zero(c, q->buffer, hi, q->offset[c->size], e);
    float *own = q->buffer + lo;
    return rc || hi == lo ? rc : c->device->vtable->add(c->device, own, own, own, hi - lo, e);
}

static int queue_pieces(struct coll *c, const struct coll_request *q, struct err *e) {
    int rc = 0;
    for (int r = 0; r < c->size && !rc; r++) {
        int64_t n = q->recv_offset[r + 1] - q->recv_offset[r];
        rc = c->device->vtable->copy(c->device, q->recv + q->recv_offset[r],
                                     q->send + q->send_offset[c->rank], (size_t)n * sizeof(float), e);
    }
    return rc;
}

// What the peer summed is not known here: the first of this rank's sums stand for it.
static int queue_sums(struct coll *c, const struct coll_request *q, struct err *e) {
    int rc = 0;
    for (int64_t i = 0; i < coll_pieces(c, q) && !rc; i++) {
        const float *from = q->send + (i % c->size == c->rank ? q->send_offset[i] : 0);
        int64_t n = q->recv_offset[i + 1] - q->recv_offset[i];
        assert_true(n <= q->send_offset[coll_pieces(c, q)]);
        if (n > 0)
            rc = c->device->vtable->copy(c->device, q->recv + q->recv_offset[i], from,
                                         (size_t)n * sizeof(float), e);
    }
    return rc;
}

static int peer_start(struct coll *c, const struct coll_request *q, struct coll_op **op, struct err *e) {
    int rc = 0;
    if (q->verb == VERB_REDUCE_SCATTER) rc = queue_sum(c, q, e);
    if (q->verb == VERB_EXCHANGE)
        rc = strcmp(q->name, "exact sums") ? queue_pieces(c, q, e) : queue_sums(c, q, e);
    if (q->verb == VERB_ALL_GATHER && !strcmp(q->name, "losses and norms"))
        rc = queue_zero(c, q->buffer, q->offset[0], q->offset[1], e);
    *op = calloc(1, sizeof **op);
    return rc;
}

static int peer_test(struct coll *c, struct coll_op *op, bool *done, struct err *e) {
    *done = true;
    return 0;
}

static int peer_join(struct coll *c, struct coll_op *op, struct err *e) {
    return 0;
}

static void peer_release(struct coll_op *op, bool ended) {
    free(op);
}

static void peer_close(struct coll *c, bool abort) {
    free(c);
}

static const struct coll_vtable peer_vtable = {.name = "peer",
                                               .device_memory = true,
                                               .start = peer_start,
                                               .test = peer_test,
                                               .join = peer_join,
                                               .release = peer_release,
                                               .close = peer_close};

static int with_a_peer(struct coll **out, struct device *d, struct err *e) {
    *out = calloc(1, sizeof **out);
    **out = (struct coll){.vtable = &peer_vtable, .rank = 1, .size = 2, .device = d, .deadline_ms = 10000};
    return 0;
}

// ---- steps

static void set_frames(struct fixture *f, char which) {
    struct batch *b = &f->batch;
    memset(b->valid[LACKS], 1, (size_t)(b->count * b->frames));
    if (which == 'b') memset(b->valid[LACKS] + 2, 0, 2);
    if (which == 'c') memset(b->valid[LACKS] + b->frames, 0, 3);
}

// As an evaluation between steps may: an op that needs more room than any of the step's.
static void grow_scratch(struct fixture *f) {
    struct device *d = f->rank.device;
    struct err e = {0};
    void *x = NULL, *out = NULL;
    int64_t n = 8 << 20;
    uint64_t before = d->generation;
    if (d->vtable->alloc(d, &x, (size_t)n * sizeof(float), &e) || d->vtable->alloc(d, &out, 16, &e) ||
        d->vtable->zero(d, x, (size_t)n * sizeof(float), &e))
        fail_msg("%s", e.text);
    struct op_col_sum_args a = {.x = tensor_2d(x, n / 4, 4), .out = tensor_1d(out, 4)};
    if (d->ops->col_sum(d, &a, &e)) fail_msg("%s", e.text);
    assert_true(d->generation > before);
    d->vtable->release(d, x);
    d->vtable->release(d, out);
}

static float *fetch_weights(struct fixture *f) {
    struct device *d = f->rank.device;
    struct err e = {0};
    size_t bytes = (size_t)model_params(f->model)->elems * sizeof(float);
    float *copy = malloc(bytes);
    if (d->vtable->copy_out(d, copy, model_weights(f->model), bytes, &e)) fail_msg("%s", e.text);
    return copy;
}

static void run(struct fixture *f, const struct plan *p, int64_t number, bool graphs, struct trace *t) {
    struct err e = {0};
    int64_t votes[STEP_VOTES] = {3, 0, 1, 0};
    float *x = &f->batch.x[3][77], kept = *x;
    set_frames(f, p->frames);
    if (p->event == LARGER_SCRATCH) grow_scratch(f);
    if (p->event == BAD_DATA) *x = INFINITY;
    f->batch.first = number * f->batch.count;
    if (step_run(f->step, &f->batch, number, votes, &t->report[number], &e)) fail_msg("%s", e.text);
    assert_true(votes[0] == 3 && votes[1] == 0 && votes[2] == 1);
    *x = kept;
    t->weights[number] = fetch_weights(f);
    if ((f->step->graphs.now != NULL) != (graphs && p->recorded))
        fail_msg("step %d: recorded: %d", (int)number, f->step->graphs.now != NULL);
}

struct how {
    int world;
    const char *reduce, *zero, *precision, *shards;
};

static struct trace follow(const char *graph, const struct how *h) {
    struct fixture f;
    struct trace t = {0};
    char graph_key[32];
    snprintf(graph_key, sizeof graph_key, "cuda.graph=%s", graph);
    open_fixture_among(&f,
                       fake_config(SMALL, "model.head_dim=32", "data.frames=3", "train.batch=4",
                                   "comm.bucket_mb=0.001", "optim.ema=0.9", "train.on_nan=skip",
                                   "fault.inject=nan:step=10", graph_key, h->reduce, h->zero, h->precision,
                                   h->shards),
                       true, h->world, h->world == 1 ? fixture_alone : with_a_peer);
    assert_true(f.step->graphs.whole && f.step->comm.buckets.n > 2);
    assert_int_equal(grads_in_backward(f.step->grads), !strcmp(h->zero, "comm.zero=2"));
    for (int64_t n = 0; n < STEPS; n++) run(&f, &plan[n], n, strcmp(graph, "off") != 0, &t);
    close_fixture(&f);
    return t;
}

static void drop(struct trace *t) {
    for (int n = 0; n < STEPS; n++) free(t->weights[n]);
}

static size_t weight_bytes(void) {
    struct fixture f;
    open_fixture(&f, fake_config(SMALL, "model.head_dim=32", "data.frames=3", "train.batch=4"));
    size_t bytes = (size_t)model_params(f.model)->elems * sizeof(float);
    close_fixture(&f);
    return bytes;
}

// Takes both.
static void check_alike(struct trace *a, struct trace *b) {
    size_t bytes = weight_bytes();
    for (int n = 0; n < STEPS; n++) {
        const struct step_report *x = &a->report[n], *y = &b->report[n];
        bool bad = plan[n].event == BAD_DATA || n == 10;
        assert_memory_equal(a->weights[n], b->weights[n], bytes);
        assert_true(x->skipped == bad && y->skipped == bad);
        if (n > 0) assert_true((memcmp(b->weights[n - 1], b->weights[n], bytes) == 0) == bad);
        if (bad)
            assert_true(x->suspect_first == y->suspect_first && x->suspects == y->suspects &&
                        y->suspects > 0);
        else
            assert_true(x->loss == y->loss && x->grad_norm == y->grad_norm && y->grad_norm > 0);
        assert_true(x->rate == y->rate);
    }
    drop(a);
    drop(b);
}

static void compare(const struct how *h) {
    struct trace off = follow("off", h), on = follow("on", h);
    check_alike(&off, &on);
}

static void exact_sums_in_bf16(void **state) {
    compare(&(struct how){1, "comm.reduce=exact", "comm.zero=1", "cuda.precision=bf16", "comm.shards=2"});
}
static void fast_sums_in_fp32(void **state) {
    compare(&(struct how){1, "comm.reduce=fast", "comm.zero=1", "cuda.precision=fp32", "comm.shards=2"});
}
static void own_sums_of_two_shards(void **state) {
    compare(&(struct how){2, "comm.reduce=fast", "comm.zero=2", "cuda.precision=fp32", "comm.shards=4"});
}

static void own_exact_sums_of_two_shards(void **state) {
    struct how h = {2, "comm.reduce=exact", "comm.zero=2", "cuda.precision=bf16", "comm.shards=4"};
    compare(&h);
    struct trace own = follow("on", &h);
    h.zero = "comm.zero=1";
    struct trace whole = follow("on", &h);
    check_alike(&whole, &own);
}

static void whole_and_own_sums_are_alike(void **state) {
    struct how h = {2, "comm.reduce=fast", "comm.zero=1", "cuda.precision=bf16", "comm.shards=2"};
    struct trace whole = follow("on", &h);
    h.zero = "comm.zero=2";
    struct trace own = follow("on", &h);
    check_alike(&whole, &own);
}

static void a_cpu_records_nothing(void **state) {
    struct fixture f;
    struct step *second = NULL;
    struct err e = {0};
    open_fixture(&f, fake_config(SMALL));
    assert_false(f.step->graphs.on);
    struct config wants = *f.rank.config;
    wants.cuda_graph = CONFIG_cuda_graph_on;
    f.rank.config = &wants;
    assert_int_equal(step_open(&second, &f.rank, f.model, f.optim, NULL, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "cuda.graph"));
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_sums_in_bf16),           cmocka_unit_test(fast_sums_in_fp32),
        cmocka_unit_test(own_sums_of_two_shards),       cmocka_unit_test(own_exact_sums_of_two_shards),
        cmocka_unit_test(whole_and_own_sums_are_alike), cmocka_unit_test(a_cpu_records_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
