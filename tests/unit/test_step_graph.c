// SPDX-License-Identifier: Apache-2.0
// Recorded steps on the GPU of the plug-in (the emulator): the same bits as kernel by kernel, whatever
// happens in between, and what was recorded is what ran.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

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

static struct trace follow(const char *graph, const char *reduce, const char *precision) {
    struct fixture f;
    struct trace t = {0};
    char graph_key[32], reduce_key[32], precision_key[32];
    snprintf(graph_key, sizeof graph_key, "cuda.graph=%s", graph);
    snprintf(reduce_key, sizeof reduce_key, "comm.reduce=%s", reduce);
    snprintf(precision_key, sizeof precision_key, "cuda.precision=%s", precision);
    open_fixture_on(&f,
                    fake_config(SMALL, "model.head_dim=32", "data.frames=3", "train.batch=4", "comm.shards=2",
                                "optim.ema=0.9", "train.on_nan=skip", "fault.inject=nan:step=10", graph_key,
                                reduce_key, precision_key),
                    true);
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

static void compare(const char *reduce, const char *precision) {
    struct trace off = follow("off", reduce, precision), on = follow("on", reduce, precision);
    size_t bytes = weight_bytes();
    for (int n = 0; n < STEPS; n++) {
        const struct step_report *a = &off.report[n], *b = &on.report[n];
        bool bad = plan[n].event == BAD_DATA || n == 10;
        assert_memory_equal(off.weights[n], on.weights[n], bytes);
        assert_true(a->skipped == bad && b->skipped == bad);
        if (n > 0) assert_true((memcmp(on.weights[n - 1], on.weights[n], bytes) == 0) == bad);
        if (bad)
            assert_true(a->suspect_first == b->suspect_first && a->suspects == b->suspects &&
                        b->suspects > 0);
        else
            assert_true(a->loss == b->loss && a->grad_norm == b->grad_norm && b->grad_norm > 0);
        assert_true(a->rate == b->rate);
    }
    drop(&off);
    drop(&on);
}

static void exact_sums_in_bf16(void **state) {
    compare("exact", "bf16");
}
static void fast_sums_in_fp32(void **state) {
    compare("fast", "fp32");
}

static void a_cpu_records_nothing(void **state) {
    struct fixture f;
    struct step *second = NULL;
    struct err e = {0};
    open_fixture(&f, fake_config(SMALL));
    assert_false(f.step->graphs.on);
    struct config wants = *f.rank.config;
    wants.cuda_graph = 1; // on
    f.rank.config = &wants;
    assert_int_equal(step_open(&second, &f.rank, f.model, f.optim, NULL, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "cuda.graph"));
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_sums_in_bf16),
        cmocka_unit_test(fast_sums_in_fp32),
        cmocka_unit_test(a_cpu_records_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
