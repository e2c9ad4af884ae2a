// SPDX-License-Identifier: Apache-2.0
// The task `train`: open, resume, steps with saves and votes between them, a last save, evaluation.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "comm/grid.h"
#include "storage/hash.h"
#include "trainer/eval_task.h"
#include "trainer/metrics.h"
#include "trainer/parts.h"
#include "trainer/task.h"

#define SUSPECTS_TOLD 6
#define ROLLBACKS_MAX 16
#define SKIPPED_MAX   20 // in a row: more is no glitch, and nothing is learned
#define LOUD_RMS      10

struct train {
    struct rank *rank;
    const struct config *config;
    struct parts parts;
    struct data *held_out;              // NULL without data.eval
    struct metrics *metrics;            // rank 0
    int64_t replaced;                   // broken samples, data.on_error=skip
    int64_t done;                       // steps
    int64_t rolled_back[ROLLBACKS_MAX]; // the steps that were the reason, counted as in metrics.jsonl
    int rollbacks;
    int skipped;                     // steps in a row
    bool roll_back;                  // before the next step
    bool heard;                      // the loudness of the first batch's actions
    bool stopped;                    // a signal came to some rank
    unsigned char sample_digest[32]; // rank 0: chained over (episode, first frame) of every sample so far

    // Since the last line of metrics.
    double since, seconds[STEP_PARTS], comm_busy, comm_wait;
    int64_t steps_since;
};

// ---- opening

static int open_data(struct train *t, struct data **out, const char *text, struct err *e) {
    char url[CONFIG_TEXT_BYTES + FAULT_STORE_BYTES + 16];
    int rc = fault_store_url(&t->parts.fault, text, url, sizeof url, e);
    return rc ? rc : data_open(out, t->config, url, e);
}

// From here on every store of this rank is behind the faults asked for.
static int init_faults(struct train *t, struct err *e) {
    struct rank *r = t->rank;
    char url[CONFIG_TEXT_BYTES];
    int rc = fault_init(&t->parts.fault, t->config->fault_inject, r->number, r->world, r->attempt, e);
    memcpy(url, r->ckpt_url, sizeof url);
    return rc ? rc : fault_store_url(&t->parts.fault, url, r->ckpt_url, sizeof r->ckpt_url, e);
}

static void tell_short(const struct train *t, const struct data *d, const char *name, int64_t frames,
                       const char *what) {
    long long n = data_shorter(d, frames), all = dataset_samples(data_dataset(d));
    if (!n || !rank_is_root(t->rank)) return;
    blackbox_event(t->rank->box, "%lld of %lld episodes of %s are left out: shorter than %lld frames", n, all,
                   name, (long long)frames);
    log_warn(&t->rank->log, "%lld of %lld episodes of %s %s shorter than %s (%lld) and %s left out", n, all,
             name, n == 1 ? "is" : "are", what, (long long)frames, n == 1 ? "is" : "are");
}

static void tell_all_short(const struct train *t) {
    const struct config *c = t->config;
    tell_short(t, t->parts.data, "data.train", c->data_frames, "data.frames");
    if (t->held_out)
        tell_short(t, t->held_out, "data.eval", c->eval_context + c->eval_horizon,
                   "eval.context + eval.horizon");
}

static int open_parts(struct train *t, struct err *e) {
    struct rank *r = t->rank;
    int rc = grid_check_shards(t->config->comm_shards, r->world, e);
    if (!rc) rc = init_faults(t, e);
    if (!rc) rc = open_data(t, &t->parts.data, t->config->data_train, e);
    // Opened before the first step, so that a wrong URL or horizon does not cost a training.
    if (!rc && t->config->data_eval[0]) rc = open_data(t, &t->held_out, t->config->data_eval, e);
    if (!rc && t->held_out) rc = eval_task_check(t->rank, t->parts.data, t->held_out, e);
    if (!rc) tell_all_short(t);
    return rc ? rc : parts_open(&t->parts, e);
}

static bool unhex(const char *text, unsigned char *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned value;
        if (sscanf(text + 2 * i, "%2x", &value) != 1) return false;
        out[i] = (unsigned char)value;
    }
    return true;
}

