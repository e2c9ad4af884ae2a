// SPDX-License-Identifier: Apache-2.0
// Evaluation of predictors that are known to be right, wrong or broken, in a world of two discs: the first
// follows its commands, the second drifts.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/rng.h"
#include "eval_set.h"
#include "trainer/eval_write.h"
#include "trainer/evaluate.h"
#include "trainer/metrics_image.h"

#define EPISODES 12
#define FRAMES   24
#define PIXELS   (SET_SIDE * SET_SIDE * 2)

struct place {
    double pusher[2], puck[2];
    float action[2];
};

struct toy {
    struct modality_set set;
    struct place at[EPISODES][FRAMES];
    bool broken;    // answers NaN
    bool slips;     // answers NaN once, for the first sequence
    bool numb;      // knows nothing of touch where there is none
    bool deaf;      // ignores actions
    int damaged;    // an episode that cannot be read; EPISODES: none can; -1: all can
    bool silent;    // no frame has a sound
    int gap[2];     // frames of every window [gap[0], gap[1]) that lack all observations
    int told;       // pictures that the model was told are missing
    int looks_left; // before it is asked to stop; -1: it is not asked
    float *scratch; // pictures in 0..1
};

static double inside(double v) {
    return v < 3 ? 3 : v > SET_SIDE - 3 ? SET_SIDE - 3 : v;
}

static void make_episode(struct toy *t, int i) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(1, RNG_TEST, 0), 0, (uint64_t)i);
    struct place p = {{5 + 6 * rng_next_unit(&r), 5 + 6 * rng_next_unit(&r)}, {4, 12}, {0, 0}};
    double drift = 0.05 + 0.1 * rng_next_unit(&r);
    for (int f = 0; f < FRAMES; f++) {
        for (int k = 0; k < 2; k++) {
            double before = p.pusher[k];
            p.pusher[k] = inside(before + 3 * (rng_next_unit(&r) - 0.5));
            p.action[k] = (float)(p.pusher[k] - before);
        }
        p.puck[0] += drift;
        t->at[i][f] = p;
    }
}

static void toy_init(struct toy *t) {
    memset(t, 0, sizeof *t);
    t->damaged = t->looks_left = -1;
    set_make(&t->set);
    for (int i = 0; i < EPISODES; i++) make_episode(t, i);
    t->scratch = calloc(PIXELS, sizeof *t->scratch);
}

static int64_t toy_frames(void *arg, int64_t episode) {
    return FRAMES;
}

// What a place feels and sounds like: contact while the pusher is in the left half, sound of its speed.
static void fill_frame(const struct toy *t, const struct place *p, float *const *x) {
    const struct patch_grid *grid = &t->set.spec[SET_VIDEO].grid;
    memcpy(x[SET_ACTION], p->action, sizeof p->action);
    for (int i = 0; i < 4; i++) x[SET_TOUCH][i] = p->pusher[0] < 8 ? 1 : 0;
    for (int i = 0; i < 4; i++) x[SET_AUDIO][i] = fabsf(p->action[0]) + (float)i * fabsf(p->action[1]);
    memset(x[SET_VIDEO], 0, sizeof(float) * PIXELS);
    baseline_draw_disc(x[SET_VIDEO], grid, 0, p->pusher[0], p->pusher[1], 2.5, 2);
    baseline_draw_disc(x[SET_VIDEO], grid, 1, p->puck[0], p->puck[1], 2, 2);
}

static int toy_window(void *arg, const int64_t *episode, const int64_t *first, int64_t count, int64_t frames,
                      struct batch *out, struct err *e) {
    const struct toy *t = arg;
    memset(out, 0, sizeof *out);
    for (int64_t b = 0; b < count; b++)
        if (episode[b] == t->damaged || t->damaged == EPISODES)
            return err_set(e, ERR_DATA, "episode %d is damaged", (int)episode[b]);
    out->count = count;
    out->frames = frames;
    for (int m = 0; m < SET_SENSES; m++) {
        out->x[m] = calloc((size_t)(count * frames * t->set.spec[m].frame_elems), sizeof(float));
        out->valid[m] = malloc((size_t)(count * frames));
        memset(out->valid[m], !(t->silent && m == SET_AUDIO), (size_t)(count * frames));
    }
    out->episode = calloc((size_t)count, sizeof(int64_t));
    out->first_frame = calloc((size_t)count, sizeof(int64_t));
    for (int64_t b = 0; b < count; b++)
        for (int64_t f = 0; f < frames; f++) {
            float *x[OPS_MODALITIES_MAX];
            for (int m = 0; m < SET_SENSES; m++)
                x[m] = out->x[m] + (b * frames + f) * t->set.spec[m].frame_elems;
            fill_frame(t, &t->at[episode[b]][first[b] + f], x);
            for (int m = SET_TOUCH; m < SET_SENSES && f >= t->gap[0] && f < t->gap[1]; m++) {
                memset(x[m], 0, sizeof(float) * (size_t)t->set.spec[m].frame_elems);
                out->valid[m][b * frames + f] = 0;
            }
        }
    return 0;
}

