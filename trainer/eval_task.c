// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/eval_measure.h"
#include "trainer/eval_write.h"
#include "trainer/evaluate.h"
#include "trainer/forecast.h"
#include "trainer/rollout_show.h"
#include "trainer/task.h"

#define TEXT_MAX        ((size_t)64 << 20)
#define NAME_MAX_BYTES  64
#define STOPPED_DRAWING "stopped before the pictures were drawn; the same command goes on with the evaluation"

// Beside run.json and whatever else lies in the run folder.
static int check_name(const struct config *c, struct err *e) {
    const char *name = c->eval_name;
    size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    if (!strncmp(name, "eval", 4) && !name[good] && good <= NAME_MAX_BYTES) return 0;
    return err_set(
        e, ERR_CONFIG,
        "eval.name is '%.80s'; it must begin with eval, and go on with letters, digits, - and _, %d "
        "in all at most",
        name, NAME_MAX_BYTES);
}

static int write_file(const struct rank *r, const char *suffix, const struct buf *text, struct err *e) {
    char path[2 * CONFIG_TEXT_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s%s", r->run_dir, r->config->eval_name, suffix);
    int rc = bytes_make_dirs(r->run_dir, e);
    return rc ? rc : bytes_write_file(path, text->data, text->len, e);
}

static int write_result(const struct rank *r, const struct eval_result *result, struct err *e) {
    struct buf json, table;
    buf_init(&json, TEXT_MAX);
    buf_init(&table, TEXT_MAX);
    int rc = eval_write_json(result, &json, e);
    if (!rc) rc = eval_write_table(result, &table, e);
    if (!rc) rc = write_file(r, ".txt", &table, e);
    if (!rc) rc = write_file(r, ".json", &json, e);
    buf_fini(&json);
    buf_fini(&table);
    return rc;
}

static double scale_in(const struct data *d, const char *sense) {
    const struct modality_set *set = data_modalities(d);
    int m = eval_find(set, sense);
    return m >= 0 && set->spec[m].stream.scale > 0 ? set->spec[m].stream.scale : 1;
}

// These senses are divided by the scale that their own data set tells: with another one the model would meet
// other numbers than those it learned from, and be measured as worse than it is.
static int check_scales(const struct data *train, const struct data *held_out, struct err *e) {
    static const char *const scaled[] = {"action", "touch"};
    for (size_t i = 0; i < sizeof scaled / sizeof *scaled; i++) {
        double a = scale_in(train, scaled[i]), b = scale_in(held_out, scaled[i]);
        if (!(a == b))
            return err_set(e, ERR_CONFIG,
                           "%s has scale %g in data.train and %g in data.eval; give both the same in their "
                           "dataset.json",
                           scaled[i], a, b);
    }
    return 0;
}

int eval_task_check(const struct rank *r, struct data *train, struct data *held_out, struct err *e) {
    struct eval_source source, truth;
    eval_source_data(&source, train);
    eval_source_data(&truth, held_out);
    int rc = check_name(r->config, e);
    if (!rc) rc = check_scales(train, held_out, e);
    return rc ? rc : evaluate_check(r->config, r->coll, &source, &truth, e);
}

static bool stop_asked(void *rank) {
    return rank_stop_asked(rank);
}

static void tell_skipped(struct rank *r, const struct eval_result *result) {
    for (int i = 0; i < EVAL_DATA; i++) {
        const struct eval_skipped *s = &result->skipped[i];
        if (s->windows.n)
            log_warn(&r->log, "evaluation: %lld of %lld windows of %s are in broken samples; the first: %s",
                     (long long)s->windows.n, (long long)s->of, eval_data_name(i), s->why);
    }
}

static int measure(struct rank *r, struct model *m, struct data *train, struct data *held_out,
                   struct eval_weights weights, struct err *e) {
    struct forecast forecast = {.model = m};
    struct evaluate_request q = {.config = r->config,
                                 .set = data_modalities(held_out),
                                 .predictor = forecast_predictor(&forecast),
                                 .coll = r->coll,
                                 .watch = {r->box, stop_asked, r},
                                 .weights = weights};
    struct eval_result result = {0};
    struct data *own = NULL;
    blackbox_set_phase(r->box, PHASE_EVALUATE, "");
    int rc = check_name(r->config, e);
    if (!rc && !train) rc = data_open(&own, r->config, r->config->data_train, e);
    if (!train) train = own;
    if (!rc) rc = check_scales(train, held_out, e);
    if (rc) goto out;
    eval_source_data(&q.held_out, held_out);
    eval_source_data(&q.train, train);
    rc = evaluate_run(&q, &result, e);
    if (!rc && rank_is_root(r)) {
        log_info(&r->log, "evaluated %lld sequences in %.1f s", (long long)result.sequences, result.seconds);
        tell_skipped(r, &result);
        rc = write_result(r, &result, e);
    }
    eval_result_fini(&result);
out:
    forecast_fini(&forecast);
    data_close(own);
    return rc;
}

// A rank with less to do here waits for one that may take far longer than a peer in a step: as long as the
// launcher lets that one be silent. Returns the deadline before.
static int64_t be_patient(struct rank *r) {
    const struct config *c = r->config;
    int64_t s = c->comm_deadline_s > c->launch_hang_max_s ? c->comm_deadline_s : c->launch_hang_max_s;
    return coll_set_deadline(r->coll, s * 1000);
}

int eval_task_measure(struct rank *r, struct model *m, struct data *train, struct data *held_out,
                      struct eval_weights weights, struct err *e) {
    int64_t before = be_patient(r);
    int rc = measure(r, m, train, held_out, weights, e);
    coll_set_deadline(r->coll, before);
    return rc;
}

// A predictor that shows a sign of life at every frame, and ends with SAVED once its rank is asked to stop.
struct stoppable {
    struct rank *rank;
    struct predictor inner;
};

static int go_on(struct rank *r, struct err *e) {
    rank_touch(r);
    return rank_stop_asked(r) ? err_set(e, ERR_SAVED, STOPPED_DRAWING) : 0;
}

static int predict_or_stop(void *arg, const struct model_input *in, float *const *pred, struct err *e) {
    struct stoppable *s = arg;
    int rc = go_on(s->rank, e);
    return rc ? rc : s->inner.predict(s->inner.model, in, pred, e);
}

static int decode_or_stop(void *arg, int64_t window, int64_t at, const struct model_input *in,
                          float *const *pred, struct err *e) {
    struct stoppable *s = arg;
    int rc = go_on(s->rank, e);
    return rc ? rc : s->inner.decode(s->inner.model, window, at, in, pred, e);
}

static int draw(struct rank *r, struct model *m, struct data *held_out, struct err *e) {
    struct forecast forecast = {.model = m};
    struct stoppable s = {r, forecast_predictor(&forecast)};
    struct rollout_show_request q = {.config = r->config,
                                     .set = data_modalities(held_out),
                                     .predictor = {.predict = predict_or_stop,
                                                   .model = &s,
                                                   .decode = decode_or_stop,
                                                   .history = s.inner.history},
                                     .coll = r->coll,
                                     .watch = {r->box, stop_asked, r}};
    eval_source_data(&q.source, held_out);
    int rc = rollout_show(&q, r->run_dir, e);
    if (!rc && rank_is_root(r)) log_info(&r->log, "pictures are in %s/rollouts", r->run_dir);
    forecast_fini(&forecast);
    return rc;
}

static bool has_video(const struct data *held_out) {
    return eval_find(data_modalities(held_out), "video") >= 0;
}

// Where the first rank draws, the others wait for its word: drawn, or stopped.
static int draw_and_agree(struct rank *r, struct model *m, struct data *held_out, struct err *e) {
    struct err own = {0};
    int rc = draw(r, m, held_out, &own);
    int64_t stopped = rc && own.code == ERR_SAVED;
    if (rc && !stopped) {
        *e = own;
        return rc;
    }
    rc = coll_sum_i64(r->coll, "rollout pictures", &stopped, 1, e);
    return rc || !stopped ? rc : err_set(e, ERR_SAVED, STOPPED_DRAWING);
}

static int draw_pictures(struct rank *r, struct model *m, struct data *held_out, struct err *e) {
    blackbox_set_phase(r->box, PHASE_ROLLOUT, "pictures");
    int64_t before = be_patient(r);
    int rc = draw_and_agree(r, m, held_out, e);
    coll_set_deadline(r->coll, before);
    return rc;
}

int eval_task_finish(struct rank *r, struct model *m, struct data *train, struct data *held_out,
                     struct eval_weights weights, struct err *e) {
    if (!held_out) {
        if (rank_is_root(r)) log_info(&r->log, "no evaluation: data.eval is not set");
        return 0;
    }
    int rc = eval_task_measure(r, m, train, held_out, weights, e);
    if (rc) return rc;
    if (!has_video(held_out)) {
        if (rank_is_root(r)) log_info(&r->log, "no pictures: the model has no video");
        return 0;
    }
    return draw_pictures(r, m, held_out, e);
}

// ---- the tasks: the newest checkpoint's weights in a new model.
struct loaded {
    struct data *held_out;
    struct model *model;
    struct eval_weights weights;
};

static void loaded_fini(struct loaded *l) {
    model_destroy(l->model);
    data_close(l->held_out);
}

static int open_newest(struct store *s, const char *url, struct ckpt **out, struct err *e) {
    struct ckpt_entry *list = NULL;
    size_t n = 0, newest = 0;
    int rc = ckpt_list(s, &list, &n, e);
    while (newest < n && list[newest].broken) newest++;
    if (!rc && newest == n)
        rc = err_set(e, ERR_MISSING, "no complete checkpoint in %s; train first: orrery run", url);
    if (!rc) rc = ckpt_open(out, s, list[newest].id, e);
    free(list);
    return rc;
}

static int load_weights(struct rank *r, struct loaded *l, struct err *e) {
    struct store *s = NULL;
    struct ckpt *c = NULL;
    int rc = store_open(&s, r->ckpt_url, &r->store, e);
    if (!rc) rc = open_newest(s, r->ckpt_url, &c, e);
    if (!rc) ckpt_tell(c, rank_touch, r);
    if (!rc) {
        l->weights.average = r->config->optim_ema > 0 && model_has_average(c);
        l->weights.step = ckpt_state_of(c)->step;
        rc = model_load(l->model, c, l->weights.average, e);
    }
    ckpt_close(c);
    store_close(s);
    return rc;
}

static int load(struct rank *r, struct loaded *l, struct err *e) {
    if (!r->config->data_eval[0])
        return err_set(e, ERR_CONFIG, "data.eval is not set: there is nothing to evaluate on");
    int rc = data_open(&l->held_out, r->config, r->config->data_eval, e);
    if (!rc) rc = model_create(&l->model, r->config, data_modalities(l->held_out), r->device, e);
    return rc ? rc : load_weights(r, l, e);
}

int task_evaluate(struct rank *r, struct err *e) {
    struct loaded l = {0};
    int rc = load(r, &l, e);
    if (!rc) rc = eval_task_measure(r, l.model, NULL, l.held_out, l.weights, e);
    loaded_fini(&l);
    return rc;
}

int task_rollout(struct rank *r, struct err *e) {
    struct loaded l = {0};
    int rc = load(r, &l, e);
    if (!rc && !has_video(l.held_out))
        rc = err_set(e, ERR_CONFIG,
                     "there are no pictures to draw: model.modalities has no video; orrery eval "
                     "measures the other senses");
    if (!rc) rc = draw_pictures(r, l.model, l.held_out, e);
    loaded_fini(&l);
    return rc;
}
