// SPDX-License-Identifier: Apache-2.0
#include "trainer/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "trainer/eval_bootstrap.h"
#include "trainer/eval_measure.h"

#define MEAN_WINDOWS    256 // training windows behind the training mean
#define REPLICATES_MAX  1000
#define REPLICATES_MIN  50
#define REPLICATE_CELLS 8000000 // doubles that all replicates together may take

struct evaluate {
    const struct evaluate_request *q;
    int64_t context, frames, window; // window: frames that the model sees
    struct eval_windows held_out, train;
    struct baseline_means truth, training;
    struct eval_measure measure;
    bool made[EVAL_ROWS];
    int64_t record; // elems of one
};

static void enter(const struct evaluate_request *q, const char *place) {
    if (q->watch.box) blackbox_set_phase(q->watch.box, PHASE_EVALUATE, place);
}

static int64_t chunk_end(const struct eval_windows *w, int64_t first) {
    return first + EVALUATE_CHUNK < w->n ? first + EVALUATE_CHUNK : w->n;
}

// ---- one chunk of sequences.
struct chunk {
    struct evaluate *ev;
    int64_t first, n;
    struct batch batch; // n + 1 windows: the one before the first, for its actions, then the chunk
    uint64_t sample[EVALUATE_CHUNK];
    float *guess[EVAL_ROWS][OPS_MODALITIES_MAX];
    unsigned char *there[EVAL_ROWS][OPS_MODALITIES_MAX]; // [n, frames]: of the guess, as of the truth
    float *cut[OPS_MODALITIES_MAX];                      // [n, probe frames, frame_elems]
    unsigned char *cut_there[OPS_MODALITIES_MAX];        // [n, probe frames]
};

static int64_t elems_of(const struct evaluate *ev, int m) {
    return ev->q->set->spec[m].frame_elems;
}

static float *truth_of(const struct chunk *c, int m) {
    return c->batch.x[m] + c->ev->frames * elems_of(c->ev, m);
}

static const unsigned char *valid_of(const struct chunk *c, int m) {
    return c->batch.valid[m] + c->ev->frames;
}

static int load_chunk(struct chunk *c, struct err *e) {
    struct evaluate *ev = c->ev;
    int64_t episode[EVALUATE_CHUNK + 1], first_frame[EVALUATE_CHUNK + 1];
    for (int64_t i = 0; i <= c->n; i++) {
        int64_t k = (c->first + i - 1 + ev->held_out.n) % ev->held_out.n;
        episode[i] = ev->held_out.episode[k];
        first_frame[i] = ev->held_out.first_frame[k];
    }
    for (int64_t i = 0; i < c->n; i++) c->sample[i] = (uint64_t)(c->first + i);
    const struct eval_source *s = &ev->q->held_out;
    return s->window(s->arg, episode, first_frame, c->n + 1, ev->frames, &c->batch, e);
}

static void chunk_fini(struct chunk *c) {
    for (int m = 0; m < OPS_MODALITIES_MAX; m++) {
        for (int row = 0; row < EVAL_ROWS; row++) {
            free(c->guess[row][m]);
            free(c->there[row][m]);
        }
        free(c->cut[m]);
        free(c->cut_there[m]);
    }
    batch_fini(&c->batch);
}

// A row starts as a copy of the truth; its forecast then replaces the frames from the context on.
static int start_row(struct chunk *c, int row, struct err *e) {
    for (int m = 0; m < c->ev->q->set->n; m++) {
        size_t frames = (size_t)(c->n * c->ev->frames),
               bytes = sizeof(float) * frames * (size_t)elems_of(c->ev, m);
        c->guess[row][m] = malloc(bytes);
        c->there[row][m] = malloc(frames);
        if (!c->guess[row][m] || !c->there[row][m])
            return err_set(e, ERR_MEMORY, "no memory for %zu bytes of forecast", bytes);
        memcpy(c->guess[row][m], truth_of(c, m), bytes);
        memcpy(c->there[row][m], valid_of(c, m), frames);
    }
    return 0;
}

static void run_naive(struct chunk *c) {
    struct evaluate *ev = c->ev;
    struct baseline_shape s = {c->n, ev->frames, ev->context};
    for (int m = 0; m < ev->q->set->n; m++) {
        if (m == ev->q->set->action) continue;
        baseline_copy_last(c->guess[EVAL_COPY_LAST][m], s, elems_of(ev, m), valid_of(c, m),
                           ev->training.mean[m]);
        baseline_mean(c->guess[EVAL_MEAN][m], s, elems_of(ev, m), ev->training.mean[m]);
    }
}

