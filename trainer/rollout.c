// SPDX-License-Identifier: Apache-2.0
#include "trainer/rollout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"

#define TAU_GAP 0.05 // the velocity's denominator never gets smaller

enum part { PART_HELD, PART_MADE, PART_UNKNOWN };

// A mode is one or two phases; each says what happens to actions and to observations.
struct phase {
    enum part action, observation;
};

struct mode_row {
    const char *name;
    bool whole; // all frames at once instead of frame by frame
    int n_phases;
    struct phase phases[2];
};

static const struct mode_row mode_rows[ROLLOUT_MODES] = {
    [ROLLOUT_SIMULATE] = {"simulate", false, 1, {{PART_HELD, PART_MADE}}},
    [ROLLOUT_GENERATE] = {"generate", false, 1, {{PART_UNKNOWN, PART_MADE}}},
    [ROLLOUT_POLICY] = {"policy", false, 2, {{PART_MADE, PART_UNKNOWN}, {PART_HELD, PART_MADE}}},
    [ROLLOUT_INVERSE] = {"inverse", true, 1, {{PART_MADE, PART_HELD}}},
    [ROLLOUT_PERCEIVE] = {"perceive", true, 1, {{PART_HELD, PART_HELD}}},
};

const char *rollout_mode_name(enum rollout_mode mode) {
    return (unsigned)mode < ROLLOUT_MODES ? mode_rows[mode].name : "unknown";
}

// Buffers for one call of the predictor, and what is asked of each modality in it.
struct work {
    const struct predictor *p;
    const struct modality_set *set;
    const struct rollout_request *q;
    float *z[OPS_MODALITIES_MAX], *history[OPS_MODALITIES_MAX], *pred[OPS_MODALITIES_MAX];
    float *tau, *tau_history;
    unsigned char *valid[OPS_MODALITIES_MAX];
    int64_t given[OPS_MODALITIES_MAX]; // so many frames of the sequence are the data's, the rest is made
    int64_t first, frames;             // what is shown: frames [first, first + frames) of the sequence
    int64_t window_first;              // of the window that they belong to
    int64_t decoded;                   // frames of that window that the predictor remembers
    bool decoding;
    enum part part[OPS_MODALITIES_MAX];
    int64_t
        from[OPS_MODALITIES_MAX]; // the part holds for frames >= from of the sequence; before it all is clean
    bool hide[OPS_MODALITIES_MAX];
};

static void work_fini(struct work *w) {
    for (int m = 0; m < OPS_MODALITIES_MAX; m++) {
        free(w->z[m]);
        free(w->history[m]);
        free(w->pred[m]);
        free(w->valid[m]);
    }
    free(w->tau);
    free(w->tau_history);
}

static float *take(size_t a, size_t b, size_t c) {
    size_t ab, abc;
    if (!bytes_mul(a, b, &ab) || !bytes_mul(ab, c, &abc)) return NULL;
    return calloc(abc ? abc : 1, sizeof(float));
}

static int work_init(struct work *w, int64_t frames, struct err *e) {
    size_t n = (size_t)w->q->sequences, f = (size_t)frames;
    bool ok = true;
    for (int m = 0; m < w->set->n; m++) {
        size_t elems = (size_t)w->set->spec[m].frame_elems;
        w->z[m] = take(n, f, elems);
        w->history[m] = take(n, f, elems);
        w->pred[m] = take(n, f, elems);
        w->valid[m] = calloc(n, f);
        ok = ok && w->z[m] && w->history[m] && w->pred[m] && w->valid[m];
    }
    w->tau = take(n, f, (size_t)w->set->n);
    w->tau_history = take(n, f, 1);
    if (!ok || !w->tau || !w->tau_history)
        return err_set(e, ERR_MEMORY, "no memory for a rollout of %zu frames", f);
    return 0;
}

// Four normals from one block, as the noising kernel draws them.
static void normals(const uint32_t bits[4], float out[4]) {
    for (int i = 0; i < 4; i += 2) {
        float radius = sqrtf(-2.0f * logf(rng_unit(bits[i])));
        float angle = 6.28318530717958648f * rng_unit(bits[i + 1]);
        out[i] = radius * cosf(angle);
        out[i + 1] = radius * sinf(angle);
    }
}

static void fill_noise(struct rng_key key, int64_t frame, uint64_t sample, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t bits[4];
        float four[4];
        rng_block(key, (uint32_t)frame, sample, (uint32_t)(i / 4), bits);
        normals(bits, four);
        memcpy(out + i, four, sizeof(float) * (size_t)(n - i < 4 ? n - i : 4));
    }
}

static bool is_there(const struct work *w, int m, int64_t b, int64_t f) {
    const unsigned char *valid = w->q->valid[m];
    return f >= w->given[m] || !valid || valid[b * w->q->frames + f];
}

