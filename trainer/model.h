// SPDX-License-Identifier: Apache-2.0
// The transformer over all senses: weights, forward, backward, prediction. Knows nothing of regimes,
// optimisers, ranks or files. B sequences, F frames, M modalities (registry order), E = a modality's
// frame_elems; buffers are in memory of the model's device where nothing else is said. Thread rule:
// one thread per model.
#ifndef ORRERY_TRAINER_MODEL_H
#define ORRERY_TRAINER_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "kernels/ops.h"
#include "storage/ckpt.h"
#include "trainer/modality.h"
#include "trainer/params.h"

struct model;

struct model_input {
    int64_t sequences, frames;
    const float *z[OPS_MODALITIES_MAX];       // [B, F, E]: tau x + (1 - tau) noise; what is clean has tau = 1
    const float *history[OPS_MODALITIES_MAX]; // [B, F, E]: own copy of the past, unshifted: frame f sees
                                              // history[f-1], [f-2]
    const float *tau;                         // [B, F, M]
    // [B, F], host: 0 where the sequence lacks the sense in that frame, whose tokens nobody attends to then;
    // its z and history there are 0. NULL: it lacks nothing.
    const unsigned char *valid[OPS_MODALITIES_MAX];
    const float *tau_history; // [B, F]: of what frame f sees, that is of history[f-1]; 1 at f = 0
};

// Weights start as params_fill says, from c->run_seed. `set` is copied. The model keeps `c` and `d`; both
// outlive it.
int model_create(struct model **out, const struct config *c, const struct modality_set *set, struct device *d,
                 struct err *e) ERR_CHECK;
void model_destroy(struct model *m); // NULL-safe

const struct params *model_params(const struct model *m);
const struct modality_set *model_modalities(const struct model *m);
float *model_weights(struct model *m); // flat, params->elems floats
// After the weights were written: brings the copy in the device's compute type up to date. Nothing to do
// where that is fp32.
int model_refresh(struct model *m, struct err *e) ERR_CHECK;
// The same for numbers [first, end) of the flat buffer alone, rounded as training rounds them in its step
// `step`, or where `now` (device memory) is not NULL, `step` steps before that one.
int model_round(struct model *m, const struct op_rounding *how, int64_t step, const struct op_update *now,
                int64_t first, int64_t end, struct err *e) ERR_CHECK;
void *model_low(struct model *m); // that copy, in the flat layout; NULL where it is the weights themselves

// Told while the model works, so that communication goes on beside it. Stages are those of params.h.
struct model_watch {
    void *arg;
    int (*need)(void *arg, int stage, struct err *e); // the weights of stages 0 .. stage are read next
};
void model_set_watch(struct model *m, const struct model_watch *w); // copied; NULL: nobody watches

// x^ of every modality: pred[i] [B, F, E] (NULL: not wanted). Here `in` and `pred` are host memory. Any
// number of sequences (worked off in chunks), any number of frames: positions are 0 .. F-1. Allocates when it
// meets a longer sequence than before.
int model_predict(struct model *m, const struct model_input *in, float *const *pred, struct err *e) ERR_CHECK;

// ---- decoding: frame by frame, with the keys and values of the frames before. The same numbers as
// model_predict up to rounding, at the price of one frame.
struct model_cache;
int model_cache_create(struct model_cache **out, struct model *m, int64_t sequences, int64_t frames,
                       struct err *e) ERR_CHECK;
void model_cache_destroy(struct model_cache *c); // NULL-safe
// Frames before its own that a frame sees in its history slots.
int64_t model_history(const struct model *m);
// Predicts frame `at`: the last one of `in`, which holds min(at, model_history) frames before it too. Frames
// 0 .. at - 1 were decoded before, the last time with their final values, and what they lacked (in->valid) is
// remembered. pred[i] [B, E] (NULL: not wanted; all NULL: only keys and values). Decoding `at` again replaces
// it; a failure empties the cache.
int model_decode(struct model_cache *c, int64_t at, const struct model_input *in, float *const *pred,
                 struct err *e) ERR_CHECK;

// ---- training: reserve once, then forward, loss, backward.
// Plans and takes the memory for steps of exactly this shape.
int model_reserve(struct model *m, int64_t sequences, int64_t frames, struct err *e) ERR_CHECK;
// On a device like `d`: its compute type and kind of memory are looked at, nothing else.
int64_t model_training_bytes(const struct config *c, const struct modality_set *set, struct device *d,
                             int64_t sequences, int64_t frames);
// What model_predict takes for windows of this many frames, and decoding so many of them together.
int64_t model_forecast_bytes(const struct config *c, const struct modality_set *set, struct device *d,
                             int64_t sequences, int64_t frames);
// What the ops of a step take of a GPU besides: schedules of attention's mask, which stay (those of sequences
// that lack a sense come on top), and scratch, the most at a time.
struct model_gpu_bytes {
    int64_t schedules, scratch;
};
int model_gpu_bytes(struct model_gpu_bytes *out, const struct config *c, const struct modality_set *set,
                    const struct device *d, int compute, int64_t sequences, int64_t frames,
                    struct err *e) ERR_CHECK;
int model_forward(struct model *m, const struct model_input *in, struct err *e) ERR_CHECK;

struct model_target {
    const float *x[OPS_MODALITIES_MAX];      // [B, F, E]
    const float *active[OPS_MODALITIES_MAX]; // [B, F]: 1 where the loss counts
    const float *tau;                        // [B, F, M], as the forward had it
    const float *scale;                      // [M]: loss weight / active frames of the whole global batch
};
// Of the last forward. `loss` is device memory: loss[i] += sum over active frames of w(tau) mean (x^ - x)^2,
// without scale.
int model_loss(struct model *m, const struct model_target *t, double *loss, struct err *e) ERR_CHECK;

// Where a backward adds gradients. It is asked stage by stage, from the last one to the first, so they need
// not lie in one buffer.
struct model_grads {
    void *arg;
    // Those of `stage` are added next: where? There the stage is zeroed, or holds what is to be added to.
    int (*place)(void *arg, int stage, struct params_place *out, struct err *e);
    int (*final)(void *arg, int stage, struct err *e); // those of `stage` are complete; NULL: nobody asks
};
// += the gradient of sum over i of scale[i] loss[i].
int model_backward(struct model *m, const struct model_grads *g, struct err *e) ERR_CHECK;

// Multiplications and additions of one training step (forward and backward) on this many sequences.
double model_step_flops(const struct config *c, const struct modality_set *set, int64_t sequences,
                        int64_t frames);

bool model_has_average(const struct ckpt *c);
// Reads all weights (`average`: the tensors "ema.NAME" where the checkpoint has them). Shapes that differ:
// CONFIG.
int model_load(struct model *m, struct ckpt *c, bool average, struct err *e) ERR_CHECK;

#endif
