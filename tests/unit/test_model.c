// SPDX-License-Identifier: Apache-2.0
// The whole model: gradients of every tensor against finite differences, causality, prediction in chunks.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "fake_set.h"
#include "flat_grads.h"
#include "kernels/device.h"
#include "mask_make.h"
#include "trainer/forecast.h"
#include "trainer/model_impl.h"
#include "trainer/model_mask.h"

enum { SEQUENCES = 3, FRAMES = 4 };

struct fixture {
    struct config_file *file;
    const struct config *c;
    struct modality_set set;
    struct device *device;
    struct model *model;
    struct model_input in;
    struct model_target target;
    float *z[4], *history[4], *x[4], *active[4], *tau, *tau_history, scale[4];
};

static float *random_floats(int64_t n, double lo, double hi, uint32_t stream) {
    float *v = calloc((size_t)n, sizeof *v);
    struct rng_stream r;
    rng_stream_init(&r, rng_key(7, RNG_TEST, stream), 0, 0);
    for (int64_t i = 0; i < n; i++) v[i] = (float)rng_next_range(&r, lo, hi);
    return v;
}

static void fill(struct fixture *f) {
    int64_t frames = SEQUENCES * FRAMES;
    f->in = (struct model_input){.sequences = SEQUENCES, .frames = FRAMES};
    for (int i = 0; i < 4; i++) {
        int64_t n = frames * f->set.spec[i].frame_elems;
        f->in.z[i] = f->z[i] = random_floats(n, -1, 1, 10 + (uint32_t)i);
        f->in.history[i] = f->history[i] = random_floats(n, -1, 1, 20 + (uint32_t)i);
        f->target.x[i] = f->x[i] = random_floats(n, -1, 1, 30 + (uint32_t)i);
        f->target.active[i] = f->active[i] = random_floats(frames, 0, 1, 40 + (uint32_t)i);
        for (int64_t k = 0; k < frames; k++) f->active[i][k] = f->active[i][k] > 0.4f ? 1 : 0;
        f->scale[i] = 0.25f + (float)i;
    }
    f->target.scale = f->scale;
    f->in.tau = f->target.tau = f->tau = random_floats(frames * 4, 0, 1, 50);
    f->in.tau_history = f->tau_history = random_floats(frames, 0.5, 1, 51);
}

// Zero starts would hide what stands behind them.
static void stir(struct fixture *f) {
    const struct params *p = model_params(f->model);
    float *w = model_weights(f->model);
    for (int i = 0; i < p->n; i++) {
        struct rng_stream r;
        rng_stream_init(&r, rng_key(8, RNG_TEST, (uint32_t)i), 0, 0);
        double sd = p->list[i].rank == 2 ? 1 / sqrt((double)p->list[i].shape[1]) : 0.3;
        for (int64_t k = 0; k < p->list[i].elems; k++)
            w[p->list[i].offset + k] += (float)(0.5 * sd * rng_next_normal(&r));
    }
}

static int set_up_heads(void **state, const char *width, const char *kv_heads, const char *patch) {
    const char *const overrides[] = {width,
                                     kv_heads,
                                     patch,
                                     "model.head_dim=16",
                                     "model.layers=2",
                                     "model.history=2",
                                     "model.cond_width=12",
                                     "video.height=16",
                                     "video.width=8",
                                     "video.channels=2",
                                     "video.margin=2",
                                     "audio.mels=3",
                                     "audio.bins=2",
                                     "data.frames=4",
                                     "loss.weighting=ramp"};
    struct fixture *f = calloc(1, sizeof *f);
    struct err e = {0};
    if (config_load(&f->file, NULL, overrides, sizeof overrides / sizeof *overrides, &e))
        fail_msg("%s", e.text);
    f->c = config_values(f->file);
    fake_set(&f->set, f->c);
    if (device_open_cpu(&f->device, 1, &e)) fail_msg("%s", e.text);
    if (model_create(&f->model, f->c, &f->set, f->device, &e)) fail_msg("%s", e.text);
    if (model_reserve(f->model, SEQUENCES, FRAMES, &e)) fail_msg("%s", e.text);
    fill(f);
    stir(f);
    *state = f;
    return 0;
}