static int toy_objects(void *arg, int64_t episode, int64_t now, struct baseline_objects *out, struct err *e) {
    const struct toy *t = arg;
    *out = (struct baseline_objects){
        .n = 2, .channel = {0, 1}, .radius = {2.5 / SET_SIDE, 2.0 / SET_SIDE}, .hi = {1, 1}};
    for (int k = 0; k < 2; k++) {
        out->now[0][k] = t->at[episode][now].pusher[k] / SET_SIDE;
        out->now[1][k] = t->at[episode][now].puck[k] / SET_SIDE;
        out->before[0][k] = t->at[episode][now - 1].pusher[k] / SET_SIDE;
        out->before[1][k] = t->at[episode][now - 1].puck[k] / SET_SIDE;
    }
    return 0;
}

// Where an object is in a picture of values 0..2.
static void find(struct toy *t, const float *picture, int channel, double out[2]) {
    const struct image_shape s = {SET_SIDE, SET_SIDE, 2};
    for (int i = 0; i < PIXELS; i++) t->scratch[i] = picture[i] / 2;
    metrics_centroid(t->scratch, s, channel, out);
}

// Knows the world's law: the next place is the last one plus the command; the command is the difference of
// two.
static void answer(struct toy *t, const struct model_input *in, int64_t b, int64_t f, float *const *pred) {
    int64_t row = b * in->frames + f;
    const float *tau = in->tau + row * SET_SENSES;
    struct place p = {{8, 8}, {4, 12}, {0, 0}};
    double now[2];
    if (f > 0) {
        find(t, in->history[SET_VIDEO] + (row - 1) * PIXELS, 0, p.pusher);
        find(t, in->history[SET_VIDEO] + (row - 1) * PIXELS, 1, p.puck);
    }
    for (int k = 0; k < 2; k++) {
        if (tau[SET_VIDEO] > 0.5f) {
            find(t, in->z[SET_VIDEO] + row * PIXELS, 0, now);
            p.action[k] = (float)(now[k] - p.pusher[k]);
        } else if (!t->deaf) {
            p.action[k] = in->z[SET_ACTION][row * 2 + k];
        }
        p.pusher[k] += (double)p.action[k];
    }
    if (f > 0 && tau[SET_VIDEO] < 0.5f) p.puck[0] += 0.1;
    float video[PIXELS], touch[4], audio[4], action[2];
    float *x[OPS_MODALITIES_MAX] = {action, touch, audio, video};
    fill_frame(t, &p, x);
    if (t->numb && touch[0] == 0) touch[0] = NAN;
    for (int m = 0; m < SET_SENSES; m++)
        if (pred[m])
            for (int64_t i = 0; i < t->set.spec[m].frame_elems; i++)
                pred[m][row * t->set.spec[m].frame_elems + i] = t->broken ? NAN : x[m][i];
}

static int toy_predict(void *model, const struct model_input *in, float *const *pred, struct err *e) {
    struct toy *t = model;
    for (int64_t b = 0; b < in->sequences; b++)
        for (int64_t f = 0; f < in->frames; f++) {
            t->told += !in->valid[SET_VIDEO][b * in->frames + f];
            answer(t, in, b, f, pred);
        }
    if (t->slips) pred[SET_VIDEO][(in->frames - 1) * PIXELS] = NAN;
    t->slips = false;
    return 0;
}

static bool toy_stop(void *arg) {
    struct toy *t = arg;
    return t->looks_left >= 0 && t->looks_left-- == 0;
}