// Copies the window out of x; what is to be made starts as noise, what is unknown or not there as zero.
static void load_window(struct work *w, int m) {
    const struct rollout_request *q = w->q;
    int64_t elems = w->set->spec[m].frame_elems;
    size_t bytes = sizeof(float) * (size_t)elems;
    struct rng_key key = rng_key(q->seed, RNG_ROLLOUT, (uint32_t)m);
    for (int64_t b = 0; b < q->sequences; b++) {
        for (int64_t i = 0; i < w->frames; i++) {
            int64_t f = w->first + i;
            const float *x = q->x[m] + (b * q->frames + f) * elems;
            float *z = w->z[m] + (b * w->frames + i) * elems,
                  *h = w->history[m] + (b * w->frames + i) * elems;
            bool open = w->part[m] != PART_HELD && f >= w->from[m], there = is_there(w, m, b, f);
            w->valid[m][b * w->frames + i] = there;
            if (!there || w->hide[m] || (open && w->part[m] == PART_UNKNOWN))
                memset(h, 0, bytes);
            else
                memcpy(h, x, bytes);
            if (!there || (open && w->part[m] == PART_UNKNOWN))
                memset(z, 0, bytes);
            else if (!open)
                memcpy(z, x, bytes);
            else
                fill_noise(key, f, q->sample[b], z, elems);
        }
    }
}

static void set_tau(struct work *w, float made) {
    int n = w->set->n;
    for (int64_t row = 0; row < w->q->sequences * w->frames; row++) {
        int64_t f = w->first + row % w->frames;
        for (int m = 0; m < n; m++) {
            bool open = w->part[m] != PART_HELD && f >= w->from[m];
            w->tau[row * n + m] = !open ? 1.0f : w->part[m] == PART_MADE ? made : 0.0f;
        }
        w->tau_history[row] = 1.0f;
    }
}

// One Euler step of what is made: z += share (pred - z); the last step of a short schedule takes pred itself.
static void step_towards(struct work *w, int m, float share) {
    int64_t elems = w->set->spec[m].frame_elems;
    for (int64_t row = 0; row < w->q->sequences * w->frames; row++) {
        if (w->first + row % w->frames < w->from[m]) continue;
        float *z = w->z[m] + row * elems;
        const float *pred = w->pred[m] + (w->decoding ? row / w->frames : row) * elems;
        if (share > 0.999999f)
            memcpy(z, pred, sizeof(float) * (size_t)elems);
        else
            for (int64_t i = 0; i < elems; i++) z[i] += share * (pred[i] - z[i]);
    }
}

// Pixels outside the range of pictures are errors that a rollout would feed back to itself. NaN stays NaN.
static void keep_in_range(const struct modality_spec *spec, float *z) {
    if (strcmp(spec->modality->name, "video") != 0) return;
    for (int64_t i = 0; i < spec->frame_elems; i++) {
        if (z[i] < 0.0f) z[i] = 0.0f;
        if (z[i] > 2.0f) z[i] = 2.0f;
    }
}

static void store_made(struct work *w, int m) {
    const struct rollout_request *q = w->q;
    int64_t elems = w->set->spec[m].frame_elems;
    for (int64_t b = 0; b < q->sequences; b++) {
        for (int64_t i = 0; i < w->frames; i++) {
            int64_t f = w->first + i;
            if (f < w->from[m]) continue;
            float *z = w->z[m] + (b * w->frames + i) * elems;
            keep_in_range(&w->set->spec[m], z);
            memcpy(q->x[m] + (b * q->frames + f) * elems, z, sizeof(float) * (size_t)elems);
        }
    }
}

static int ask(struct work *w, float *const *wanted, struct err *e) {
    struct model_input in = {
        .sequences = w->q->sequences, .frames = w->frames, .tau = w->tau, .tau_history = w->tau_history};
    for (int m = 0; m < w->set->n; m++) {
        in.z[m] = w->z[m];
        in.history[m] = w->history[m];
        in.valid[m] = w->valid[m];
    }
    if (!w->decoding) return w->p->predict(w->p->model, &in, wanted, e);
    int64_t at = w->first + w->frames - 1 - w->window_first;
    return w->p->decode(w->p->model, w->q->window, at, &in, wanted, e);
}

static int denoise(struct work *w, struct err *e) {
    const struct rollout_request *q = w->q;
    float *wanted[OPS_MODALITIES_MAX] = {NULL};
    for (int m = 0; m < w->set->n; m++) {
        load_window(w, m);
        if (w->part[m] == PART_MADE) wanted[m] = w->pred[m];
    }
    for (int k = 0; k < q->steps; k++) {
        double now = (double)k / q->steps;
        double gap = 1.0 - now > TAU_GAP ? 1.0 - now : TAU_GAP;
        set_tau(w, (float)now);
        int rc = ask(w, wanted, e);
        if (rc) return rc;
        for (int m = 0; m < w->set->n; m++)
            if (w->part[m] == PART_MADE) step_towards(w, m, (float)(1.0 / q->steps / gap));
    }
    for (int m = 0; m < w->set->n; m++)
        if (w->part[m] == PART_MADE) store_made(w, m);
    return 0;
}