static int run_velocity(struct chunk *c, struct err *e) {
    struct evaluate *ev = c->ev;
    const struct eval_source *s = &ev->q->held_out;
    int video = ev->measure.video;
    for (int64_t b = 0; b < c->n; b++) {
        struct baseline_objects o;
        int64_t now = ev->held_out.first_frame[c->first + b] + ev->context - 1;
        int rc = s->objects(s->arg, ev->held_out.episode[c->first + b], now, &o, e);
        if (rc && !data_passes_over(ev->q->config, e)) return rc;
        if (rc) { // senses that can be read, but not where things are
            o = (struct baseline_objects){0};
            err_clear(e);
        }
        baseline_constant_velocity(c->guess[EVAL_VELOCITY][video] + b * ev->frames * elems_of(ev, video),
                                   ev->frames, ev->context, &ev->q->set->spec[video].grid, &o);
    }
    return 0;
}

// The actions of the sequence before, from the context on.
static void swap_actions(struct chunk *c) {
    struct evaluate *ev = c->ev;
    int a = ev->q->set->action;
    int64_t n = elems_of(ev, a), skip = ev->context * n, all = ev->frames * n;
    for (int64_t b = 0; b < c->n; b++) {
        int64_t from = b * ev->frames + ev->context;
        memcpy(c->guess[EVAL_WRONG][a] + b * all + skip, c->batch.x[a] + b * all + skip,
               sizeof(float) * (size_t)(all - skip));
        memcpy(c->there[EVAL_WRONG][a] + from, c->batch.valid[a] + from, (size_t)(ev->frames - ev->context));
    }
}

// What the model forecasts is there, whether it was recorded or not.
static void mark_made(struct chunk *c, int row) {
    struct evaluate *ev = c->ev;
    for (int m = 0; m < ev->q->set->n; m++)
        for (int64_t b = 0; b < c->n && m != ev->q->set->action; b++)
            memset(c->there[row][m] + b * ev->frames + ev->context, 1, (size_t)(ev->frames - ev->context));
}

static int run_model(struct chunk *c, int row, int steps, struct err *e) {
    struct evaluate *ev = c->ev;
    struct rollout_request r = {.mode = ROLLOUT_SIMULATE,
                                .sequences = c->n,
                                .frames = ev->frames,
                                .context = ev->context,
                                .window = ev->window,
                                .steps = steps,
                                .seed = (uint64_t)ev->q->config->run_seed,
                                .sample = c->sample};
    for (int m = 0; m < ev->q->set->n; m++) {
        r.x[m] = c->guess[row][m];
        r.valid[m] = c->there[row][m];
    }
    int rc = rollout_run(&ev->q->predictor, ev->q->set, &r, e);
    mark_made(c, row);
    return rc;
}

static int run_rows(struct chunk *c, struct err *e) {
    struct evaluate *ev = c->ev;
    int rc = 0;
    for (int row = 0; row < EVAL_ROWS && !rc; row++)
        if (ev->made[row]) rc = start_row(c, row, e);
    if (rc) return rc;
    run_naive(c);
    if (ev->made[EVAL_VELOCITY]) rc = run_velocity(c, e);
    if (!rc) rc = run_model(c, EVAL_MODEL, 1, e);
    if (!rc && ev->made[EVAL_WRONG]) {
        swap_actions(c);
        rc = run_model(c, EVAL_WRONG, 1, e);
    }
    if (!rc && ev->made[EVAL_SAMPLED]) rc = run_model(c, EVAL_SAMPLED, (int)ev->q->config->eval_samples, e);
    return rc;
}

static int measure_rows(struct chunk *c, double *block, struct err *e) {
    struct evaluate *ev = c->ev;
    for (int64_t b = 0; b < c->n; b++) {
        struct eval_sequence s = {0};
        for (int m = 0; m < ev->q->set->n; m++) {
            int64_t at = b * ev->frames * elems_of(ev, m);
            s.truth[m] = truth_of(c, m) + at;
            s.valid[m] = valid_of(c, m) + b * ev->frames;
            for (int row = 0; row < EVAL_ROWS; row++) {
                bool says = ev->made[row] && (row != EVAL_VELOCITY || m == ev->measure.video);
                s.guess[row][m] = says ? c->guess[row][m] + at : NULL;
            }
        }
        int rc = eval_measure_forecast(&ev->measure, &s, block + b * ev->record, e);
        if (rc) return rc;
    }
    return 0;
}