static int resume(struct train *t, struct err *e) {
    struct ckpt_state *state = calloc(1, sizeof *state);
    if (!state) return err_set(e, ERR_MEMORY, "no memory for a checkpoint's state");
    bool found = false;
    int rc = snapshot_resume(t->parts.snapshot, &found, state, e);
    if (!rc && found) {
        t->done = state->step;
        if (!unhex(state->sample_sha256, t->sample_digest, sizeof t->sample_digest))
            rc = err_set(e, ERR_DATA, "checkpoint of step %lld: sample_sha256 is no SHA-256",
                         (long long)t->done);
    }
    free(state);
    if (rc || !rank_is_root(t->rank)) return rc;
    if (found)
        log_info(&t->rank->log, "resuming from step %lld of %s", (long long)t->done, t->rank->ckpt_url);
    else
        log_info(&t->rank->log, "starting fresh; checkpoints go to %s", t->rank->ckpt_url);
    return metrics_open(&t->metrics, t->rank->run_dir, t->done, e);
}

static void close_all(struct train *t) {
    metrics_close(t->metrics);
    parts_close(&t->parts);
    data_close(t->held_out);
}

// ---- what is seen of a step

static void fold_samples(struct train *t, int64_t number) {
    int64_t batch = t->config->train_batch;
    for (int64_t g = number * batch; g < (number + 1) * batch; g++) {
        struct loader_item item;
        unsigned char link[48];
        data_item(t->parts.data, g, &item);
        memcpy(link, t->sample_digest, 32);
        bytes_put_le64(link + 32, (uint64_t)item.sample);
        bytes_put_le64(link + 40, (uint64_t)item.first_frame);
        hash_sha256_of(link, sizeof link, t->sample_digest);
    }
}

static void show(struct train *t, const struct batch *b, const struct step_report *r) {
    struct blackbox_page *p = blackbox_page(t->rank->box);
    p->samples_seen = t->done * t->config->train_batch;
    p->first_sample = b->first;
    p->last_sample = b->first + b->count - 1;
    p->loss = r->loss;
    p->grad_norm = r->grad_norm;
    p->lr = r->rate;
    blackbox_set_step(t->rank->box, t->done);
}

static int write_line(struct train *t, const struct step_report *r, struct err *e) {
    double now = clock_seconds(), took = now - t->since;
    struct metrics_line line = {.step = t->done, .set = model_modalities(t->parts.model), .report = r};
    line.samples_per_s = (double)(t->steps_since * t->config->train_batch) / took;
    line.data_wait = t->seconds[STEP_DATA] / took;
    for (int i = 0; i < STEP_PARTS; i++) line.seconds[i] = t->seconds[i] / (double)t->steps_since;
    line.comm_busy = t->comm_busy / (double)t->steps_since;
    line.comm_wait = t->comm_wait / (double)t->steps_since;
    struct blackbox_page *p = blackbox_page(t->rank->box);
    p->samples_per_s = line.samples_per_s;
    p->data_wait_share = line.data_wait;
    t->since = now;
    t->steps_since = 0;
    t->comm_busy = t->comm_wait = 0;
    memset(t->seconds, 0, sizeof t->seconds);
    if (!t->metrics) return 0;
    log_info(&t->rank->log, "step %lld/%lld  loss %.5f  %.0f samples/s", (long long)t->done,
             (long long)t->config->train_steps, r->loss, line.samples_per_s);
    return metrics_write(t->metrics, &line, e);
}

static void tell_replaced(struct train *t, const struct batch *b) {
    if (b->replaced == 0) return;
    t->replaced += b->replaced;
    blackbox_event(t->rank->box, "%lld broken samples replaced: %s", (long long)b->replaced, b->why.text);
    log_warn(&t->rank->log,
             "step %lld: %lld broken samples replaced by the next whole ones (%lld so far on this rank): %s",
             (long long)t->done, (long long)b->replaced, (long long)t->replaced, b->why.text);
}