static int set_up(void **state) {
    return set_up_heads(state, "model.width=32", "model.kv_heads=0", "video.patch=4");
}

// Two heads share keys and values.
static int set_up_grouped(void **state) {
    return set_up_heads(state, "model.width=64", "model.kv_heads=2", "video.patch=4");
}

// So many tokens that a prediction takes few sequences at a time.
static int set_up_fine(void **state) {
    return set_up_heads(state, "model.width=32", "model.kv_heads=0", "video.patch=1");
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    for (int i = 0; i < 4; i++) {
        free(f->z[i]);
        free(f->history[i]);
        free(f->x[i]);
        free(f->active[i]);
    }
    free(f->tau);
    free(f->tau_history);
    model_destroy(f->model);
    device_close(f->device);
    config_close(f->file);
    free(f);
    return 0;
}

static double loss_of(struct fixture *f) {
    struct err e = {0};
    double loss[4] = {0}, sum = 0;
    if (model_forward(f->model, &f->in, &e) || model_loss(f->model, &f->target, loss, &e))
        fail_msg("%s", e.text);
    for (int i = 0; i < 4; i++) sum += (double)f->scale[i] * loss[i];
    return sum;
}

// Along the gradient itself the slope is its length: the best signal that single precision can give.
static double slope(struct fixture *f, const struct param *p, const float *grad, double length, double h) {
    float *w = model_weights(f->model) + p->offset, *kept = malloc((size_t)p->elems * sizeof *kept);
    double at[2];
    for (int64_t k = 0; k < p->elems; k++) kept[k] = w[k];
    for (int side = 0; side < 2; side++) {
        for (int64_t k = 0; k < p->elems; k++)
            w[k] = (float)(kept[k] + (side ? -h : h) * grad[p->offset + k] / length);
        at[side] = loss_of(f);
    }
    for (int64_t k = 0; k < p->elems; k++) w[k] = kept[k];
    free(kept);
    return (at[0] - at[1]) / (2 * h);
}

static int backward(struct fixture *f, float *flat) {
    struct err e = {0};
    const struct model_grads grads = flat_grads(flat);
    return model_backward(f->model, &grads, &e);
}

static void gradient_of_every_tensor(void **state) {
    struct fixture *f = *state;
    const struct params *p = model_params(f->model);
    float *grads = calloc((size_t)p->elems, sizeof *grads);
    (void)loss_of(f);
    assert_int_equal(backward(f, grads), 0);
    for (int i = 0; i < p->n; i++) {
        const struct param *t = &p->list[i];
        double length = 0;
        for (int64_t k = 0; k < t->elems; k++) length += pow(grads[t->offset + k], 2);
        length = sqrt(length);
        if (!(length > 1e-3)) fail_msg("%s: gradient of length %g", t->name, length);
        double found = slope(f, t, grads, length, 4e-3);
        if (!(fabs(found - length) <= 2e-3 * length + 1e-4))
            fail_msg("%s: gradient %.6g, finite difference %.6g", t->name, length, found);
    }
    free(grads);
}

static void backward_accumulates(void **state) {
    struct fixture *f = *state;
    int64_t n = model_params(f->model)->elems;
    float *once = calloc((size_t)n, sizeof *once), *twice = calloc((size_t)n, sizeof *twice);
    for (int i = 0; i < 3; i++) {
        (void)loss_of(f);
        assert_int_equal(backward(f, i == 0 ? once : twice), 0);
    }
    for (int64_t k = 0; k < n; k++)
        if (!(fabsf(twice[k] - 2 * once[k]) <= 1e-4f + 1e-4f * fabsf(once[k])))
            fail_msg("element %lld: %g once, %g twice", (long long)k, once[k], twice[k]);
    free(once);
    free(twice);
}

// A buffer for each stage, and no more than the one that is at hand.
struct scattered {
    const struct params *params;
    const float *want; // in one buffer
    float *now;
    int64_t first, end;
    int stage; // the one at hand, or the last one
};

