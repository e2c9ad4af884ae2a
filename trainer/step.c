// SPDX-License-Identifier: Apache-2.0
#include "trainer/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/ops.h"
#include "trainer/regime.h"
#include "trainer/schedule.h"
#include "trainer/step_impl.h"

static const char *const part_names[STEP_PARTS] = {"data",   "noise",  "forward", "backward",
                                                   "reduce", "update", "gather"};

const char *step_part_name(enum step_part part) {
    return part_names[part];
}

int step_check(const struct config *c, int world, struct err *e) {
    if (c->train_batch % c->comm_shards)
        return err_set(e, ERR_CONFIG, "train.batch %lld is no multiple of comm.shards %lld; make it one",
                       (long long)c->train_batch, (long long)c->comm_shards);
    if (c->comm_shards < world)
        return err_set(
            e, ERR_CONFIG,
            "comm.shards %lld is less than the %d ranks, and each needs at least one: start fewer ranks, "
            "or raise comm.shards (for a new run: it changes the numbers)",
            (long long)c->comm_shards, world);
    return 0;
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
    int rc = step_check(c, r->world, e);
    if (rc) return rc;
    struct step *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "no memory for a step");
    *s =
        (struct step){.rank = r, .config = c, .model = m, .optim = o, .fault = f, .set = model_modalities(m)};
    s->micro = c->train_batch / c->comm_shards;
    s->frames = c->data_frames;
    grid_split(c->comm_shards, r->world, r->number, &s->lo, &s->hi);
    rc = step_memory_take(s, e);
    if (rc)
        step_close(s);
    else
        *out = s;
    return rc;
}

void step_close(struct step *s) {
    if (!s) return;
    step_memory_release(s);
    free(s);
}

static void enter(struct step *s, int64_t number, enum blackbox_phase phase) {
    blackbox_set_phase(s->rank->box, phase, NULL);
    enum fault_action action = s->fault ? fault_at(s->fault, number, phase) : FAULT_NONE;
    if (action == FAULT_NAN) s->losses[s->lo * s->set->n] = NAN;
    rank_slip(s->rank, action);
}

// ---- noise

