// SPDX-License-Identifier: Apache-2.0
#include "trainer/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "comm/grid.h"
#include "kernels/ops.h"
#include "trainer/regime.h"
#include "trainer/schedule.h"
#include "trainer/step_impl.h"

static const char *const part_names[STEP_PARTS] = {
    [STEP_DATA] = "data",         [STEP_NOISE] = "noise",   [STEP_FORWARD] = "forward",
    [STEP_BACKWARD] = "backward", [STEP_REDUCE] = "reduce", [STEP_UPDATE] = "update",
    [STEP_GATHER] = "gather",
};

const char *step_part_name(enum step_part part) {
    return part_names[part];
}

void step_range(const struct config *c, int world, int rank, int64_t number, int64_t *first, int64_t *count) {
    int64_t lo, hi, micro = c->train_batch / c->comm_shards;
    grid_split(c->comm_shards, world, rank, &lo, &hi);
    *first = number * c->train_batch + lo * micro;
    *count = (hi - lo) * micro;
}

int step_open(struct step **out, struct rank *r, struct model *m, struct optim *o, struct fault *f,
              struct err *e) {
    const struct config *c = r->config;
    int rc = grid_check_shards(c->comm_shards, r->world, e);
    if (rc) return rc;
    struct step *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "no memory for a step");
    *s =
        (struct step){.rank = r, .config = c, .model = m, .optim = o, .fault = f, .set = model_modalities(m)};
    s->micro = c->train_batch / c->comm_shards;
    s->frames = c->data_frames;
    grid_split(c->comm_shards, r->world, r->number, &s->lo, &s->hi);
    rc = step_memory_take(s, e);
    if (!rc) rc = step_graph_open(s, e);
    if (rc)
        step_close(s);
    else
        *out = s;
    return rc;
}

void step_close(struct step *s) {
    if (!s) return;
    step_graph_close(s);
    step_memory_release(s);
    free(s);
}

static void begin(const struct step *s, enum step_part part) {
    device_push(s->rank->device, part_names[part], -1);
}

static void end(struct step *s, enum step_part part) {
    device_pop(s->rank->device);
    step_lap(s, part);
}

// A recorded step has entered its phases before.
static void enter(struct step *s, enum blackbox_phase phase) {
    if (s->graphs.recording) return;
    blackbox_set_phase(s->rank->box, phase, NULL);
    enum fault_action action = s->fault ? fault_at(s->fault, s->number, phase) : FAULT_NONE;
    if (action == FAULT_NAN) s->poisoned = true;
    rank_slip(s->rank, action);
}

// ---- the numbers of a step

static void draw_sequence(struct step *s, const struct batch *b, int64_t i) {
    struct step_numbers *l = &s->host;
    int n = s->set->n;
    float hide[OPS_MODALITIES_MAX];
    struct regime_draw draw = {.tau = l->tau + i * s->frames * n,
                               .past = l->past + i * s->frames,
                               .tau_history = l->tau_history + i * s->frames,
                               .hide = hide};
    l->sample[i] = (uint64_t)(b->first + i);
    regime_sample(s->config, s->set, s->frames, l->sample[i], &draw);
    for (int m = 0; m < n; m++) {
        l->hide[m * b->count + i] = hide[m];
        for (int64_t f = 0; f < s->frames; f++) {
            bool active = draw.tau[f * n + m] < 1 && b->valid[m][i * s->frames + f];
            l->active[(m * b->count + i) * s->frames + f] = active ? 1 : 0;
            s->counts[m] += active;
        }
    }
}

