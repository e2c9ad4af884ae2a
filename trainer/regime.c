// SPDX-License-Identifier: Apache-2.0
#include "trainer/regime.h"

#include <math.h>

#include "base/rng.h"

struct drawing {
    const struct config *c;
    const struct modality_set *set;
    int64_t frames;
    struct rng_stream choice, level; // which regime and shape; which tau
    const struct regime_draw *out;
};

static float draw_tau(struct drawing *d) {
    double v = d->c->mix_tau_mean + d->c->mix_tau_sd * rng_next_normal(&d->level);
    return (float)(1 / (1 + exp(-v)));
}

static bool chance(struct drawing *d, double p) {
    return (double)rng_next_unit(&d->choice) < p;
}

static float *at(struct drawing *d, int64_t frame, int modality) {
    return &d->out->tau[frame * d->set->n + modality];
}

static bool is_action(const struct drawing *d, int modality) {
    return modality == d->set->action;
}

static void set_observations(struct drawing *d, int64_t frame, float tau) {
    for (int i = 0; i < d->set->n; i++)
        if (!is_action(d, i)) *at(d, frame, i) = tau;
}

static void set_actions(struct drawing *d, int64_t lo, int64_t hi, bool zero) {
    if (d->set->action < 0) return;
    for (int64_t f = lo; f < hi; f++) *at(d, f, d->set->action) = zero ? 0 : draw_tau(d);
}

// The future from pure noise, or one tau per frame, or one per frame and sense; of the latter two half have
// some frames at zero. Actions of the context are asked for now and then: inverse dynamics for nothing.
static void forward_dynamics(struct drawing *d, int64_t context) {
    double u = (double)rng_next_unit(&d->choice), zero = d->c->mix_zero_share;
    bool noise = u < zero, together = u < zero + (1 - zero) / 2;
    bool holes = !noise && chance(d, 0.5);
    for (int64_t f = context; f < d->frames; f++) {
        float tau = noise ? 0 : draw_tau(d);
        for (int i = 0; i < d->set->n; i++)
            if (!is_action(d, i)) *at(d, f, i) = noise || together ? tau : draw_tau(d);
        if (holes && chance(d, 0.5)) set_observations(d, f, 0);
    }
    if (chance(d, 0.3)) set_actions(d, 0, context, true);
}

static void independent(struct drawing *d) {
    for (int64_t f = 0; f < d->frames; f++)
        for (int i = 0; i < d->set->n; i++) *at(d, f, i) = draw_tau(d);
}

static void policy(struct drawing *d, int64_t context) {
    for (int64_t f = context; f < d->frames; f++) set_observations(d, f, 0);
    set_actions(d, context, d->frames, chance(d, 0.5));
}

// Senses that a picture could explain: all but actions and video; where there are none, all but actions.
static int asked_senses(const struct drawing *d, int *list) {
    int n = 0;
    for (int i = 0; i < d->set->n; i++)
        if (!is_action(d, i) && d->set->spec[i].grid.height <= 1) list[n++] = i;
    for (int i = 0; n == 0 && i < d->set->n; i++)
        if (!is_action(d, i)) list[n++] = i;
    return n;
}

// One sense, or all of the asked ones, from the rest; their history is withheld too.
static void cross_modal(struct drawing *d) {
    int list[OPS_MODALITIES_MAX], n = asked_senses(d, list);
    if (n == 0) return;
    int pick = (int)rng_next_below(&d->choice, (uint32_t)(n > 1 ? n + 1 : 1));
    for (int k = 0; k < n; k++) {
        if (pick != k && pick != n) continue;
        d->out->hide[list[k]] = 0;
        for (int64_t f = 0; f < d->frames; f++) *at(d, f, list[k]) = 0;
    }
}

static enum regime pick_regime(struct drawing *d) {
    const struct config *c = d->c;
    const double share[] = {c->mix_forward, c->mix_independent, c->mix_inverse, c->mix_policy, c->mix_cross};
    double total = 0, u = (double)rng_next_unit(&d->choice), upto = 0;
    for (int i = 0; i < 5; i++) total += share[i];
    for (int i = 0; i < 5; i++) {
        upto += share[i];
        if (u * total < upto) return (enum regime)i;
    }
    return REGIME_FORWARD;
}

static void draw_history(struct drawing *d) {
    bool noisy = chance(d, 0.5);
    const struct regime_draw *o = d->out;
    for (int64_t f = 0; f < d->frames; f++) {
        float down = (float)d->c->mix_history_noise * rng_next_unit(&d->level);
        o->past[f] = noisy ? 1 - down : 1;
    }
    for (int64_t f = 0; f < d->frames; f++) o->tau_history[f] = f > 0 ? o->past[f - 1] : 1;
}

enum regime regime_sample(const struct config *c, const struct modality_set *set, int64_t frames,
                          uint64_t sample, const struct regime_draw *out) {
    struct drawing d = {.c = c, .set = set, .frames = frames, .out = out};
    rng_stream_init(&d.choice, rng_key((uint64_t)c->run_seed, RNG_REGIME, 0), 0, sample);
    rng_stream_init(&d.level, rng_key((uint64_t)c->run_seed, RNG_TAU, 0), 0, sample);
    for (int64_t i = 0; i < frames * set->n; i++) out->tau[i] = 1;
    for (int i = 0; i < set->n; i++) out->hide[i] = 1;
    enum regime r = pick_regime(&d);
    int64_t longest = c->mix_context_max < frames - 1 ? c->mix_context_max : frames - 1;
    int64_t context = 1 + (int64_t)rng_next_below(&d.choice, (uint32_t)(longest > 0 ? longest : 1));
    switch (r) {
    case REGIME_FORWARD: forward_dynamics(&d, context); break;
    case REGIME_INDEPENDENT: independent(&d); break;
    case REGIME_INVERSE: set_actions(&d, 0, frames, chance(&d, 0.7)); break;
    case REGIME_POLICY: policy(&d, context); break;
    case REGIME_CROSS: cross_modal(&d); break;
    }
    draw_history(&d);
    return r;
}