// Names the samples, and the episodes they are cut from.
static void tell_skipped(struct train *t, const struct step_report *r) {
    char episodes[256] = "";
    size_t used = 0;
    for (int64_t g = 0; g < r->suspects && g < SUSPECTS_TOLD && used < sizeof episodes; g++) {
        struct loader_item item;
        data_item(t->parts.data, r->suspect_first + g, &item);
        used += (size_t)snprintf(episodes + used, sizeof episodes - used, "%s%lld at frame %lld",
                                 g ? ", " : "", (long long)item.sample, (long long)item.first_frame);
    }
    blackbox_event(t->rank->box, "step %lld skipped: samples %lld to %lld", (long long)t->done,
                   (long long)r->suspect_first, (long long)(r->suspect_first + r->suspects - 1));
    if (t->metrics)
        log_warn(&t->rank->log,
                 "step %lld skipped: loss %g, gradient norm %g; samples %lld to %lld: episodes %s%s",
                 (long long)t->done, r->loss, r->grad_norm, (long long)r->suspect_first,
                 (long long)(r->suspect_first + r->suspects - 1), episodes,
                 r->suspects > SUSPECTS_TOLD ? ", ..." : "");
}

// All ranks judge alike.
static int check_skipped(struct train *t, const struct step_report *r, struct err *e) {
    t->skipped = r->skipped ? t->skipped + 1 : 0;
    if (t->skipped < SKIPPED_MAX) return 0;
    return err_set(
        e, ERR_DATA,
        "step %lld is the %dth in a row that is skipped (loss %g, gradient norm %g); what was "
        "saved before is kept; look at the data, lower optim.lr, or raise train.spike if it is set",
        (long long)t->done, t->skipped, r->loss, r->grad_norm);
}

// Of what the model sees: commands are there over their stream's scale.
struct loudness {
    double sum, n; // of squares, and of how many
};

static struct loudness loudness_of(const struct modality_set *set, const struct batch *b) {
    const struct modality_spec *spec = &set->spec[set->action];
    struct loudness l = {0};
    for (int64_t f = 0; f < b->count * b->frames; f++) {
        if (!b->valid[set->action][f]) continue;
        const float *x = b->x[set->action] + f * spec->frame_elems;
        for (int64_t i = 0; i < spec->frame_elems; i++) l.sum += (double)x[i] * (double)x[i];
        l.n += (double)spec->frame_elems;
    }
    return l;
}

// Of all ranks' parts of the batch.
static int action_rms(const struct train *t, const struct batch *b, double *rms, struct err *e) {
    struct loudness own = loudness_of(data_modalities(t->parts.data), b), sum = {0};
    struct loudness *all = calloc((size_t)t->rank->world, sizeof *all);
    if (!all) return err_set(e, ERR_MEMORY, "no memory to compare %d ranks", t->rank->world);
    int rc = coll_gather_all(t->rank->coll, "loudness of actions", &own, sizeof own, all, e);
    for (int r = 0; r < t->rank->world && !rc; r++) {
        sum.sum += all[r].sum;
        sum.n += all[r].n;
    }
    free(all);
    *rms = sum.n > 0 ? sqrt(sum.sum / sum.n) : 0;
    return rc;
}

// Once, of the first batch: the model expects numbers of about 1.
static int tell_loud(struct train *t, const struct batch *b, struct err *e) {
    const struct modality_set *set = data_modalities(t->parts.data);
    double rms = 0;
    if (t->heard || set->action < 0) return 0;
    t->heard = true;
    int rc = action_rms(t, b, &rms, e);
    if (rc || !(rms > LOUD_RMS) || !rank_is_root(t->rank)) return rc;
    blackbox_event(t->rank->box, "actions of the first batch have an rms of %.3g", rms);
    log_warn(&t->rank->log,
             "actions of the first batch have an rms of %.3g, where about 1 is expected: give stream '%s' a "
             "\"scale\" in the data set's schema",
             rms, set->spec[set->action].stream.name);
    return 0;
}

static int observe(struct train *t, const struct batch *b, const struct step_report *r, struct err *e) {
    show(t, b, r);
    tell_replaced(t, b);
    int rc = tell_loud(t, b, e);
    if (rc) return rc;
    t->steps_since++;
    for (int i = 0; i < STEP_PARTS; i++) t->seconds[i] += r->seconds[i];
    t->comm_busy += r->comm_busy;
    t->comm_wait += r->comm_wait;
    if (r->skipped) tell_skipped(t, r);
    bool due = r->skipped || t->done % t->config->train_log_every == 0 || t->done == t->config->train_steps;
    if (due) rc = write_line(t, r, e);
    return rc ? rc : check_skipped(t, r, e);
}

// ---- saving