// Which sequences have what noise, and how many frames count in the whole global batch; the ranks' votes ride
// along, and whether the step is like an earlier one.
static int agree(struct step *s, const struct batch *b, int64_t *votes, struct err *e) {
    int64_t sums[OPS_MODALITIES_MAX + STEP_VOTES + STEP_GRAPH_WORDS];
    memset(s->counts, 0, sizeof s->counts);
    for (int64_t i = 0; i < b->count; i++) draw_sequence(s, b, i);
    memcpy(sums, s->counts, sizeof s->counts);
    memcpy(sums + OPS_MODALITIES_MAX, votes, STEP_VOTES * sizeof *votes);
    step_graph_say(s, b, sums + OPS_MODALITIES_MAX + STEP_VOTES);
    int rc = coll_sum_i64(s->rank->coll, "agree", sums, sizeof sums / sizeof *sums, e);
    memcpy(s->counts, sums, sizeof s->counts);
    memcpy(votes, sums + OPS_MODALITIES_MAX, STEP_VOTES * sizeof *votes);
    if (!rc) step_graph_hear(s, sums + OPS_MODALITIES_MAX + STEP_VOTES);
    return rc;
}

// `number`-th of the rank's micro-batches: where it starts among the rank's sequences.
static int64_t first_of(const struct step *s, int64_t shard) {
    return (shard - s->lo) * s->micro;
}

static void fill_numbers(struct step *s, const struct batch *b) {
    struct step_numbers *n = &s->host;
    size_t frames = (size_t)(b->count * s->frames);
    *n->update = optim_numbers(s->config, s->out->rate, s->number + 1);
    for (int i = 0; i < s->set->n; i++) {
        n->frames[i] = (double)s->counts[i];
        n->scale[i] = s->counts[i] > 0 ? (float)(n->weight[i] / n->frames[i]) : 0;
        memcpy(n->valid + (size_t)i * frames, b->valid[i], frames);
    }
}

static size_t loss_bytes(const struct step *s) {
    return (size_t)((s->hi - s->lo) * s->set->n) * sizeof(double);
}

// This rank's losses in `told`.
static double *own_losses(const struct step *s) {
    return s->told + s->told_at[s->rank->number + 1] / 2 - (s->hi - s->lo) * s->set->n;
}

// Everything that the device's work reads of the host. What is queued behind it needs the host no more.
static int bring_in(struct step *s, const struct batch *b, struct err *e) {
    struct device *d = s->rank->device;
    int rc = d->vtable->zero(d, own_losses(s), loss_bytes(s), e);
    if (rc || d->host_memory) return rc;
    rc = d->vtable->copy_in(d, s->device_block, s->host_block, s->block_bytes, e);
    for (int i = 0; !rc && i < s->set->n; i++) {
        int64_t elems = b->count * s->frames * s->set->spec[i].frame_elems;
        rc = d->vtable->copy_in(d, s->x[i], b->x[i], (size_t)elems * sizeof(float), e);
    }
    return rc;
}

// ---- noise

// The frames of sense i of a shard where the device reads them: the batch itself, or its copy there.
static float *frames_of(const struct step *s, const struct batch *b, int64_t shard, int i) {
    int64_t width = s->frames * s->set->spec[i].frame_elems;
    return (s->x[i] ? s->x[i] : b->x[i]) + first_of(s, shard) * width;
}

// What is not there carries nothing, no noise either: the frame's action reaches every token of it.
static int add_noise(struct step *s, const struct batch *b, int64_t shard, int i, struct err *e) {
    struct device *d = s->rank->device;
    const struct step_numbers *n = &s->device;
    int64_t first = first_of(s, shard), frame = first * s->frames,
            width = s->frames * s->set->spec[i].frame_elems;
    struct op_noise_args a = {.x = tensor_2d(frames_of(s, b, shard, i), s->micro, width),
                              .z = tensor_2d(s->z[i], s->micro, width),
                              .tau = tensor_1d(n->tau + frame * s->set->n + i, s->micro * s->frames),
                              .tau_stride = s->set->n,
                              .frames = s->frames,
                              .key = rng_key((uint64_t)s->config->run_seed, RNG_NOISE, (uint32_t)i),
                              .sample = n->sample + first,
                              .valid = n->valid + i * b->count * s->frames + frame};
    int rc = d->ops->noise(d, &a, e);
    if (rc || s->set->spec[i].seen_width == 0) return rc;
    a.z = tensor_2d(s->history[i], s->micro, width);
    a.tau = tensor_1d(n->past + frame, s->micro * s->frames);
    a.tau_stride = 1;
    a.key = rng_key((uint64_t)s->config->run_seed, RNG_HISTORY_NOISE, (uint32_t)i);
    a.hide = n->hide + i * b->count + first;
    return d->ops->noise(d, &a, e);
}