// ---- probes: one look at the last `seen` frames of a sequence.
static int64_t frames_seen(const struct evaluate *ev) {
    return ev->frames < ev->window ? ev->frames : ev->window;
}

#define TRUTH (-1) // in place of a row

static int cut_last(struct chunk *c, int row, struct err *e) {
    int64_t seen = frames_seen(c->ev), skip = c->ev->frames - seen;
    for (int m = 0; m < c->ev->q->set->n; m++) {
        int64_t n = elems_of(c->ev, m);
        const float *x = row == TRUTH ? truth_of(c, m) : c->guess[row][m];
        const unsigned char *there = row == TRUTH ? valid_of(c, m) : c->there[row][m];
        if (!c->cut[m]) c->cut[m] = malloc(sizeof(float) * (size_t)(c->n * seen * n));
        if (!c->cut_there[m]) c->cut_there[m] = malloc((size_t)(c->n * seen));
        if (!c->cut[m] || !c->cut_there[m])
            return err_set(e, ERR_MEMORY, "no memory for %lld frames", (long long)seen);
        for (int64_t b = 0; b < c->n; b++) {
            int64_t first = b * c->ev->frames + skip;
            memcpy(c->cut[m] + b * seen * n, x + first * n, sizeof(float) * (size_t)(seen * n));
            memcpy(c->cut_there[m] + b * seen, there + first, (size_t)seen);
        }
    }
    return 0;
}

static int look(struct chunk *c, enum rollout_mode mode, unsigned asked, int row, struct err *e) {
    struct rollout_request r = {.mode = mode,
                                .sequences = c->n,
                                .frames = frames_seen(c->ev),
                                .asked = asked,
                                .window = c->ev->window,
                                .steps = 1,
                                .seed = (uint64_t)c->ev->q->config->run_seed,
                                .sample = c->sample};
    int rc = cut_last(c, row, e);
    for (int m = 0; m < c->ev->q->set->n; m++) {
        r.x[m] = c->cut[m];
        r.valid[m] = c->cut_there[m];
    }
    return rc ? rc : rollout_run(&c->ev->q->predictor, c->ev->q->set, &r, e);
}

// Compares what was asked for with the truth, frames [from, frames) of the sequence.
static void add_probe(struct chunk *c, int m, int64_t from, int probe, double *block) {
    struct evaluate *ev = c->ev;
    int64_t n = elems_of(ev, m), seen = frames_seen(ev), skip = ev->frames - seen;
    for (int64_t b = 0; b < c->n; b++)
        eval_measure_probe(&ev->measure, m, truth_of(c, m) + (b * ev->frames + skip) * n,
                           c->cut[m] + b * seen * n, valid_of(c, m) + b * ev->frames + skip,
                           from > skip ? from - skip : 1, seen,
                           eval_record_probe(block + b * ev->record, ev->frames - ev->context, probe));
}

static int run_probes(struct chunk *c, double *block, struct err *e) {
    const struct eval_measure *m = &c->ev->measure;
    int rc = 0;
    if (m->action >= 0) {
        rc = look(c, ROLLOUT_INVERSE, 0, TRUTH, e);
        if (rc) return rc;
        add_probe(c, m->action, 1, PROBE_INVERSE, block);
        rc = look(c, ROLLOUT_INVERSE, 0, EVAL_MODEL, e);
        if (rc) return rc;
        add_probe(c, m->action, c->ev->context, PROBE_OWN_VIDEO, block);
    }
    unsigned asked = (m->touch >= 0 ? 1u << m->touch : 0) | (m->audio >= 0 ? 1u << m->audio : 0);
    if (!asked || m->video < 0) return 0;
    rc = look(c, ROLLOUT_PERCEIVE, asked, TRUTH, e);
    if (rc) return rc;
    if (m->touch >= 0) add_probe(c, m->touch, 1, PROBE_CROSS_TOUCH, block);
    if (m->audio >= 0) add_probe(c, m->audio, 1, PROBE_CROSS_AUDIO, block);
    return 0;
}

static int run_chunk(void *arg, int64_t item, double *block, struct err *e) {
    struct evaluate *ev = arg;
    struct chunk c = {.ev = ev, .first = item * EVALUATE_CHUNK};
    c.n = chunk_end(&ev->held_out, c.first) - c.first;
    char place[64];
    snprintf(place, sizeof place, "sequences %lld to %lld", (long long)c.first,
             (long long)(c.first + c.n - 1));
    enter(ev->q, place);
    int rc = load_chunk(&c, e);
    if (!rc) rc = run_rows(&c, e);
    if (!rc) rc = measure_rows(&c, block, e);
    if (!rc) rc = run_probes(&c, block, e);
    chunk_fini(&c);
    return rc;
}