static int save(struct train *t, struct err *e) {
    struct buf yaml;
    struct ckpt_state *state = calloc(1, sizeof *state);
    if (!state) return err_set(e, ERR_MEMORY, "no memory for a checkpoint's state");
    buf_init(&yaml, sizeof state->config_yaml - 1);
    state->step = t->done;
    state->next_sample = t->done * t->config->train_batch;
    state->seed = (uint64_t)t->config->run_seed;
    state->config_hash = config_hash(t->config);
    bytes_hex(t->sample_digest, sizeof t->sample_digest, state->sample_sha256);
    int rc = step_settle(t->parts.step, e);
    if (!rc) rc = config_write_values(t->rank->file, &yaml, e);
    if (!rc) memcpy(state->config_yaml, yaml.data, yaml.len);
    if (!rc) rc = snapshot_begin(t->parts.snapshot, state, e);
    buf_fini(&yaml);
    free(state);
    return rc;
}

static int save_last(struct train *t, struct err *e) {
    int rc = snapshot_finish(t->parts.snapshot, e);
    if (!rc && snapshot_newest(t->parts.snapshot) != t->done) rc = save(t, e);
    return rc ? rc : snapshot_finish(t->parts.snapshot, e);
}

// ---- the loop

// The shard that this rank's next batch begins in: where it is stuck when nothing comes.
static const char *shard_now(const struct train *t) {
    int64_t first, count;
    struct loader_item item;
    struct dataset_sample sample;
    step_range(t->config, t->rank->world, t->rank->number, t->done, &first, &count);
    data_item(t->parts.data, first, &item);
    dataset_sample(data_dataset(t->parts.data), item.sample, &sample);
    return dataset_shard_key(data_dataset(t->parts.data), sample.shard);
}

static int next_batch(struct train *t, const struct batch **out, struct step_report *r, struct err *e) {
    double began = clock_seconds();
    blackbox_set_phase(t->rank->box, PHASE_DATA, shard_now(t));
    rank_slip(t->rank, fault_at(&t->parts.fault, t->done, PHASE_DATA));
    int rc = data_next(t->parts.data, out, e);
    r->seconds[STEP_DATA] = clock_seconds() - began;
    return rc;
}

// The first time that a step is bad. Met again, it is skipped.
static bool wants_rollback(const struct train *t) {
    if (t->config->train_on_nan != CONFIG_train_on_nan_rollback || t->rollbacks == ROLLBACKS_MAX)
        return false;
    for (int i = 0; i < t->rollbacks; i++)
        if (t->rolled_back[i] == t->done + 1) return false;
    return true;
}

static int one_step(struct train *t, struct err *e) {
    const struct batch *batch = NULL;
    struct step_report report = {0};
    int64_t votes[STEP_VOTES] = {0};
    int rc = next_batch(t, &batch, &report, e);
    if (rc) return rc;
    snapshot_say(t->parts.snapshot, votes);
    votes[VOTE_STOP] = rank_stop_asked(t->rank);
    rc = step_run(t->parts.step, batch, t->done, votes, &report, e);
    if (rc) return rc;
    t->stopped = votes[VOTE_STOP] > 0;
    if (t->metrics) fold_samples(t, t->done);
    t->roll_back = report.skipped && wants_rollback(t);
    t->done++;
    rc = snapshot_hear(t->parts.snapshot, votes, e);
    return rc ? rc : observe(t, batch, &report, e);
}

// ---- evaluation

static bool evaluation_due(const struct train *t) {
    const struct config *c = t->config;
    return c->eval_every > 0 && t->held_out && t->done % c->eval_every == 0 && t->done < c->train_steps;
}

// The averaged weights, where there are any, take the place of the last ones: training is over and saved.
static int take_average(struct train *t, struct err *e) {
    struct device *d = t->rank->device;
    const struct params *p = model_params(t->parts.model);
    int lo, hi, rc = 0;
    if (!(t->config->optim_ema > 0)) return 0;
    optim_owned(t->parts.optim, &lo, &hi);
    for (int i = lo; !rc && i < hi; i++)
        rc = d->vtable->copy(d, model_weights(t->parts.model) + p->list[i].offset,
                             optim_state_of(t->parts.optim, i, OPTIM_AVERAGE),
                             sizeof(float) * (size_t)p->list[i].elems, e);
    struct coll_op *op = NULL;
    if (!rc)
        rc = coll_all_gather(t->rank->coll, &op, "all-gather averages", model_weights(t->parts.model),
                             optim_offsets(t->parts.optim), e);
    if (!rc) rc = coll_wait(t->rank->coll, op, e);
    return rc ? rc : model_refresh(t->parts.model, e);
}