static int noise_shard(struct step *s, const struct batch *b, int64_t shard, struct err *e) {
    int rc = 0;
    for (int i = 0; !rc && i < s->set->n; i++) rc = add_noise(s, b, shard, i, e);
    return rc;
}

// ---- one shard

static int forward_shard(struct step *s, const struct batch *b, int64_t shard, struct err *e) {
    int64_t frame = first_of(s, shard) * s->frames;
    struct model_input in = {.sequences = s->micro,
                             .frames = s->frames,
                             .tau = s->device.tau + frame * s->set->n,
                             .tau_history = s->device.tau_history + frame};
    for (int i = 0; i < s->set->n; i++) {
        in.z[i] = s->z[i];
        in.history[i] = s->history[i];
        in.valid[i] = b->valid[i] + frame;
    }
    return model_forward(s->model, &in, e);
}

static int loss_shard(struct step *s, const struct batch *b, int64_t shard, struct err *e) {
    int64_t frame = first_of(s, shard) * s->frames;
    struct model_target t = {.tau = s->device.tau + frame * s->set->n, .scale = s->device.scale};
    for (int i = 0; i < s->set->n; i++) {
        t.x[i] = frames_of(s, b, shard, i);
        t.active[i] = s->device.active + i * b->count * s->frames + frame;
    }
    return model_loss(s->model, &t, own_losses(s) + (shard - s->lo) * s->set->n, e);
}

// Work of the shard alone.
static int queue_shard(struct step *s, int64_t stretch, struct err *e) {
    int64_t shard = s->lo + stretch - STRETCH_SHARD;
    const struct model_grads grads = step_gradients(s);
    begin(s, STEP_NOISE);
    int rc = noise_shard(s, s->batch, shard, e);
    end(s, STEP_NOISE);
    enter(s, PHASE_FORWARD);
    begin(s, STEP_FORWARD);
    if (!rc) rc = forward_shard(s, s->batch, shard, e);
    if (!rc) rc = loss_shard(s, s->batch, shard, e);
    end(s, STEP_FORWARD);
    enter(s, PHASE_BACKWARD);
    begin(s, STEP_BACKWARD);
    if (!rc) rc = model_backward(s->model, &grads, e);
    end(s, STEP_BACKWARD);
    return rc;
}

// The exact tree takes the same buffer for the same leaf in each step, so a recorded shard finds its own.
static int run_shard(struct step *s, int64_t shard, struct err *e) {
    int rc = grads_shard(s->grads, shard, e);
    bool recorded = step_graph_holds_shard(s);
    int64_t stretch = STRETCH_SHARD + shard - s->lo;
    if (recorded) {
        enter(s, PHASE_FORWARD);
        enter(s, PHASE_BACKWARD);
    }
    if (!rc) rc = recorded ? step_graph_run(s, stretch, queue_shard, e) : queue_shard(s, stretch, e);
    if (!rc) rc = grads_shard_done(s->grads, e);
    step_lap(s, STEP_BACKWARD);
    return rc;
}

// ---- over all ranks

static int poison(struct step *s, struct err *e) {
    const double bad = NAN;
    if (!s->poisoned) return 0;
    s->poisoned = false;
    return s->rank->device->vtable->copy_in(s->rank->device, own_losses(s), &bad, sizeof bad, e);
}