// ---- the whole.
static struct eval_deal deal_of(const struct config *c, struct coll *coll, int64_t sequences) {
    return (struct eval_deal){.coll = coll,
                              .name = "evaluate: records",
                              .of = "sequences",
                              .count = sequences,
                              .each = EVALUATE_CHUNK,
                              .block_elems = EVALUATE_CHUNK * eval_record_elems(c->eval_horizon)};
}

int evaluate_check(const struct config *c, struct coll *coll, const struct eval_source *train,
                   const struct eval_source *held_out, struct err *e) {
    if (held_out->episodes < 1) return err_set(e, ERR_DATA, "data.eval holds no episode");
    if (train->episodes < 1) return err_set(e, ERR_DATA, "data.train holds no episode");
    if (c->eval_context >= c->data_frames)
        return err_set(e, ERR_CONFIG,
                       "eval.context (%lld) must be less than data.frames (%lld), the frames that the "
                       "model sees",
                       (long long)c->eval_context, (long long)c->data_frames);
    struct eval_deal deal = deal_of(c, coll, c->eval_sequences);
    int rc = eval_windows_check(held_out, c->eval_context + c->eval_horizon, e);
    return rc ? rc : eval_deal_check(&deal, e);
}

static const char *why_no_objects(const struct evaluate *ev) {
    if (eval_find(ev->q->set, "video") < 0) return "the model has no video";
    if (!ev->q->held_out.objects) return "the data tells of no objects in the pictures";
    return ev->context < 2 ? "eval.context is 1, and a velocity needs two frames" : NULL;
}

static void choose_rows(struct evaluate *ev) {
    const struct evaluate_request *q = ev->q;
    for (int row = 0; row < EVAL_ROWS; row++) ev->made[row] = true;
    ev->made[EVAL_VELOCITY] = !why_no_objects(ev);
    ev->made[EVAL_WRONG] = q->set->action >= 0 && ev->held_out.n > 1;
    ev->made[EVAL_SAMPLED] = q->config->eval_samples > 1;
}

static int take_means(struct evaluate *ev, int data, struct eval_windows *w, struct baseline_means *out,
                      struct eval_skipped *skipped, struct err *e) {
    const struct evaluate_request *q = ev->q;
    bool train = data == EVAL_TRAIN;
    struct eval_means_request means = {.config = q->config,
                                       .set = q->set,
                                       .source = train ? &q->train : &q->held_out,
                                       .coll = q->coll,
                                       .watch = q->watch,
                                       .data = train ? "data.train" : "data.eval",
                                       .of = train ? "training windows" : "held-out windows"};
    enter(q, train ? "the mean of training windows" : "the mean of held-out windows");
    return eval_means_take(&means, w, out, skipped, e);
}

static int prepare(struct evaluate *ev, struct eval_result *result, struct err *e) {
    const struct evaluate_request *q = ev->q;
    const struct config *c = q->config;
    ev->context = c->eval_context;
    ev->frames = c->eval_context + c->eval_horizon;
    ev->window = c->data_frames;
    ev->record = eval_record_elems(c->eval_horizon);
    int rc = eval_windows_init(&ev->held_out, &q->held_out, c->eval_sequences, ev->frames, EVAL_SEED, e);
    if (!rc) rc = eval_windows_init(&ev->train, &q->train, MEAN_WINDOWS, ev->window, EVAL_SEED, e);
    if (!rc) rc = take_means(ev, EVAL_TRAIN, &ev->train, &ev->training, &result->skipped[EVAL_TRAIN], e);
    if (!rc)
        rc = take_means(ev, EVAL_HELD_OUT, &ev->held_out, &ev->truth, &result->skipped[EVAL_HELD_OUT], e);
    if (rc) return rc;
    result->sequences = ev->held_out.n;
    choose_rows(ev);
    return eval_measure_init(&ev->measure, q->set, &ev->truth, ev->made[EVAL_VELOCITY], ev->frames,
                             ev->context, e);
}

static int take_result(struct eval_result *out, int64_t horizon, struct err *e) {
    size_t n = (size_t)eval_numbers_count(horizon);
    out->value = calloc(n, sizeof(double));
    out->lo = calloc(n, sizeof(double));
    out->hi = calloc(n, sizeof(double));
    if (out->value && out->lo && out->hi) return 0;
    return err_set(e, ERR_MEMORY, "no memory for %zu numbers", n);
}