static void draw_sequence(struct step *s, const struct batch *b, int64_t i) {
    struct step_levels *l = &s->levels;
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
// along.
static int agree(struct step *s, const struct batch *b, int64_t *votes, struct err *e) {
    int64_t sums[OPS_MODALITIES_MAX + STEP_VOTES];
    memset(s->counts, 0, sizeof s->counts);
    for (int64_t i = 0; i < b->count; i++) draw_sequence(s, b, i);
    memcpy(sums, s->counts, sizeof s->counts);
    memcpy(sums + OPS_MODALITIES_MAX, votes, STEP_VOTES * sizeof *votes);
    int rc = coll_sum_i64(s->rank->coll, "agree", sums, OPS_MODALITIES_MAX + STEP_VOTES, e);
    memcpy(s->counts, sums, sizeof s->counts);
    memcpy(votes, sums + OPS_MODALITIES_MAX, STEP_VOTES * sizeof *votes);
    return rc;
}

// `number`-th of the rank's micro-batches: where it starts among the rank's sequences.
static int64_t first_of(const struct step *s, int64_t shard) {
    return (shard - s->lo) * s->micro;
}

static int copy_levels(struct step *s, int64_t shard, struct err *e) {
    struct device *d = s->rank->device;
    const struct step_levels *l = &s->levels;
    int64_t from = first_of(s, shard) * s->frames, frames = s->micro * s->frames;
    size_t bytes = (size_t)frames * sizeof(float);
    int rc = d->vtable->copy_in(d, s->tau, l->tau + from * s->set->n, bytes * (size_t)s->set->n, e);
    if (!rc) rc = d->vtable->copy_in(d, s->past, l->past + from, bytes, e);
    if (!rc) rc = d->vtable->copy_in(d, s->tau_history, l->tau_history + from, bytes, e);
    return rc;
}

// What is not there carries nothing, no noise either: the frame's action reaches every token of it.
static int clear_missing(struct step *s, const struct batch *b, int64_t shard, int i, float *to,
                         struct err *e) {
    struct device *d = s->rank->device;
    const unsigned char *valid = b->valid[i] + first_of(s, shard) * s->frames;
    int64_t width = s->set->spec[i].frame_elems;
    int rc = 0;
    for (int64_t f = 0; !rc && f < s->micro * s->frames; f++)
        if (!valid[f]) rc = d->vtable->zero(d, to + f * width, (size_t)width * sizeof *to, e);
    return rc;
}

// The frames of sense i of a shard where the device reads them: the batch itself, or its copy there.
static float *frames_of(const struct step *s, const struct batch *b, int64_t shard, int i) {
    int64_t width = s->frames * s->set->spec[i].frame_elems;
    return s->x[i] ? s->x[i] : b->x[i] + first_of(s, shard) * width;
}

static int copy_frames(struct step *s, const struct batch *b, int64_t shard, int i, struct err *e) {
    struct device *d = s->rank->device;
    int64_t width = s->frames * s->set->spec[i].frame_elems;
    if (!s->x[i]) return 0;
    return d->vtable->copy_in(d, s->x[i], b->x[i] + first_of(s, shard) * width,
                              (size_t)(s->micro * width) * sizeof(float), e);
}

static int add_noise(struct step *s, const struct batch *b, int64_t shard, int i, struct err *e) {
    struct device *d = s->rank->device;
    int64_t first = first_of(s, shard), width = s->frames * s->set->spec[i].frame_elems;
    struct op_noise_args a = {.x = tensor_2d(frames_of(s, b, shard, i), s->micro, width),
                              .z = tensor_2d(s->z[i], s->micro, width),
                              .tau = tensor_1d(s->tau + i, s->micro * s->frames),
                              .tau_stride = s->set->n,
                              .frames = s->frames,
                              .key = rng_key((uint64_t)s->config->run_seed, RNG_NOISE, (uint32_t)i),
                              .sample = s->levels.sample + first};
    int rc = d->ops->noise(d, &a, e);
    if (!rc) rc = clear_missing(s, b, shard, i, s->z[i], e);
    if (rc || s->set->spec[i].seen_width == 0) return rc;
    a.z = tensor_2d(s->history[i], s->micro, width);
    a.tau = tensor_1d(s->past, s->micro * s->frames);
    a.tau_stride = 1;
    a.key = rng_key((uint64_t)s->config->run_seed, RNG_HISTORY_NOISE, (uint32_t)i);
    a.hide = s->levels.hide + i * b->count + first;
    rc = d->ops->noise(d, &a, e);
    return rc ? rc : clear_missing(s, b, shard, i, s->history[i], e);
}

static int noise_shard(struct step *s, const struct batch *b, int64_t shard, struct err *e) {
    int rc = copy_levels(s, shard, e);
    for (int i = 0; !rc && i < s->set->n; i++) {
        rc = copy_frames(s, b, shard, i, e);
        if (!rc) rc = add_noise(s, b, shard, i, e);
    }
    return rc;
}

// ---- one shard

static int forward_shard(struct step *s, const struct batch *b, int64_t shard, struct err *e) {
    struct model_input in = {
        .sequences = s->micro, .frames = s->frames, .tau = s->tau, .tau_history = s->tau_history};
    for (int i = 0; i < s->set->n; i++) {
        in.z[i] = s->z[i];
        in.history[i] = s->history[i];
        in.valid[i] = b->valid[i] + first_of(s, shard) * s->frames;
    }
    return model_forward(s->model, &in, e);
}

static int loss_shard(struct step *s, const struct batch *b, int64_t shard, struct err *e) {
    struct model_target t = {.tau = s->tau};
    int64_t first = first_of(s, shard);
    for (int i = 0; i < s->set->n; i++) {
        const struct modality_spec *spec = &s->set->spec[i];
        t.x[i] = frames_of(s, b, shard, i);
        t.active[i] = s->levels.active + (i * b->count + first) * s->frames;
        t.scale[i] = s->counts[i] > 0 ? spec->loss_weight / (double)s->counts[i] : 0;
    }
    return model_loss(s->model, &t, s->shard_losses + (shard - s->lo) * s->set->n, e);
}

static int backward_shard(struct step *s, int64_t shard, struct err *e) {
    s->comm.shard = shard;
    if (!s->exact) return model_backward(s->model, s->grads, e);
    float *leaf = NULL;
    int rc = exact_leaf(s->exact, shard, &leaf, e);
    if (!rc) rc = model_backward(s->model, leaf, e);
    return rc ? rc : exact_leaf_done(s->exact, shard, e);
}

static int run_shard(struct step *s, const struct batch *b, int64_t shard, int64_t number,
                     struct step_report *out, struct err *e) {
    int rc = noise_shard(s, b, shard, e);
    step_lap(s, out, STEP_NOISE);
    enter(s, number, PHASE_FORWARD);
    if (!rc) rc = forward_shard(s, b, shard, e);
    if (!rc) rc = loss_shard(s, b, shard, e);
    step_lap(s, out, STEP_FORWARD);
    enter(s, number, PHASE_BACKWARD);
    if (!rc) rc = backward_shard(s, shard, e);
    step_lap(s, out, STEP_BACKWARD);
    return rc;
}

// ---- over all ranks

static size_t loss_bytes(const struct step *s) {
    return (size_t)((s->hi - s->lo) * s->set->n) * sizeof(double);
}

static int clear_sums(struct step *s, struct err *e) {
    struct device *d = s->rank->device;
    memset(s->squares, 0, (size_t)s->n_told * sizeof *s->squares);
    int rc = d->vtable->zero(d, s->shard_losses, loss_bytes(s), e);
    if (rc || s->exact) return rc;
    return d->vtable->zero(d, s->grads, (size_t)model_params(s->model)->elems * sizeof(float), e);
}

// Own shards' losses from the device; one that the fault injection made a NaN stays one.
static int fetch_losses(struct step *s, struct err *e) {
    struct device *d = s->rank->device;
    double *own = s->losses + s->lo * s->set->n;
    bool injected = isnan(own[0]);
    int rc = d->vtable->copy_out(d, own, s->shard_losses, loss_bytes(s), e);
    if (injected) own[0] = NAN;
    return rc;
}

static int tell(struct step *s, const float *own, int64_t *nonfinite, struct err *e) {
    int64_t bad = 0;
    int rc = optim_squares(s->optim, own, s->squares, &bad, e);
    if (!rc) rc = fetch_losses(s, e);
    if (rc) return rc;
    int last = s->n_told - 1;
    memcpy(s->told, s->squares, (size_t)last * sizeof *s->told);
    s->told[last] = bad;
    rc = coll_sum_i64(s->rank->coll, "losses and norms", s->told, s->n_told, e);
    memcpy(s->squares, s->told, (size_t)last * sizeof *s->told);
    *nonfinite = s->told[last];
    return rc;
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

// Sums over all ranks are judged, so all ranks come to the same end.
static int judge(const struct step *s, int64_t number, int64_t nonfinite, struct step_report *out,
                 struct err *e) {
    bool sound = nonfinite == 0 && isfinite(out->loss) && isfinite(out->grad_norm);
    bool spike = sound && s->config->train_spike > 0 && out->grad_norm > s->config->train_spike;
    out->skipped = !sound || spike;
    if (!out->skipped) return 0;
    find_suspects(s, number, out);
    if (s->config->train_on_nan != ON_NAN_STOP) return 0;
    const char *what = spike                 ? "the gradient's norm is above train.spike"
                       : isfinite(out->loss) ? "the gradient is not finite"
                                             : "the loss is not finite";
    return err_set(
        e, ERR_DATA,
        "step %lld: %s (loss %g, norm %g, %lld bad numbers in the gradients), from samples %lld to "
        "%lld; what was saved before is kept; look at the data, lower optim.lr, or set "
        "train.on_nan=skip or rollback",
        (long long)number, what, out->loss, out->grad_norm, (long long)nonfinite,
        (long long)out->suspect_first, (long long)(out->suspect_first + out->suspects - 1));
}

static int update(struct step *s, const float *own, int64_t number, struct step_report *out, struct err *e) {
    out->rate = schedule_rate(s->config, number);
    if (out->skipped) return 0;
    return optim_update(s->optim, model_weights(s->model), own, out->rate, out->grad_norm, number + 1, e);
}

int step_run(struct step *s, const struct batch *batch, int64_t number, int64_t *votes,
             struct step_report *out, struct err *e) {
    s->lap_at = clock_seconds();
    step_comm_begin(s, out);
    float *own = NULL;
    int64_t nonfinite = 0;
    int rc = clear_sums(s, e);
    if (!rc) rc = agree(s, batch, votes, e);
    for (int64_t shard = s->lo; !rc && shard < s->hi; shard++)
        rc = run_shard(s, batch, shard, number, out, e);
    enter(s, number, PHASE_COLLECTIVE);
    if (!rc) rc = s->rank->device->vtable->sync(s->rank->device, e);
    step_lap(s, out, STEP_BACKWARD);
    if (!rc) rc = step_reduce(s, &own, e);
    if (!rc) rc = tell(s, own, &nonfinite, e);
    step_lap(s, out, STEP_REDUCE);
    if (rc) goto out;
    sum_losses(s, out);
    out->grad_norm = optim_norm(s->optim, s->squares);
    enter(s, number, PHASE_OPTIMISER);
    rc = judge(s, number, nonfinite, out, e);
    if (!rc) rc = update(s, own, number, out, e);
    step_lap(s, out, STEP_UPDATE);
    if (!rc) rc = step_gather(s, e);
    step_lap(s, out, STEP_GATHER);
out:
    step_comm_end(s);
    return rc;
}