static struct config *config_make(int64_t sequences) {
    struct config *c = calloc(1, sizeof *c);
    c->run_seed = 3;
    c->data_frames = 8;
    c->eval_sequences = sequences;
    c->eval_context = 3;
    c->eval_horizon = 6;
    c->eval_samples = 2;
    c->eval_bars = CONFIG_eval_bars_demo;
    return c;
}

static void evaluate(struct toy *t, const struct config *c, struct eval_result *out) {
    struct eval_source source = {t, EPISODES, toy_frames, toy_window, toy_objects};
    struct evaluate_request q = {.config = c,
                                 .set = &t->set,
                                 .predictor = {toy_predict, t},
                                 .held_out = source,
                                 .train = source,
                                 .weights = {7, true}};
    struct err e = {0};
    assert_int_equal(evaluate_run(&q, out, &e), 0);
}

static double of(const struct eval_result *r, int row, int metric) {
    return r->value[eval_number_metric(r->horizon, row, metric, 0)];
}

static void knowing_the_law_beats_every_baseline(void **state) {
    struct toy t;
    struct config *c = config_make(21);
    struct eval_result r;
    toy_init(&t);
    evaluate(&t, c, &r);
    assert_true(of(&r, EVAL_MODEL, METRIC_PSNR) > of(&r, EVAL_VELOCITY, METRIC_PSNR) + 6);
    assert_true(of(&r, EVAL_MODEL, METRIC_SKILL) > 0.9);
    assert_true(of(&r, EVAL_MODEL, METRIC_PUSHER) < 0.5);
    assert_true(of(&r, EVAL_MODEL, METRIC_CONTACT_F1) > 0.9);
    assert_true(of(&r, EVAL_MODEL, METRIC_AUDIO_R2) > 0.9);
    assert_true(of(&r, EVAL_MODEL, METRIC_PSNR_NEAR) > of(&r, EVAL_WRONG, METRIC_PSNR_NEAR) + 6);
    assert_true(fabs(of(&r, EVAL_COPY_LAST, METRIC_SKILL)) < 1e-12);
    assert_true(r.value[eval_number_probe(r.horizon, PROBE_INVERSE)] > 0.9);
    assert_true(r.value[eval_number_probe(r.horizon, PROBE_OWN_VIDEO)] > 0.9);
    assert_true(r.value[eval_number_probe(r.horizon, PROBE_CROSS_TOUCH)] > 0.5);
    int64_t at = eval_number_metric(r.horizon, EVAL_MODEL, METRIC_PSNR, 0);
    assert_true(r.lo[at] <= r.value[at] && r.value[at] <= r.hi[at] && r.lo[at] < r.hi[at]);
    assert_true((r.has & EVAL_HAS_OBJECTS) && r.made[EVAL_SAMPLED]);
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

static void ignoring_actions_shows(void **state) {
    struct toy t;
    struct config *c = config_make(16);
    struct eval_result r;
    toy_init(&t);
    t.deaf = true;
    evaluate(&t, c, &r);
    assert_true(fabs(of(&r, EVAL_MODEL, METRIC_PSNR_NEAR) - of(&r, EVAL_WRONG, METRIC_PSNR_NEAR)) < 1e-9);
    int64_t bar = eval_number_bar(r.horizon, 5);
    assert_false(eval_bar_passes(5, r.value[bar]));
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

static void nan_fails_and_is_written_as_null(void **state) {
    struct toy t;
    struct config *c = config_make(8);
    struct eval_result r;
    struct buf text;
    struct json *doc;
    struct err e = {0};
    toy_init(&t);
    t.broken = true;
    evaluate(&t, c, &r);
    assert_true(isnan(of(&r, EVAL_MODEL, METRIC_PSNR)));
    buf_init(&text, 1 << 24);
    assert_int_equal(eval_write_json(&r, &text, &e), 0);
    assert_int_equal(json_parse(&doc, text.data, text.len, "eval.json", &e), 0);
    const struct json_value *bars = json_get(json_root(doc), "bars");
    assert_int_equal(json_size(bars), EVAL_BARS);
    for (size_t i = 0; i < json_size(bars); i++) {
        bool pass = true;
        assert_true(json_as_bool(json_get(json_at(bars, i), "pass"), &pass) && !pass);
    }
    json_destroy(doc);
    buf_clear(&text);
    assert_int_equal(eval_write_table(&r, &text, &e), 0);
    assert_non_null(strstr(text.data, "weights of step 7 (average)"));
    assert_non_null(strstr(text.data, "0 of 10 bars passed"));
    assert_non_null(strstr(text.data, "constant velocity"));
    buf_fini(&text);
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

static void one_nan_leaves_no_interval(void **state) {
    struct toy t;
    struct config *c = config_make(21);
    struct eval_result r;
    toy_init(&t);
    t.slips = true;
    evaluate(&t, c, &r);
    int64_t at = eval_number_metric(r.horizon, EVAL_MODEL, METRIC_PSNR, 1);
    assert_true(isnan(r.value[at]) && isnan(r.lo[at]) && isnan(r.hi[at]));
    at = eval_number_metric(r.horizon, EVAL_COPY_LAST, METRIC_PSNR, 1);
    assert_true(r.lo[at] <= r.value[at] && r.value[at] <= r.hi[at]);
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

static void nan_claims_the_wrong_contact(void **state) {
    struct toy t;
    struct config *c = config_make(21);
    struct eval_result r;
    toy_init(&t);
    evaluate(&t, c, &r);
    assert_true(of(&r, EVAL_MODEL, METRIC_CONTACT_F1) > 0.9);
    eval_result_fini(&r);
    t.numb = true;
    evaluate(&t, c, &r);
    assert_true(of(&r, EVAL_MODEL, METRIC_CONTACT_F1) < 0.9);
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

static void two_runs_give_the_same_bits(void **state) {
    struct toy t;
    struct config *c = config_make(19);
    struct eval_result a, b;
    toy_init(&t);
    evaluate(&t, c, &a);
    evaluate(&t, c, &b);
    size_t n = sizeof(double) * (size_t)eval_numbers_count(a.horizon);
    assert_memory_equal(a.value, b.value, n);
    assert_memory_equal(a.lo, b.lo, n);
    eval_result_fini(&a);
    eval_result_fini(&b);
    free(c);
    free(t.scratch);
}

static void worlds_without_objects_leave_them_out(void **state) {
    struct toy t;
    struct config *c = config_make(8);
    struct eval_source source = {&t, EPISODES, toy_frames, toy_window, NULL};
    struct evaluate_request q = {
        .config = c, .set = &t.set, .predictor = {toy_predict, &t}, .held_out = source, .train = source};
    struct eval_result r;
    struct buf text;
    struct err e = {0};
    toy_init(&t);
    assert_int_equal(evaluate_run(&q, &r, &e), 0);
    assert_false((r.has & EVAL_HAS_OBJECTS) || r.made[EVAL_VELOCITY]);
    assert_true(isnan(of(&r, EVAL_MODEL, METRIC_PUCK)) && of(&r, EVAL_MODEL, METRIC_PSNR_MOVING) > 10);
    buf_init(&text, 1 << 24);
    assert_int_equal(eval_write_table(&r, &text, &e), 0);
    assert_non_null(strstr(text.data, "no bars: they belong to configs/demo.yaml's table world"));
    assert_non_null(strstr(text.data, "left out: the data tells of no objects in the pictures.\n"));
    assert_null(strstr(text.data, "MISS"));
    assert_null(strstr(text.data, "puck contact")); // no column without a number
    assert_non_null(strstr(text.data, "contact  touch"));
    buf_fini(&text);
    eval_result_fini(&r);
    c->eval_horizon = FRAMES; // longer than any episode
    assert_int_equal(evaluate_run(&q, &r, &e), -ERR_DATA);
    free(c);
    free(t.scratch);
}

static int evaluate_toy(struct toy *t, const struct config *c, struct eval_result *out, struct err *e) {
    struct eval_source source = {t, EPISODES, toy_frames, toy_window, toy_objects};
    struct evaluate_request q = {.config = c,
                                 .set = &t->set,
                                 .predictor = {toy_predict, t},
                                 .held_out = source,
                                 .train = source,
                                 .watch = {.stop_asked = toy_stop, .arg = t}};
    return evaluate_run(&q, out, e);
}

static void broken_windows_are_left_out_and_listed(void **state) {
    struct toy t;
    struct config *c = config_make(24);
    struct eval_result r;
    struct buf text;
    struct err e = {0};
    toy_init(&t);
    t.damaged = 5;
    assert_int_equal(evaluate_toy(&t, c, &r, &e), -ERR_DATA);
    err_clear(&e);
    c->data_on_error = CONFIG_data_on_error_skip;
    assert_int_equal(evaluate_toy(&t, c, &r, &e), 0);
    const struct eval_skipped *s = &r.skipped[EVAL_HELD_OUT];
    assert_true(s->windows.n == 2 && s->of == 24 && r.sequences == 22);
    assert_true(s->windows.episode[0] == 5 && s->windows.episode[1] == 5);
    assert_int_equal(r.skipped[EVAL_TRAIN].windows.n, 21);
    assert_true(of(&r, EVAL_MODEL, METRIC_SKILL) > 0.9);
    buf_init(&text, 1 << 24);
    assert_int_equal(eval_write_table(&r, &text, &e), 0);
    assert_non_null(strstr(text.data,
                           "2 of 24 windows of data.eval are left out, in broken samples: episode 5\n"
                           "  episode 5 is damaged\n"));
    buf_clear(&text);
    assert_int_equal(eval_write_json(&r, &text, &e), 0);
    assert_non_null(strstr(text.data, "\"data\":\"data.eval\",\"windows\":2,\"of\":24,\"episodes\":[5]"));
    buf_fini(&text);
    eval_result_fini(&r);
    t.damaged = EPISODES;
    assert_int_equal(evaluate_toy(&t, c, &r, &e), -ERR_DATA);
    assert_non_null(
        strstr(e.text, "all 256 windows of data.train are in broken samples; the first: episode 0"));
    free(c);
    free(t.scratch);
}

static void asked_to_stop_it_ends_between_chunks(void **state) {
    struct toy t;
    struct config *c = config_make(40);
    struct eval_result r;
    toy_init(&t);
    const int looks_of[] = {0, 20, 40, 100}; // means, twice; sequences; intervals
    for (size_t i = 0; i < sizeof looks_of / sizeof *looks_of; i++) {
        struct err e = {0};
        t.looks_left = looks_of[i];
        assert_int_equal(evaluate_toy(&t, c, &r, &e), -ERR_SAVED);
        assert_int_equal(t.looks_left, -1);
    }
    free(c);
    free(t.scratch);
}

static void a_sense_that_is_never_there_is_not_measured(void **state) {
    struct toy t;
    struct config *c = config_make(9);
    struct eval_result r;
    struct err e = {0};
    toy_init(&t);
    t.silent = true;
    assert_int_equal(evaluate_toy(&t, c, &r, &e), 0);
    assert_true(isnan(of(&r, EVAL_MODEL, METRIC_AUDIO_R2)) && isnan(of(&r, EVAL_MODEL, METRIC_ONSET_F1)));
    assert_true(isnan(r.value[eval_number_probe(r.horizon, PROBE_CROSS_AUDIO)]));
    assert_true(of(&r, EVAL_MODEL, METRIC_SKILL) > 0.9);
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

static double at_horizon(const struct eval_result *r, int row, int metric, int64_t h) {
    return r->value[eval_number_metric(r->horizon, row, metric, h)];
}

// Where the last given frame is missing, the one before it is the last one: as with one given frame less.
static void copy_last_copies_a_frame_that_is_there(void **state) {
    struct toy t;
    struct config *c = config_make(9);
    struct eval_result gap, shorter;
    toy_init(&t);
    t.gap[0] = 2;
    t.gap[1] = 3;
    evaluate(&t, c, &gap);
    t.gap[1] = 0;
    c->eval_context = 2;
    c->eval_horizon = 7;
    evaluate(&t, c, &shorter);
    const int metrics[] = {METRIC_PSNR, METRIC_PSNR_MOVING, METRIC_PSNR_NEAR, METRIC_TOUCH_R2};
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++)
        for (int64_t h = 1; h <= gap.horizon; h++)
            assert_true(at_horizon(&gap, EVAL_COPY_LAST, metrics[i], h) ==
                        at_horizon(&shorter, EVAL_COPY_LAST, metrics[i], h + 1));
    assert_true(isnan(at_horizon(&gap, EVAL_MODEL, METRIC_ONSET_F1, 1))); // nothing to rise from
    eval_result_fini(&gap);
    eval_result_fini(&shorter);
    free(c);
    free(t.scratch);
}

static void without_a_given_frame_copy_last_is_the_mean(void **state) {
    struct toy t;
    struct config *c = config_make(9);
    struct eval_result r;
    toy_init(&t);
    t.gap[1] = 3;
    evaluate(&t, c, &r);
    assert_true(of(&r, EVAL_COPY_LAST, METRIC_PSNR) == of(&r, EVAL_MEAN, METRIC_PSNR));
    assert_true(isnan(of(&r, EVAL_COPY_LAST, METRIC_PSNR_MOVING)));
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

// Given frames that are missing are told to be; of those to be predicted, only where the truth is looked at:
// twice, for the commands and for touch and audio.
static void the_model_is_told_what_is_missing(void **state) {
    struct toy t;
    struct config *c = config_make(9);
    struct eval_result r;
    toy_init(&t);
    t.gap[0] = 5;
    t.gap[1] = 6;
    evaluate(&t, c, &r);
    assert_int_equal(t.told, 2 * 9);
    assert_true(isnan(at_horizon(&r, EVAL_MODEL, METRIC_PSNR, 3)));
    assert_true(at_horizon(&r, EVAL_MODEL, METRIC_SKILL, 4) > 0.9);
    eval_result_fini(&r);
    t.told = 0;
    t.gap[0] = 2;
    t.gap[1] = 3;
    evaluate(&t, c, &r);
    assert_true(t.told > 3 * 9);
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

static void one_given_frame_has_no_velocity(void **state) {
    struct toy t;
    struct config *c = config_make(9);
    struct eval_result r;
    struct buf text;
    struct err e = {0};
    toy_init(&t);
    c->eval_context = 1;
    evaluate(&t, c, &r);
    buf_init(&text, 1 << 24);
    assert_int_equal(eval_write_table(&r, &text, &e), 0);
    assert_non_null(strstr(text.data, "left out: eval.context is 1, and a velocity needs two frames.\n"));
    buf_clear(&text);
    assert_int_equal(eval_write_json(&r, &text, &e), 0);
    assert_non_null(strstr(text.data, "constant velocity: eval.context is 1"));
    buf_fini(&text);
    eval_result_fini(&r);
    free(c);
    free(t.scratch);
}

static void too_many_sequences_are_refused_beforehand(void **state) {
    struct toy t;
    struct config *c = config_make(400000);
    struct eval_source source = {&t, EPISODES, toy_frames, toy_window, NULL};
    struct err e = {0};
    toy_init(&t);
    assert_int_equal(evaluate_check(c, NULL, &source, &source, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "more than 2 GiB for its sequences; lower eval.sequences"));
    free(c);
    free(t.scratch);
}

static void windows_are_spread_over_episodes(void **state) {
    struct toy t;
    struct eval_source source = {&t, EPISODES, toy_frames, toy_window, NULL};
    struct eval_windows w;
    struct err e = {0};
    int used[EPISODES] = {0};
    assert_int_equal(eval_windows_init(&w, &source, 30, 9, 1, &e), 0);
    for (int64_t i = 0; i < w.n; i++) {
        used[w.episode[i]]++;
        assert_true(w.first_frame[i] >= 0 && w.first_frame[i] + 9 <= FRAMES);
        if (i) assert_true(w.episode[i] != w.episode[i - 1]);
    }
    for (int i = 0; i < EPISODES; i++) assert_true(used[i] == 2 || used[i] == 3);
    eval_windows_fini(&w);
    assert_int_equal(eval_windows_init(&w, &source, 4, 9, 1, &e), 0);
    assert_true(w.episode[0] == 0 && w.episode[3] == 9);
    eval_windows_fini(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knowing_the_law_beats_every_baseline),
        cmocka_unit_test(ignoring_actions_shows),
        cmocka_unit_test(nan_fails_and_is_written_as_null),
        cmocka_unit_test(one_nan_leaves_no_interval),
        cmocka_unit_test(nan_claims_the_wrong_contact),
        cmocka_unit_test(two_runs_give_the_same_bits),
        cmocka_unit_test(worlds_without_objects_leave_them_out),
        cmocka_unit_test(broken_windows_are_left_out_and_listed),
        cmocka_unit_test(asked_to_stop_it_ends_between_chunks),
        cmocka_unit_test(a_sense_that_is_never_there_is_not_measured),
        cmocka_unit_test(copy_last_copies_a_frame_that_is_there),
        cmocka_unit_test(without_a_given_frame_copy_last_is_the_mean),
        cmocka_unit_test(the_model_is_told_what_is_missing),
        cmocka_unit_test(one_given_frame_has_no_velocity),
        cmocka_unit_test(too_many_sequences_are_refused_beforehand),
        cmocka_unit_test(windows_are_spread_over_episodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