static int queue_squares(struct step *s, int64_t stretch, struct err *e) {
    double *squares = s->told + s->told_at[s->rank->number] / 2;
    int lo, hi;
    optim_owned(s->optim, &lo, &hi);
    return optim_squares(s->optim, s->own, squares, (int64_t *)(void *)(squares + hi - lo), e);
}

// What ranks know of their gradients and losses goes to all.
static int tell(struct step *s, struct err *e) {
    struct coll_op *op = NULL;
    int rc = step_graph_run(s, STRETCH_SQUARES, queue_squares, e);
    if (!rc) rc = poison(s, e);
    if (!rc)
        rc = coll_all_gather(s->rank->coll, &op, "losses and norms", (float *)(void *)s->told, s->told_at, e);
    return rc ? rc : coll_join(s->rank->coll, op, e);
}

// The step is judged where the update reads the verdict: no rank waits to be told.
static int judge(struct step *s, struct err *e) {
    struct op_judge_args a = {.told = s->told,
                              .at = s->judge_at,
                              .squares = s->n_clipped,
                              .counts = model_params(s->model)->n,
                              .senses = s->set->n,
                              .shards = (int32_t)s->config->comm_shards,
                              .frames = s->device.frames,
                              .weight = s->device.weight,
                              .clip = s->config->optim_clip,
                              .spike = s->config->train_spike,
                              .update = s->device.update,
                              .verdict = s->verdict};
    return s->rank->device->ops->judge(s->rank->device, &a, e);
}

static int queue_update(struct step *s, int64_t stretch, struct err *e) {
    int rc = judge(s, e);
    return rc ? rc
              : optim_update(s->optim, model_weights(s->model), model_low(s->model), s->own, s->device.update,
                             e);
}

// Shards in order, so that the sum does not depend on who had them.
static void sum_losses(const struct step *s, struct step_report *out) {
    for (int i = 0; i < s->set->n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < s->config->comm_shards; k++) sum += s->losses[k * s->set->n + i];
        out->loss_of[i] = s->counts[i] > 0 ? sum / (double)s->counts[i] : 0;
        out->loss += s->set->spec[i].loss_weight * out->loss_of[i];
    }
}

double step_share(const struct step *s, int64_t shard, int i) {
    return s->counts[i] > 0 ? s->losses[shard * s->set->n + i] / (double)s->counts[i] : 0;
}

// The samples of the shards whose losses are not finite; all of the batch when all are.
static void find_suspects(const struct step *s, int64_t number, struct step_report *out) {
    int64_t first = -1, last = -1, micro = s->micro;
    for (int64_t k = 0; k < s->config->comm_shards; k++) {
        bool sound = true;
        for (int i = 0; i < s->set->n; i++) sound = sound && isfinite(s->losses[k * s->set->n + i]);
        if (sound) continue;
        if (first < 0) first = k;
        last = k;
    }
    if (first < 0) {
        first = 0;
        last = s->config->comm_shards - 1;
    }
    out->suspect_first = number * s->config->train_batch + first * micro;
    out->suspects = (last - first + 1) * micro;
}

// Losses and verdict, when all is queued: the one thing that the host waits for. All ranks hear the same.
static int hear(struct step *s, struct op_verdict *verdict, struct err *e) {
    struct device *d = s->rank->device;
    int rc = coll_settle(s->rank->coll, e);
    if (!rc) rc = d->vtable->copy_out(d, s->host_told, s->told, s->told_bytes, e);
    if (rc) return rc;
    for (int r = 0; r < s->rank->world; r++) {
        int64_t lo, hi;
        grid_split(s->config->comm_shards, s->rank->world, r, &lo, &hi);
        int64_t n = (hi - lo) * s->set->n;
        memcpy(s->losses + lo * s->set->n, s->host_told + s->told_at[r + 1] / 2 - n,
               (size_t)n * sizeof(double));
    }
    memcpy(verdict, (char *)s->host_told + s->told_bytes - sizeof *verdict, sizeof *verdict);
    sum_losses(s, s->out);
    s->out->grad_norm = verdict->norm;
    s->out->skipped = verdict->skip != 0;
    return 0;
}