static int place_stage(void *arg, int stage, struct params_place *out, struct err *e) {
    struct scattered *s = arg;
    const struct params *p = s->params;
    int lo = 0, hi = p->n;
    while (p->list[lo].stage < stage) lo++;
    while (p->list[hi - 1].stage > stage) hi--;
    assert_int_equal(stage, --s->stage);
    assert_null(s->now);
    s->first = p->list[lo].offset;
    s->end = hi < p->n ? p->list[hi].offset : p->elems;
    s->now = calloc((size_t)(s->end - s->first), sizeof *s->now);
    *out = (struct params_place){.at = s->now, .first = s->first};
    return 0;
}

static int stage_is_final(void *arg, int stage, struct err *e) {
    struct scattered *s = arg;
    assert_int_equal(stage, s->stage);
    assert_memory_equal(s->now, s->want + s->first, (size_t)(s->end - s->first) * sizeof *s->now);
    free(s->now);
    s->now = NULL;
    return 0;
}

static void gradients_go_where_each_stage_is_told(void **state) {
    struct fixture *f = *state;
    struct err e = {0};
    const struct params *p = model_params(f->model);
    float *whole = calloc((size_t)p->elems, sizeof *whole);
    (void)loss_of(f);
    assert_int_equal(backward(f, whole), 0);
    (void)loss_of(f);
    struct scattered s = {.params = p, .want = whole, .stage = p->stages};
    const struct model_grads grads = {.arg = &s, .place = place_stage, .final = stage_is_final};
    assert_int_equal(model_backward(f->model, &grads, &e), 0);
    assert_int_equal(s.stage, 0);
    free(whole);
}

static float **predictions(struct fixture *f, int64_t sequences) {
    float **pred = calloc(4, sizeof *pred);
    for (int i = 0; i < 4; i++)
        pred[i] = calloc((size_t)(sequences * FRAMES * f->set.spec[i].frame_elems), sizeof(float));
    struct err e = {0};
    struct model_input in = f->in;
    in.sequences = sequences;
    if (model_predict(f->model, &in, pred, &e)) fail_msg("%s", e.text);
    return pred;
}

static void drop(float **pred) {
    for (int i = 0; i < 4; i++) free(pred[i]);
    free(pred);
}

// A change in the last frame may not reach an earlier one; it must reach its own.
static void later_frames_are_unseen(void **state) {
    struct fixture *f = *state;
    float **before = predictions(f, SEQUENCES);
    int64_t e = f->set.spec[3].frame_elems;
    f->z[3][(FRAMES - 1) * e + 5] += 1;
    f->history[3][(FRAMES - 1) * e + 5] += 1; // history of the last frame: nobody's
    float **after = predictions(f, SEQUENCES);
    for (int i = 0; i < 4; i++) {
        int64_t width = f->set.spec[i].frame_elems, changed = 0;
        for (int64_t k = 0; k < (FRAMES - 1) * width; k++)
            if (!(before[i][k] == after[i][k])) fail_msg("sense %d: element %lld changed", i, (long long)k);
        for (int64_t k = (FRAMES - 1) * width; k < FRAMES * width; k++)
            changed += before[i][k] != after[i][k];
        assert_true(changed > 0);
    }
    drop(before);
    drop(after);
}

// Sequence by sequence or all at once: to rounding the same.
static void prediction_does_not_depend_on_company(void **state) {
    struct fixture *f = *state;
    float **all = predictions(f, SEQUENCES), **one = predictions(f, 1);
    for (int i = 0; i < 4; i++)
        for (int64_t k = 0; k < FRAMES * f->set.spec[i].frame_elems; k++)
            if (!(fabsf(all[i][k] - one[i][k]) <= 1e-5f)) fail_msg("sense %d element %lld", i, (long long)k);
    drop(all);
    drop(one);
}

// Gaps of all senses, at the borders of frames too; the first sequence lacks nothing.
static void make_gaps(unsigned char *const *valid, int64_t frames, uint32_t stream) {
    for (int i = 0; i < 4; i++) {
        float *dice = random_floats(SEQUENCES * frames, 0, 1, stream + (uint32_t)i);
        for (int64_t k = 0; k < SEQUENCES * frames; k++) valid[i][k] = k >= frames ? dice[k] > 0.4f : 1;
        free(dice);
    }
}