// Shows the frames of the window up to f: all of them, or when decoding those that f's history reaches.
static void show_upto(struct work *w, int64_t f) {
    int64_t at = f - w->window_first;
    int64_t before = w->decoding && w->p->history < at ? w->p->history : at;
    w->first = f - before;
    w->frames = before + 1;
}

static void enter_phase(struct work *w, const struct phase *phase, int64_t f) {
    for (int m = 0; m < w->set->n; m++) {
        bool action = m == w->set->action;
        w->part[m] = action ? phase->action : phase->observation;
        // Actions that nobody knows stay unknown; observations are known once they are made.
        w->from[m] = action && w->part[m] == PART_UNKNOWN ? w->q->context : f;
    }
}

// Lets the predictor see the frames before f as they came out.
static int remember_before(struct work *w, const struct phase *last_phase, int64_t f, struct err *e) {
    float *nothing[OPS_MODALITIES_MAX] = {NULL};
    int rc = 0;
    for (int64_t g = w->window_first + w->decoded; !rc && g < f; g++) {
        enter_phase(w, last_phase, g + 1);
        show_upto(w, g);
        for (int m = 0; m < w->set->n; m++) load_window(w, m);
        set_tau(w, 1);
        rc = ask(w, nothing, e);
    }
    w->decoded = f - w->window_first;
    return rc;
}

static int run_frame(struct work *w, int64_t f, struct err *e) {
    const struct rollout_request *q = w->q;
    const struct mode_row *mode = &mode_rows[q->mode];
    int64_t window_first = f + 1 > q->window ? f + 1 - q->window : 0;
    if (window_first != w->window_first) w->decoded = 0;
    w->window_first = window_first;
    w->decoding = w->p->decode != NULL;
    int rc = w->decoding ? remember_before(w, &mode->phases[mode->n_phases - 1], f, e) : 0;
    show_upto(w, f);
    for (int k = 0; !rc && k < mode->n_phases; k++) {
        enter_phase(w, &mode->phases[k], f);
        rc = denoise(w, e);
    }
    return rc;
}

static int run_whole(struct work *w, struct err *e) {
    const struct rollout_request *q = w->q;
    const struct phase *phase = &mode_rows[q->mode].phases[0];
    w->first = 0;
    w->frames = q->frames;
    for (int m = 0; m < w->set->n; m++) {
        w->part[m] = m == w->set->action ? phase->action : phase->observation;
        if (q->mode == ROLLOUT_PERCEIVE && (q->asked >> m & 1)) {
            w->part[m] = PART_MADE;
            w->hide[m] = true;
        }
        w->from[m] = 0;
    }
    return denoise(w, e);
}

static int check(const struct modality_set *set, const struct rollout_request *q, struct err *e) {
    if ((unsigned)q->mode >= ROLLOUT_MODES || q->sequences < 1 || q->frames < 1 || q->window < 1 ||
        q->steps < 1)
        return err_set(e, ERR_BUG, "rollout: request out of range");
    if (mode_rows[q->mode].whole && q->frames > q->window)
        return err_set(e, ERR_BUG, "rollout: %s of %lld frames, the model sees %lld",
                       rollout_mode_name(q->mode), (long long)q->frames, (long long)q->window);
    if (!mode_rows[q->mode].whole && (q->context < 0 || q->context > q->frames))
        return err_set(e, ERR_BUG, "rollout: context out of range");
    if ((q->mode == ROLLOUT_POLICY || q->mode == ROLLOUT_INVERSE) && set->action < 0)
        return err_set(e, ERR_CONFIG, "rollout: mode %s needs the action modality",
                       rollout_mode_name(q->mode));
    return 0;
}

static bool is_made(const struct rollout_request *q, const struct modality_set *set, int m) {
    const struct mode_row *mode = &mode_rows[q->mode];
    bool made = q->mode == ROLLOUT_PERCEIVE && (q->asked >> m & 1);
    for (int k = 0; k < mode->n_phases; k++)
        made = made || (m == set->action ? mode->phases[k].action : mode->phases[k].observation) != PART_HELD;
    return made;
}

int rollout_run(const struct predictor *p, const struct modality_set *set, const struct rollout_request *q,
                struct err *e) {
    struct work w = {.p = p, .set = set, .q = q};
    int rc = check(set, q, e);
    if (rc) return rc;
    for (int m = 0; m < set->n; m++)
        w.given[m] = !is_made(q, set, m) ? q->frames : mode_rows[q->mode].whole ? 0 : q->context;
    rc = work_init(&w, q->frames < q->window ? q->frames : q->window, e);
    if (rc) goto out;
    if (mode_rows[q->mode].whole) {
        rc = run_whole(&w, e);
        goto out;
    }
    for (int64_t f = q->context; f < q->frames && !rc; f++) rc = run_frame(&w, f, e);
out:
    work_fini(&w);
    return rc;
}
