// SPDX-License-Identifier: Apache-2.0
// A rank with model, optimiser and step on made-up data, for tests. Includes cmocka's needs first.
#ifndef ORRERY_TESTS_FAKE_STEP_H
#define ORRERY_TESTS_FAKE_STEP_H

#include <math.h>
#include <stdlib.h>

#include "fake_config.h"
#include "fake_set.h"
#include "trainer/step.h"

#define SMALL                                                                                                \
    "model.width=32", "model.layers=1", "model.head_dim=16", "video.height=8", "video.width=8",              \
        "video.patch=4", "video.margin=2", "data.frames=5", "train.batch=8", "train.warmup=0"

struct fixture {
    struct rank rank;
    struct modality_set set;
    struct model *model;
    struct optim *optim;
    struct fault fault;
    struct step *step;
    struct batch batch;
};

static inline void fill_batch(struct fixture *f) {
    const struct config *c = f->rank.config;
    struct batch *b = &f->batch;
    *b = (struct batch){.frames = c->data_frames};
    step_range(c, f->rank.world, f->rank.number, 0, &b->first, &b->count);
    int64_t frames = b->count * b->frames;
    for (int i = 0; i < f->set.n; i++) {
        int64_t width = f->set.spec[i].frame_elems;
        b->x[i] = calloc((size_t)(frames * width), sizeof(float));
        b->valid[i] = malloc((size_t)frames);
        memset(b->valid[i], 1, (size_t)frames);
        for (int64_t k = 0; k < frames * width; k++)
            b->x[i][k] = (float)sin(0.7 * (double)(k / width) + 0.3 * (double)(k % width) + i);
    }
}

typedef int fixture_coll_fn(struct coll **out, struct device *d, struct err *e);

static inline int fixture_alone(struct coll **out, struct device *d, struct err *e) {
    const struct coll_options options = {.kind = COLL_SELF, .device = d};
    return coll_open(out, &options, e);
}

// The last rank of a world, on the CPU, or on the GPU of the plug-in that ORRERY_CUDA_PLUGIN names.
static inline void open_fixture_among(struct fixture *f, struct config_file *file, bool gpu, int world,
                                      fixture_coll_fn *coll) {
    struct err e = {0};
    memset(f, 0, sizeof *f);
    f->rank = (struct rank){
        .file = file, .config = config_values(file), .number = world - 1, .world = world, .signal_fd = -1};
    const struct config *c = f->rank.config;
    fake_set(&f->set, c);
    if (blackbox_create(&f->rank.box, NULL, f->rank.number, world, 1, "train", &e)) fail_msg("%s", e.text);
    struct device_gpu_options gpu_options = {.precision = (enum device_precision)c->cuda_precision};
    if (gpu ? device_open_gpu(&f->rank.device, &gpu_options, &e) : device_open_cpu(&f->rank.device, 1, &e))
        fail_msg("%s", e.text);
    if (coll(&f->rank.coll, f->rank.device, &e)) fail_msg("%s", e.text);
    if (fault_init(&f->fault, c->fault_inject, f->rank.number, world, 1, &e)) fail_msg("%s", e.text);
    if (model_create(&f->model, c, &f->set, f->rank.device, &e)) fail_msg("%s", e.text);
    if (optim_create(&f->optim, c, model_params(f->model), f->rank.device, world, f->rank.number,
                     model_weights(f->model), &e))
        fail_msg("%s", e.text);
    if (step_open(&f->step, &f->rank, f->model, f->optim, &f->fault, &e)) fail_msg("%s", e.text);
    fill_batch(f);
}

static inline void open_fixture(struct fixture *f, struct config_file *file) {
    open_fixture_among(f, file, false, 1, fixture_alone);
}

static inline void close_fixture(struct fixture *f) {
    for (int i = 0; i < f->set.n; i++) {
        free(f->batch.x[i]);
        free(f->batch.valid[i]);
    }
    step_close(f->step);
    optim_destroy(f->optim);
    model_destroy(f->model);
    rank_close(&f->rank, false);
}

#endif