// Frames [from, from + frames) of every sequence of the fixture's input, in buffers of their own.
static struct model_input cut(const struct fixture *f, int64_t from, int64_t frames, float *buffer[10],
                              unsigned char gaps[4][SEQUENCES * FRAMES]) {
    struct model_input in = {.sequences = SEQUENCES, .frames = frames};
    const float *all[10] = {f->tau, f->tau_history};
    int64_t width[10] = {4, 1};
    for (int i = 0; i < 4; i++) {
        all[2 + i] = f->z[i];
        all[6 + i] = f->history[i];
        width[2 + i] = width[6 + i] = f->set.spec[i].frame_elems;
    }
    for (int i = 0; i < 10; i++)
        for (int64_t b = 0; b < SEQUENCES; b++)
            memcpy(buffer[i] + b * frames * width[i], all[i] + (b * FRAMES + from) * width[i],
                   sizeof(float) * (size_t)(frames * width[i]));
    in.tau = buffer[0];
    in.tau_history = buffer[1];
    for (int i = 0; i < 4; i++) {
        in.z[i] = buffer[2 + i];
        in.history[i] = buffer[6 + i];
        for (int64_t b = 0; b < SEQUENCES && f->in.valid[i]; b++)
            memcpy(gaps[i] + b * frames, f->in.valid[i] + b * FRAMES + from, (size_t)frames);
        in.valid[i] = f->in.valid[i] ? gaps[i] : NULL;
    }
    return in;
}

static void compare_frame(const struct fixture *f, int64_t at, float *const *got, float *const *all) {
    for (int i = 0; i < 4; i++) {
        int64_t n = f->set.spec[i].frame_elems;
        for (int64_t k = 0; k < SEQUENCES * n; k++) {
            float want = all[i][(k / n * FRAMES + at) * n + k % n];
            if (!(fabsf(got[i][k] - want) <= 1e-5f))
                fail_msg("frame %lld, sense %d, element %lld: %g, predicted %g", (long long)at, i,
                         (long long)k, got[i][k], want);
        }
    }
}

// Frame by frame against what is kept of the frames before, twice over: to rounding the same as all at once.
static void decode_all(struct fixture *f) {
    struct model_cache *cache = NULL;
    unsigned char gaps[4][SEQUENCES * FRAMES];
    struct err e = {0};
    float **all = predictions(f, SEQUENCES), **got = predictions(f, SEQUENCES), *buffer[10];
    for (int i = 0; i < 10; i++) buffer[i] = calloc(SEQUENCES * FRAMES * 256, sizeof(float));
    assert_int_equal(model_history(f->model), 2);
    assert_int_equal(model_cache_create(&cache, f->model, SEQUENCES, FRAMES, &e), 0);
    struct model_input ahead = cut(f, 0, 3, buffer, gaps);
    assert_int_equal(model_decode(cache, 2, &ahead, got, &e), -ERR_BUG); // frames 0 and 1 are not there
    for (int64_t turn = 0; turn < 2 * FRAMES; turn++) {
        int64_t at = turn % FRAMES, before = at < 2 ? at : 2;
        struct model_input in = cut(f, at - before, before + 1, buffer, gaps);
        struct err failed = {0};
        if (model_decode(cache, at, &in, got, &failed)) fail_msg("%s", failed.text);
        compare_frame(f, at, got, all);
    }
    model_cache_destroy(cache);
    for (int i = 0; i < 10; i++) free(buffer[i]);
    drop(got);
    drop(all);
}

static void decoding_is_predicting(void **state) {
    decode_all(*state);
}

static void decoding_knows_what_is_missing(void **state) {
    struct fixture *f = *state;
    unsigned char valid[4][SEQUENCES * FRAMES];
    unsigned char *const at[4] = {valid[0], valid[1], valid[2], valid[3]};
    for (uint32_t round = 0; round < 4; round++) {
        make_gaps(at, FRAMES, 300 + 4 * round);
        for (int i = 0; i < 4; i++) f->in.valid[i] = valid[i];
        decode_all(f);
    }
}