// Between steps: the pace that the next line of metrics tells is that of steps, and a stop in its midst is
// one of the training, which saves.
static int measure(struct train *t, struct err *e) {
    double began = clock_seconds();
    int rc = step_settle(t->parts.step, e);
    if (!rc)
        rc = eval_task_measure(t->rank, t->parts.model, t->parts.data, t->held_out,
                               (struct eval_weights){t->done, false}, e);
    t->since += clock_seconds() - began;
    if (!rc || e->code != ERR_SAVED) return rc;
    t->stopped = true;
    err_clear(e);
    return 0;
}

static int finish(struct train *t, struct err *e) {
    struct eval_weights weights = {t->done, t->config->optim_ema > 0};
    int rc = take_average(t, e);
    return rc ? rc : eval_task_finish(t->rank, t->parts.model, t->parts.data, t->held_out, weights, e);
}

static int announce(struct train *t, struct err *e) {
    const struct config *c = t->config;
    int64_t first, count;
    step_range(c, t->rank->world, t->rank->number, t->done, &first, &count);
    return data_prefetch(t->parts.data, first, count, c->train_batch, e);
}

// Back to the newest checkpoint, as all ranks have judged alike. Without one the step stays skipped.
static int roll_back(struct train *t, struct err *e) {
    int64_t bad = t->done;
    t->rolled_back[t->rollbacks++] = bad;
    t->roll_back = false;
    int rc = step_settle(t->parts.step, e);
    if (!rc) rc = snapshot_finish(t->parts.snapshot, e);
    if (rc || snapshot_newest(t->parts.snapshot) < 0) return rc;
    metrics_close(t->metrics);
    t->metrics = NULL;
    blackbox_set_phase(t->rank->box, PHASE_CHECKPOINT, "the newest one, to go back to");
    rc = resume(t, e);
    if (rc) return rc;
    t->skipped = 0;
    blackbox_event(t->rank->box, "rolled back from step %lld to %lld", (long long)bad, (long long)t->done);
    if (t->metrics)
        log_warn(&t->rank->log, "rolled back to step %lld; step %lld is skipped if it is bad again",
                 (long long)t->done, (long long)bad);
    blackbox_set_step(t->rank->box, t->done);
    return announce(t, e);
}

static int run_steps(struct train *t, struct err *e) {
    const struct config *c = t->config;
    int rc = announce(t, e);
    t->since = clock_seconds();
    while (!rc && !t->stopped && t->done < c->train_steps) {
        rc = one_step(t, e);
        if (!rc && t->roll_back) {
            rc = roll_back(t, e);
            continue;
        }
        bool due = c->checkpoint_every > 0 && t->done % c->checkpoint_every == 0 && t->done < c->train_steps;
        if (!rc && due && !t->stopped) rc = save(t, e);
        if (!rc && !t->stopped && evaluation_due(t)) rc = measure(t, e);
    }
    return rc ? rc : step_settle(t->parts.step, e);
}

static int run(struct train *t, struct err *e) {
    struct blackbox_page *p = blackbox_page(t->rank->box);
    int rc = open_parts(t, e);
    if (!rc) rc = resume(t, e);
    if (rc) return rc;
    p->total_steps = t->config->train_steps;
    p->micro_batch = t->config->train_batch / t->config->comm_shards;
    p->checkpoint_step = snapshot_newest(t->parts.snapshot);
    blackbox_set_step(t->rank->box, t->done);
    if (t->done < t->config->train_steps) rc = run_steps(t, e);
    if (!rc) rc = save_last(t, e);
    if (rc) return rc;
    if (t->done >= t->config->train_steps) return finish(t, e);
    return err_set(e, ERR_SAVED,
                   "stopped at step %lld of %lld and saved; the same command goes on from there",
                   (long long)t->done, (long long)t->config->train_steps);
}

int task_train(struct rank *r, struct err *e) {
    struct train t = {.rank = r, .config = r->config, .parts = {.rank = r}};
    int rc = run(&t, e);
    close_all(&t);
    return rc;
}