// A step that was skipped stops the training, or is reported; people count from 1, as metrics.jsonl does.
static int report(const struct step *s, int64_t nonfinite, struct err *e) {
    struct step_report *out = s->out;
    if (!out->skipped) return 0;
    find_suspects(s, s->number, out);
    if (s->config->train_on_nan != CONFIG_train_on_nan_stop) return 0;
    bool sound = nonfinite == 0 && isfinite(out->loss) && isfinite(out->grad_norm);
    const char *what = sound                 ? "the gradient's norm is above train.spike"
                       : isfinite(out->loss) ? "the gradient is not finite"
                                             : "the loss is not finite";
    return err_set(
        e, ERR_DATA,
        "step %lld: %s (loss %g, norm %g, %lld bad numbers in the gradients), from samples %lld to "
        "%lld; what was saved before is kept; look at the data, lower optim.lr, or set "
        "train.on_nan=skip or rollback",
        (long long)s->number + 1, what, out->loss, out->grad_norm, (long long)nonfinite,
        (long long)out->suspect_first, (long long)(out->suspect_first + out->suspects - 1));
}

// Forward, backward, sums, verdict and update of one step, queued one behind another.
static int queue_step(struct step *s, int64_t stretch, struct err *e) {
    begin(s, STEP_GATHER);
    int rc = step_gather_early(s, e);
    end(s, STEP_GATHER);
    if (!rc) rc = grads_begin(s->grads, e);
    for (int64_t shard = s->lo; !rc && shard < s->hi; shard++) rc = run_shard(s, shard, e);
    enter(s, PHASE_COLLECTIVE);
    begin(s, STEP_REDUCE);
    if (!rc) rc = grads_finish(s->grads, &s->own, e);
    if (!rc) rc = tell(s, e);
    end(s, STEP_REDUCE);
    enter(s, PHASE_OPTIMISER);
    begin(s, STEP_UPDATE);
    if (!rc) rc = step_graph_run(s, STRETCH_UPDATE, queue_update, e);
    end(s, STEP_UPDATE);
    return rc;
}

// A step like an earlier one, as one piece: its phases pass before it is launched.
static int launch_step(struct step *s, struct err *e) {
    enter(s, PHASE_FORWARD);
    enter(s, PHASE_BACKWARD);
    enter(s, PHASE_COLLECTIVE);
    int rc = poison(s, e);
    device_push(s->rank->device, "recorded step", -1);
    if (!rc) rc = step_graph_run(s, STRETCH_WHOLE, queue_step, e);
    device_pop(s->rank->device);
    if (!rc) rc = coll_launched(s->rank->coll, "recorded step", e);
    enter(s, PHASE_OPTIMISER);
    return rc;
}

int step_run(struct step *s, const struct batch *batch, int64_t number, int64_t *votes,
             struct step_report *out, struct err *e) {
    struct op_verdict verdict = {0};
    s->lap_at = clock_seconds();
    s->batch = batch;
    s->number = number;
    s->out = out;
    s->poisoned = false;
    out->rate = schedule_rate(s->config, number);
    int rc = agree(s, batch, votes, e);
    if (!rc) {
        fill_numbers(s, batch);
        rc = bring_in(s, batch, e);
    }
    if (!rc) rc = s->graphs.whole && s->graphs.now ? launch_step(s, e) : queue_step(s, 0, e);
    if (!rc) rc = step_gather_late(s, e);
    if (!rc) rc = hear(s, &verdict, e);
    step_lap(s, STEP_GATHER);
    if (!rc) rc = report(s, verdict.nonfinite, e);
    step_comm_end(s);
    s->out = NULL;
    return rc;
}