enum { ROLLED = 2 * FRAMES };

// A rollout of ROLLED frames, the last ones on a window that slides.
static void roll(struct fixture *f, bool decoding, enum rollout_mode mode, int steps,
                 unsigned char *const *valid, float **x) {
    struct forecast forecast = {.model = f->model};
    struct predictor p = forecast_predictor(&forecast);
    uint64_t sample[SEQUENCES] = {3, 4, 5};
    struct rollout_request q = {.mode = mode,
                                .sequences = SEQUENCES,
                                .frames = ROLLED,
                                .context = 2,
                                .window = FRAMES,
                                .steps = steps,
                                .sample = sample};
    struct err e = {0};
    for (int i = 0; i < 4; i++) {
        q.x[i] = x[i] =
            random_floats(SEQUENCES * ROLLED * f->set.spec[i].frame_elems, 0, 1, 60 + (uint32_t)i);
        q.valid[i] = valid ? valid[i] : NULL;
    }
    if (!decoding) p.decode = NULL;
    if (rollout_run(&p, &f->set, &q, &e)) fail_msg("%s", e.text);
    forecast_fini(&forecast);
}

static void rollouts_may_decode(void **state) {
    struct fixture *f = *state;
    enum rollout_mode modes[] = {ROLLOUT_SIMULATE, ROLLOUT_GENERATE, ROLLOUT_POLICY};
    unsigned char valid[4][SEQUENCES * ROLLED];
    unsigned char *const gaps[4] = {valid[0], valid[1], valid[2], valid[3]};
    make_gaps(gaps, ROLLED, 400);
    for (int k = 0; k < 6; k++) {
        float *with[4], *without[4];
        roll(f, true, modes[k / 2], 1 + 2 * (k % 2), k % 2 ? gaps : NULL, with);
        roll(f, false, modes[k / 2], 1 + 2 * (k % 2), k % 2 ? gaps : NULL, without);
        for (int i = 0; i < 4; i++) {
            for (int64_t n = 0; n < SEQUENCES * ROLLED * f->set.spec[i].frame_elems; n++)
                if (!(fabsf(with[i][n] - without[i][n]) <= 1e-3f))
                    fail_msg("%s, sense %d, element %lld: %g, without a cache %g",
                             rollout_mode_name(modes[k / 2]), i, (long long)n, with[i][n], without[i][n]);
            free(with[i]);
            free(without[i]);
        }
    }
}

// Decoding takes the frames that history reaches of all sequences at once, predicting whole windows of a few.
static void forecasts_take_what_is_planned(void **state) {
    struct fixture *f = *state;
    struct forecast forecast = {.model = f->model};
    struct predictor p = forecast_predictor(&forecast);
    enum { MANY = 16 };
    uint64_t sample[MANY] = {0};
    struct rollout_request q = {.mode = ROLLOUT_SIMULATE,
                                .sequences = MANY,
                                .frames = FRAMES,
                                .context = FRAMES - 1,
                                .window = FRAMES,
                                .steps = 1,
                                .sample = sample};
    struct err e = {0};
    for (int i = 0; i < 4; i++)
        q.x[i] = random_floats(MANY * FRAMES * f->set.spec[i].frame_elems, 0, 1, 60 + (uint32_t)i);
    assert_true(model_predict_chunk(&f->set, FRAMES) * FRAMES < MANY * 3);
    if (rollout_run(&p, &f->set, &q, &e)) fail_msg("%s", e.text);
    float **pred = predictions(f, SEQUENCES);
    int64_t planned = model_forecast_bytes(f->c, &f->set, f->device, MANY, FRAMES);
    int64_t taken = (int64_t)f->model->predicting.arena.size + model_past_bytes(f->model, MANY, FRAMES) +
                    model_space_bytes(f->model, MANY, 1, false);
    assert_int_equal(planned, taken);
    drop(pred);
    forecast_fini(&forecast);
    for (int i = 0; i < 4; i++) free(q.x[i]);
}