static int64_t replicates_for(int64_t horizon) {
    int64_t n = REPLICATE_CELLS / eval_numbers_count(horizon);
    return n > REPLICATES_MAX ? REPLICATES_MAX : n < REPLICATES_MIN ? REPLICATES_MIN : n;
}

static int conclude(const struct evaluate *ev, const double *records, struct eval_result *out,
                    struct err *e) {
    int64_t horizon = ev->frames - ev->context, n = ev->held_out.n;
    double *sum = calloc((size_t)ev->record, sizeof *sum);
    if (!sum) return err_set(e, ERR_MEMORY, "no memory for a record");
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < ev->record; k++) sum[k] += records[i * ev->record + k];
    eval_numbers(sum, horizon, out->value);
    free(sum);
    struct eval_bootstrap b = {.coll = ev->q->coll,
                               .watch = ev->q->watch,
                               .records = records,
                               .n = n,
                               .horizon = horizon,
                               .replicates = replicates_for(horizon),
                               .seed = EVAL_SEED};
    enter(ev->q, "intervals");
    int rc = eval_bootstrap(&b, out->lo, out->hi, e);
    // Replicates without the one sequence that went wrong tell nothing of the number.
    for (int64_t k = 0; k < eval_numbers_count(horizon) && !rc; k++)
        if (isnan(out->value[k])) out->lo[k] = out->hi[k] = NAN;
    return rc;
}

static unsigned has_of(const struct evaluate *ev) {
    const struct eval_measure *m = &ev->measure;
    return (m->video >= 0 ? EVAL_HAS_VIDEO : 0u) | (m->objects ? EVAL_HAS_OBJECTS : 0u) |
           (m->action >= 0 ? EVAL_HAS_ACTION : 0u) | (ev->made[EVAL_WRONG] ? EVAL_HAS_WRONG : 0u) |
           (m->touch >= 0 ? EVAL_HAS_TOUCH : 0u) | (m->audio >= 0 ? EVAL_HAS_AUDIO : 0u) |
           (ev->frames - ev->context >= 6 ? EVAL_HAS_H6 : 0u);
}

static void evaluate_fini(struct evaluate *ev) {
    eval_measure_fini(&ev->measure);
    baseline_means_fini(&ev->truth);
    baseline_means_fini(&ev->training);
    eval_windows_fini(&ev->held_out);
    eval_windows_fini(&ev->train);
}

int evaluate_run(const struct evaluate_request *q, struct eval_result *out, struct err *e) {
    struct evaluate ev = {.q = q};
    double *records = NULL, began = clock_seconds();
    *out = (struct eval_result){.weights = q->weights,
                                .sequences = q->config->eval_sequences,
                                .context = q->config->eval_context,
                                .horizon = q->config->eval_horizon,
                                .samples = q->config->eval_samples,
                                .seed = (uint64_t)q->config->run_seed,
                                .ranks = q->coll ? coll_size(q->coll) : 1};
    enter(q, "");
    int rc = evaluate_check(q->config, q->coll, &q->train, &q->held_out, e);
    if (!rc) rc = take_result(out, out->horizon, e);
    if (!rc) rc = prepare(&ev, out, e);
    if (rc) goto out;
    struct eval_deal deal = deal_of(q->config, q->coll, ev.held_out.n);
    deal.watch = q->watch;
    deal.fn = run_chunk;
    deal.arg = &ev;
    rc = eval_deal_run(&deal, &records, e);
    if (!rc) rc = conclude(&ev, records, out, e);
    memcpy(out->made, ev.made, sizeof out->made);
    out->has = has_of(&ev);
    out->no_objects = why_no_objects(&ev);
    // No other world tells of a pusher and pucks.
    out->bars = q->config->eval_bars == CONFIG_eval_bars_demo && q->held_out.objects;
    out->seconds = clock_seconds() - began;
out:
    free(records);
    evaluate_fini(&ev);
    if (rc) eval_result_fini(out);
    return rc;
}

void eval_result_fini(struct eval_result *r) {
    for (int i = 0; i < EVAL_DATA; i++) eval_skipped_fini(&r->skipped[i]);
    free(r->value);
    free(r->lo);
    free(r->hi);
    r->value = r->lo = r->hi = NULL;
}

const char *eval_data_name(int data) {
    static const char *const names[EVAL_DATA] = {[EVAL_TRAIN] = "data.train", [EVAL_HELD_OUT] = "data.eval"};
    return names[data];
}
