// SPDX-License-Identifier: Apache-2.0
// The task `step-bench`: training steps on made-up data, without store or loader. One line of JSON on stdout.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/rng.h"
#include "storage/hash.h"
#include "trainer/memory.h"
#include "trainer/step.h"
#include "trainer/task.h"

enum { WARM_UP = 5 };

struct bench {
    struct rank *rank;
    struct modality_set set;
    struct model *model;
    struct optim *optim;
    struct step *step;
    struct batch batch;
    double seconds[STEP_PARTS], total, loss, comm_busy, comm_wait;
    double first; // step's end, from the start of the process
    double *took; // [steps], seconds
};

// A slow wave whose phase is the sample's: something that can be learned, the same whoever holds the sample.
static void fill_sequence(struct batch *x, int i, int64_t sequence, int64_t width) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(1, RNG_TEST, (uint32_t)i), 0, (uint64_t)(x->first + sequence));
    double phase = rng_next_range(&r, 0, 6);
    float *to = x->x[i] + sequence * x->frames * width;
    for (int64_t f = 0; f < x->frames; f++)
        for (int64_t k = 0; k < width; k++)
            to[f * width + k] = (float)sin(0.4 * (double)f + phase + 0.1 * (double)k);
}

static int fill_batch(struct bench *b, struct err *e) {
    struct batch *x = &b->batch;
    x->frames = b->rank->config->data_frames;
    step_range(b->rank->config, b->rank->world, b->rank->number, 0, &x->first, &x->count);
    for (int i = 0; i < b->set.n; i++) {
        int64_t frames = x->count * x->frames, width = b->set.spec[i].frame_elems;
        x->x[i] = malloc((size_t)(frames * width) * sizeof(float));
        x->valid[i] = malloc((size_t)frames);
        if (!x->x[i] || !x->valid[i]) return err_set(e, ERR_MEMORY, "no memory for a batch");
        memset(x->valid[i], 1, (size_t)frames);
        for (int64_t k = 0; k < x->count; k++) fill_sequence(x, i, k, width);
    }
    return 0;
}

static int open_all(struct bench *b, struct err *e) {
    struct rank *r = b->rank;
    int rc = modality_set_init(&b->set, r->config, NULL, 0, e);
    if (!rc) rc = memory_check(r, &b->set, e);
    if (!rc) rc = model_create(&b->model, r->config, &b->set, r->device, e);
    if (!rc)
        rc = optim_create(&b->optim, r->config, model_params(b->model), r->device, r->world, r->number,
                          model_weights(b->model), e);
    if (!rc) rc = step_open(&b->step, r, b->model, b->optim, NULL, e);
    return rc ? rc : fill_batch(b, e);
}

// Waits for what it queued, too.
static int first_step_done(struct bench *b, struct err *e) {
    struct device *d = b->rank->device;
    int rc = d->vtable->sync(d, e);
    b->first = clock_process_seconds();
    return rc;
}

static int time_steps(struct bench *b, int64_t steps, struct err *e) {
    b->took = calloc((size_t)steps, sizeof *b->took);
    if (!b->took) return err_set(e, ERR_MEMORY, "no memory for %lld times", (long long)steps);
    for (int64_t n = 0; n < WARM_UP + steps; n++) {
        struct step_report report = {0};
        int64_t votes[STEP_VOTES] = {0};
        double began = clock_seconds();
        int rc = step_run(b->step, &b->batch, n, votes, &report, e);
        if (!rc && n == 0) rc = first_step_done(b, e);
        if (rc) return rc;
        b->loss = report.loss;
        if (n < WARM_UP) continue;
        b->took[n - WARM_UP] = clock_seconds() - began;
        b->total += b->took[n - WARM_UP];
        for (int i = 0; i < STEP_PARTS; i++) b->seconds[i] += report.seconds[i];
        b->comm_busy += report.comm_busy;
        b->comm_wait += report.comm_wait;
    }
    return 0;
}

// The weights' SHA-256: equal on any number of ranks and threads with comm.reduce exact.
static int digest(struct bench *b, char *hex, struct err *e) {
    size_t bytes = (size_t)model_params(b->model)->elems * sizeof(float);
    unsigned char hash[32];
    float *host = malloc(bytes);
    if (!host) return err_set(e, ERR_MEMORY, "no memory for a copy of the weights");
    struct device *d = b->rank->device;
    int rc = d->vtable->copy_out(d, host, model_weights(b->model), bytes, e);
    hash_sha256_of(host, bytes, hash);
    bytes_hex(hash, sizeof hash, hex);
    free(host);
    return rc;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int print(struct bench *b, int64_t steps, struct err *e) {
    const struct config *c = b->rank->config;
    struct buf text;
    struct json_writer w;
    double each = b->total / (double)steps,
           flops = model_step_flops(c, &b->set, c->train_batch, c->data_frames);
    char hex[65] = "";
    int rc = digest(b, hex, e);
    if (rc) return rc;
    buf_init(&text, 65536);
    qsort(b->took, (size_t)steps, sizeof *b->took, by_value);
    json_begin(&w, &text);
    json_put_object(&w, NULL);
    json_put_int(&w, "ranks", b->rank->world);
    json_put_int(&w, "threads", b->rank->device->threads);
    json_put_int(&w, "steps", steps);
    json_put_double(&w, "loss", b->loss);
    json_put_string(&w, "weights_sha256", hex);
    json_put_double(&w, "s_to_first_step", b->first);
    json_put_double(&w, "ms_per_step", 1e3 * each);
    json_put_double(&w, "ms_median", 1e3 * b->took[steps / 2]);
    json_put_double(&w, "ms_least", 1e3 * b->took[0]);
    json_put_double(&w, "tokens_per_s",
                    (double)(c->train_batch * c->data_frames * b->set.tokens_per_frame) / each);
    json_put_double(&w, "gflop_per_s", 1e-9 * flops / each);
    json_put_object(&w, "ms");
    for (int i = STEP_NOISE; i < STEP_PARTS; i++)
        json_put_double(&w, step_part_name((enum step_part)i), 1e3 * b->seconds[i] / (double)steps);
    json_close(&w, '}');
    json_put_double(&w, "comm_busy_ms", 1e3 * b->comm_busy / (double)steps);
    json_put_double(&w, "comm_wait_ms", 1e3 * b->comm_wait / (double)steps);
    json_close(&w, '}');
    rc = json_end(&w, e);
    if (!rc) puts(text.data);
    buf_fini(&text);
    return rc;
}

int task_step_bench(struct rank *r, struct err *e) {
    struct bench b = {.rank = r};
    int64_t steps = r->config->train_steps;
    int rc = open_all(&b, e);
    if (!rc) rc = time_steps(&b, steps, e);
    if (!rc) rc = step_settle(b.step, e);
    if (!rc && rank_is_root(r)) rc = print(&b, steps, e);
    free(b.took);
    for (int i = 0; i < b.set.n; i++) {
        free(b.batch.x[i]);
        free(b.batch.valid[i]);
    }
    step_close(b.step);
    optim_destroy(b.optim);
    model_destroy(b.model);
    return rc;
}