// A sense that a sequence lacks in some frames: what stands in its place reaches no other token, no other
// sequence, and no weight that only it would touch.
static void missing_senses_are_not_attended(void **state) {
    struct fixture *f = *state;
    enum { LACKS = 2, GONE = 1 }; // touch, in frames 1 and 2 of sequence 1
    unsigned char valid[SEQUENCES * FRAMES];
    float **whole = predictions(f, SEQUENCES);
    memset(valid, 1, sizeof valid);
    f->in.valid[LACKS] = valid;
    float **same = predictions(f, SEQUENCES);
    valid[GONE * FRAMES + 1] = valid[GONE * FRAMES + 2] = 0;
    int64_t e = f->set.spec[LACKS].frame_elems;
    float **before = predictions(f, SEQUENCES);
    for (int64_t k = 0; k < 2 * e; k++) f->z[LACKS][(GONE * FRAMES + 1) * e + k] += 3;
    float **after = predictions(f, SEQUENCES);
    int64_t differ = 0;
    for (int i = 0; i < 4; i++) {
        int64_t width = f->set.spec[i].frame_elems;
        for (int64_t k = 0; k < SEQUENCES * FRAMES * width; k++) {
            int64_t frame = k / width;
            bool own = i == LACKS && !valid[frame];
            if (!(whole[i][k] == same[i][k]))
                fail_msg("nothing is missing, yet sense %d element %lld changed", i, (long long)k);
            if (frame / FRAMES != GONE && !(whole[i][k] == before[i][k]))
                fail_msg("another sequence changed: sense %d", i);
            if (!own && !(before[i][k] == after[i][k]))
                fail_msg("sense %d element %lld sees what is missing", i, (long long)k);
            differ += frame / FRAMES == GONE && whole[i][k] != before[i][k];
        }
    }
    assert_true(differ > 0); // without it the others see less
    drop(whole);
    drop(same);
    drop(before);
    drop(after);
}

static void gradients_pass_by_what_is_missing(void **state) {
    struct fixture *f = *state;
    enum { LACKS = 1 };
    unsigned char valid[SEQUENCES * FRAMES];
    const struct params *p = model_params(f->model);
    char name[64];
    float *grads = calloc((size_t)p->elems, sizeof *grads);
    memset(valid, 0, sizeof valid);
    f->in.valid[LACKS] = valid;
    memset(f->active[LACKS], 0, SEQUENCES * FRAMES * sizeof(float));
    (void)loss_of(f);
    assert_int_equal(backward(f, grads), 0);
    snprintf(name, sizeof name, "embed.%s.weight", f->set.spec[LACKS].modality->name);
    const struct param *embed = params_find(p, name);
    if (!embed) fail_msg("no tensor %s", name);
    for (int64_t k = 0; k < embed->elems; k++) assert_true(grads[embed->offset + k] == 0);
    const struct param *qkv = params_find(p, "blocks.0.qkv.weight");
    double length = 0;
    for (int64_t k = 0; k < qkv->elems; k++) length += pow(grads[qkv->offset + k], 2);
    length = sqrt(length);
    double found = slope(f, qkv, grads, length, 4e-3);
    if (!(fabs(found - length) <= 2e-3 * length + 1e-4))
        fail_msg("gradient %.6g, finite difference %.6g", length, found);
    free(grads);
}

// Windows, gaps at the borders of frames, and frames without anything, against the plain definition.
struct gaps {
    const struct modality_set *set;
    const unsigned char *valid[4];
    int64_t window, sequence, first; // first: the frame of query 0
};

static int gap_visible(void *arg, int64_t q, int64_t k) {
    const struct gaps *g = arg;
    int64_t p = g->set->tokens_per_frame, fq = q / p + g->first, fk = k / p;
    int sense = g->set->slot_modality[k % p];
    return fk <= fq && (g->window == 0 || fk > fq - g->window) && g->valid[sense][g->sequence * FRAMES + fk];
}

static void compare_mask(const struct mask *got, struct gaps *g) {
    struct mask want = mask_make(got->queries, got->keys, gap_visible, g);
    struct err e = {0};
    if (mask_check(got, &e)) fail_msg("%s", e.text);
    assert_int_equal(mask_pairs(got), mask_pairs(&want));
    for (int32_t r = 0; r < got->n_runs; r++)
        for (int32_t v = 0; v < got->runs[r].count; v++)
            for (int32_t k = got->intervals[got->runs[r].first + v].lo;
                 k < got->intervals[got->runs[r].first + v].hi; k++)
                assert_true(gap_visible(g, got->runs[r].q_lo, k));
    mask_fini(&want);
}

// The queries of one frame alone, as decoding asks.
static void compare_frames(struct model_masks *m, struct gaps g, const struct mask *all) {
    for (g.first = 0; g.first < FRAMES; g.first++) {
        struct mask none = {.queries = g.set->tokens_per_frame, .keys = all->keys};
        struct err e = {0};
        if (model_masks_look_at(m, g.set, g.valid, SEQUENCES, FRAMES, g.first, g.window, &none, &e))
            fail_msg("%s", e.text);
        for (g.sequence = 0; g.sequence < SEQUENCES && m->used; g.sequence++)
            if (m->list[g.sequence] != &none) compare_mask(m->list[g.sequence], &g);
        assert_true(!m->used || m->list[0] == &none);
    }
}

static void masks_are_the_definition(void **state) {
    struct fixture *f = *state;
    unsigned char valid[4][SEQUENCES * FRAMES];
    unsigned char *const at[4] = {valid[0], valid[1], valid[2], valid[3]};
    for (uint32_t round = 0; round < 24; round++) {
        struct gaps g = {.set = &f->set, .window = round % 4};
        struct model_masks m = {.used = false};
        struct mask shared = {0};
        struct err e = {0};
        make_gaps(at, FRAMES, 100 + 4 * round);
        for (int i = 0; i < 4; i++) g.valid[i] = valid[i];
        assert_int_equal(mask_block_causal(&shared, FRAMES, f->set.tokens_per_frame, g.window, FRAMES, &e),
                         0);
        if (model_masks_look(&m, &f->set, g.valid, SEQUENCES, FRAMES, g.window, &shared, &e))
            fail_msg("%s", e.text);
        assert_true(m.used && m.list[0] == &shared);
        for (g.sequence = 0; g.sequence < SEQUENCES; g.sequence++) compare_mask(m.list[g.sequence], &g);
        compare_frames(&m, g, &shared);
        model_masks_fini(&m);
        mask_fini(&shared);
    }
}

static void untrained_model_predicts_zero(void **state) {
    struct fixture *f = *state;
    struct model *fresh = NULL, *kept = f->model;
    struct err e = {0};
    assert_int_equal(model_create(&fresh, f->c, &f->set, f->device, &e), 0);
    f->model = fresh;
    float **pred = predictions(f, SEQUENCES);
    for (int i = 0; i < 4; i++)
        for (int64_t k = 0; k < SEQUENCES * FRAMES * f->set.spec[i].frame_elems; k++)
            assert_true(pred[i][k] == 0);
    drop(pred);
    f->model = kept;
    model_destroy(fresh);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gradient_of_every_tensor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gradient_of_every_tensor, set_up_grouped, tear_down),
        cmocka_unit_test_setup_teardown(backward_accumulates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gradients_go_where_each_stage_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(later_frames_are_unseen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(prediction_does_not_depend_on_company, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decoding_is_predicting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decoding_is_predicting, set_up_grouped, tear_down),
        cmocka_unit_test_setup_teardown(decoding_knows_what_is_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rollouts_may_decode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rollouts_may_decode, set_up_grouped, tear_down),
        cmocka_unit_test_setup_teardown(forecasts_take_what_is_planned, set_up_fine, tear_down),
        cmocka_unit_test_setup_teardown(missing_senses_are_not_attended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gradients_pass_by_what_is_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(masks_are_the_definition, set_up, tear_down),
        cmocka_unit_test_setup_teardown(untrained_model_predicts_zero, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
