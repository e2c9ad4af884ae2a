// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trial.h"

struct loss_view {
    const struct op_loss_args *a;
    double *pred, *target;
    const float *active;
    int64_t frames;
};

static double pred_at(const struct loss_view *l, int64_t frame, int64_t y, int64_t x, int64_t c) {
    const struct patch_grid *g = &l->a->grid;
    int64_t across = g->width / g->patch, n = g->height / g->patch * across,
            value = (int64_t)g->patch * g->patch * g->channels;
    int64_t token = y / g->patch * across + x / g->patch;
    return l->pred[(frame * n + token) * value + (y % g->patch * g->patch + x % g->patch) * g->channels + c];
}

static double weight(int weighting, double tau) {
    if (weighting == 0) return 1;
    if (weighting == 1) return 0.9 * tau + 0.1;
    return 1 / pow(fmax(1 - tau, 0.05), 2);
}

static double plain_loss(void *arg) {
    const struct loss_view *l = arg;
    const struct patch_grid *g = &l->a->grid;
    int64_t elems = (int64_t)g->height * g->width * g->channels;
    double total = 0;
    for (int64_t f = 0; f < l->frames; f++) {
        double sum = 0;
        if (l->active[f] == 0) continue;
        for (int64_t i = 0; i < elems; i++) {
            int64_t y = i / (g->width * g->channels), x = i / g->channels % g->width;
            double diff = pred_at(l, f, y, x, i % g->channels) - l->target[f * elems + i];
            sum += diff * diff;
        }
        total += weight(l->a->weighting, (double)tensor_f32(&l->a->tau)[f * l->a->tau_stride]) * sum /
                 (double)elems;
    }
    return total;
}

static double scaled_loss(void *arg) {
    const struct loss_view *l = arg;
    return (double)*l->a->scale * plain_loss(arg);
}

void check_loss(struct trial *t) {
    int64_t frames = trial_size(t, 30);
    int32_t patch = 1 + (int32_t)trial_below(t, 5);
    struct patch_grid g = {patch * (1 + (int32_t)trial_below(t, 3)), patch * (1 + (int32_t)trial_below(t, 3)),
                           1 + (int32_t)trial_below(t, 3), patch, 0};
    if (trial_is_wide(t)) g.channels = g.channels % 2 ? 8 : 16;
    if (t->round >= TRIAL_ROUNDS - 2) { // more than one block has
        g = t->round % 2 ? (struct patch_grid){50, 60, 3, 5, 0} : (struct patch_grid){48, 64, 4, 8, 0};
        frames = 1 + frames % 3;
    }
    patch = g.patch;
    int64_t n = (int64_t)(g.height / patch) * (g.width / patch),
            elems = (int64_t)g.height * g.width * g.channels;
    struct op_loss_args a = {.grid = g, .tau_stride = 1 + trial_below(t, 4), .weighting = t->round % 3};
    bool none = t->round == 3; // no frame counts, and its share is 1 / 0
    const float scale = none ? INFINITY : 0.3f;
    a.scale = trial_device_in(t, &scale, sizeof scale);
    a.pred = trial_rows(t, TRIAL_IN, frames * n, elems / n);
    a.target = trial_rows(t, TRIAL_IN, frames, elems);
    a.tau = trial_vector(t, TRIAL_IN, frames * a.tau_stride);
    for (int64_t i = 0; i < frames * a.tau_stride; i++) tensor_f32(&a.tau)[i] = (float)trial_unit(t);
    float *active = trial_alloc(t, (size_t)frames * sizeof *active);
    for (int64_t i = 0; i < frames; i++) active[i] = (float)(!none && trial_below(t, 3) > 0);
    a.active = trial_device_in(t, active, (size_t)frames * sizeof *active);
    trial_refilled(t);
    if (trial_below(t, 4) > 0) a.dpred = trial_low(t, TRIAL_OUT, frames * n, elems / n);
    double before = 7;
    a.loss_sum = trial_device_out(t, &before, sizeof before);
    TRIAL_RUN(t, loss, a);
    struct loss_view l = {&a, trial_double(t, a.pred), trial_double(t, a.target), active, frames};
    double want = before + plain_loss(&l);
    if (!(fabs(*a.loss_sum - want) <= 1e-5 * want)) trial_fail(t, "loss is %g, not %g", *a.loss_sum, want);
    if (a.dpred.data != NULL && !none)
        trial_gradient(t, "dpred", a.dpred, false, l.pred, scaled_loss, &l, 2e-5);
    for (int64_t i = 0; a.dpred.data != NULL && none && i < tensor_elems(&a.dpred); i++)
        if (!(trial_get(a.dpred, i) == 0))
            trial_fail(t, "dpred of a frame that does not count is %g", trial_get(a.dpred, i));
}

// Sums of the rounding's errors, in last places of the bf16s.
struct bias {
    double sum;
    int64_t n, up, down;
};

// low is w in bf16: to nearest, or one of the two neighbours. number: of element 0 among all parameters.
static void compare_low(struct trial *t, struct tensor low, struct tensor w, const struct op_rounding *how,
                        uint32_t step, int64_t number, struct bias *bias) {
    for (int64_t i = 0; i < tensor_elems(&w); i++) {
        uint32_t bits, words[4];
        float x = (float)trial_get(w, i);
        memcpy(&bits, &x, sizeof bits);
        uint64_t at = (uint64_t)(number + i);
        rounding_draw(how->key, step, at / ROUNDING_GROUP, words);
        uint16_t want = how->stochastic ? rounding_random(bits, words, at) : rounding_nearest(bits),
                 got = ((const uint16_t *)low.data)[i];
        if (got != want)
            trial_fail(t, "low[%lld] of %a is %04x, not %04x", (long long)i, (double)x, got, want);
        double last = (double)(bits & 0xffff) / 65536;
        bias->n++;
        bias->sum += (double)(got - (uint16_t)(bits >> 16)) - last;
        bias->up += got > bits >> 16;
        bias->down += last > 0 && got == bits >> 16;
    }
}

// The error of a number has mean 0 and a variance of at most 1/4: five sigmas.
static void check_bias(struct trial *t, const struct bias *b) {
    if (!(fabs(b->sum) <= 5 * 0.5 * sqrt((double)b->n)))
        trial_fail(t, "%lld random roundings are off by %g last places in all", (long long)b->n, b->sum);
    if (b->n > 1000 && (b->up < b->n / 4 || b->down < b->n / 4))
        trial_fail(t, "of %lld random roundings %lld go up, %lld down", (long long)b->n, (long long)b->up,
                   (long long)b->down);
}

static struct tensor vector_low(struct trial *t, int64_t n) {
    enum dtype low = t->low;
    t->low = DTYPE_BF16; // on every device
    struct tensor x = trial_low_dense(t, TRIAL_INOUT, 1, n);
    t->low = low;
    return x;
}

static struct op_rounding draw_rounding(struct trial *t) {
    return (struct op_rounding){.stochastic = t->round % 2 == 1,
                                .key = rng_key(t->seed, RNG_ROUNDING, (uint32_t)t->round)};
}

// Tensors of odd sizes with gaps between them, in other places of v; some are empty.
static int64_t lay_parts(struct trial *t, struct op_adamw_part *part, int parts, int64_t *room) {
    int64_t n = 0, v = 0;
    for (int i = 0; i < parts; i++) {
        part[i] = (struct op_adamw_part){.at = n + 8 * trial_below(t, 3),
                                         .v = v,
                                         .n = trial_below(t, 9) == 0 ? 0 : trial_size(t, 20000),
                                         .weight_decay = i % 2 ? 0.1f : 0};
        n = (part[i].at + part[i].n + 7) / 8 * 8;
        v = (v + part[i].n + 7) / 8 * 8 + 8 * trial_below(t, 2);
    }
    *room = v + 8;
    return n + 8 * trial_below(t, 2) + 8;
}

static void expect_adamw(struct trial *t, const struct op_adamw_args *a, const struct op_update *now,
                         const struct op_adamw_part *p, double *const x[5]) {
    double b1 = (double)a->beta1, b2 = (double)a->beta2, lr = (double)now->rate, step = now->step;
    double *w = x[0] + p->at, *g = x[1] + p->at, *m = x[2] + p->at, *v = x[3] + p->v;
    for (int64_t i = 0; i < p->n; i++) {
        double grad = g[i] * (double)now->grad_scale;
        m[i] = b1 * m[i] + (1 - b1) * grad;
        v[i] = b2 * v[i] + (1 - b2) * grad * grad;
        double m_hat = m[i] / (1 - pow(b1, step)), v_hat = v[i] / (1 - pow(b2, step));
        w[i] = w[i] * (1 - lr * (double)p->weight_decay) - lr * m_hat / (sqrt(v_hat) + (double)a->eps);
        if (x[4]) x[4][p->at + i] += (double)now->rest * (w[i] - x[4][p->at + i]);
    }
}

void check_adamw(struct trial *t) {
    enum { MANY = 150 }; // more than one launch takes
    int parts = t->round == 3 ? MANY : 1 + (int)trial_below(t, 5);
    struct op_adamw_part part[MANY];
    int64_t room = 0, n = lay_parts(t, part, parts, &room), step = 1 + trial_below(t, 1000);
    struct op_adamw_args a = {.part = part,
                              .parts = parts,
                              .beta1 = 0.9f,
                              .beta2 = 0.95f,
                              .eps = 1e-8f,
                              .first = 8 * trial_below(t, 99)};
    struct op_update now = op_update(1e-2f, a.beta1, a.beta2, 0.98f, step);
    now.grad_scale = 0.7f;
    now.skip = t->round == 2 || t->round == 5;
    a.now = trial_device_in(t, &now, sizeof now);
    a.rounding = draw_rounding(t);
    a.w = trial_vector(t, TRIAL_INOUT, n);
    a.g = trial_vector(t, TRIAL_IN, n);
    a.m = trial_vector(t, TRIAL_INOUT, n);
    a.v = trial_vector(t, TRIAL_INOUT, room);
    if (t->round % 3) a.average = trial_vector(t, TRIAL_INOUT, n);
    if (t->round % 4) a.low = vector_low(t, n);
    for (int64_t i = 0; i < room; i++) tensor_f32(&a.v)[i] *= tensor_f32(&a.v)[i];
    trial_refilled(t);
    TRIAL_RUN(t, adamw, a);
    double *x[5] = {trial_double(t, a.w), trial_double(t, a.g), trial_double(t, a.m), trial_double(t, a.v),
                    a.average.data ? trial_double(t, a.average) : NULL};
    struct bias bias = {0};
    for (int i = 0; i < parts; i++) {
        int64_t at = part[i].at;
        if (!now.skip) expect_adamw(t, &a, &now, &part[i], x);
        if (!a.low.data) continue;
        struct tensor low = tensor_1d((uint16_t *)a.low.data + at, part[i].n);
        low.dtype = DTYPE_BF16;
        compare_low(t, low, tensor_1d(tensor_f32(&a.w) + at, part[i].n), &a.rounding, now.step, a.first + at,
                    &bias);
    }
    trial_compare(t, "m", a.m, x[2], 4e-6);
    trial_compare(t, "v", a.v, x[3], 4e-6);
    trial_compare(t, "w", a.w, x[0], 4e-6);
    if (a.average.data) trial_compare(t, "average", a.average, x[4], 4e-6);
    if (a.rounding.stochastic) check_bias(t, &bias);
}

// out [m, n] = x [m, k] y, y [k, n] or, transposed, [n, k].
static void product(const double *x, const double *y, bool trans_y, double *out, int64_t m, int64_t n,
                    int64_t k) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++) sum += x[i * k + p] * (trans_y ? y[j * k + p] : y[p * n + j]);
            out[i * n + j] = sum;
        }
    }
}

// Newton-Schulz without the transposition: the polynomial in X X^T is the same.
static void orthogonalise(struct trial *t, double *x, int64_t r, int64_t c) {
    double *s = trial_alloc(t, (size_t)(r * r) * sizeof *s),
           *s2 = trial_alloc(t, (size_t)(r * r) * sizeof *s2);
    double *y = trial_alloc(t, (size_t)(r * c) * sizeof *y), norm = 0;
    for (int64_t i = 0; i < r * c; i++) norm += x[i] * x[i];
    for (int64_t i = 0; i < r * c; i++) x[i] /= sqrt(norm) + 1e-7;
    for (int step = 0; step < 5; step++) {
        product(x, x, true, s, r, r, c);
        product(s, s, false, s2, r, r, r);
        for (int64_t i = 0; i < r * r; i++) s2[i] = -4.7750 * s[i] + 2.0315 * s2[i];
        product(s2, x, false, y, r, c, r);
        for (int64_t i = 0; i < r * c; i++) x[i] = 3.4445 * x[i] + y[i];
    }
}

enum { BATCH = 7 };

// Matrices with gaps between them, in some rounds at multiples of 8. Returns how far they reach.
static int64_t lay_matrices(struct trial *t, struct op_muon_args *a, int64_t at[BATCH]) {
    int64_t n = 0, step = t->round % 2 ? 8 : 1;
    a->rows = trial_size(t, 100), a->cols = trial_size(t, 100);
    if (t->round == 1) a->rows = 96, a->cols = 256;
    if (t->round == 2) a->rows = 256, a->cols = 96;
    if (t->round == 5) a->rows = 40, a->cols = 24;
    a->count = (const int[TRIAL_ROUNDS]){BATCH, 1, 2, 3, BATCH, 3, 2, 1}[t->round];
    for (int i = 0; i < a->count; i++) {
        at[i] = (n + step - 1) / step * step + step * trial_below(t, 3);
        n = at[i] + a->rows * a->cols;
    }
    for (int i = 0; i < a->count; i++) { // in any order
        int other = (int)trial_below(t, a->count);
        int64_t swap = at[i];
        at[i] = at[other], at[other] = swap;
    }
    a->at = at;
    return n + trial_below(t, 9);
}

static void expect_muon(struct trial *t, const struct op_muon_args *a, const struct op_update *now,
                        int64_t at, double *const x[4]) {
    int64_t rows = a->rows, cols = a->cols, n = rows * cols;
    double *w = x[0] + at, *g = x[1] + at, *m = x[2] + at, *u = trial_alloc(t, (size_t)n * sizeof *u);
    double rate = (double)now->rate, scale = rate * 0.2 * sqrt((double)(rows > cols ? rows : cols));
    for (int64_t i = 0; i < n; i++) {
        m[i] = (double)a->momentum * m[i] + g[i];
        u[i] = g[i] + (double)a->momentum * m[i];
    }
    orthogonalise(t, u, rows, cols);
    for (int64_t i = 0; i < n; i++) {
        w[i] = w[i] * (1 - rate * (double)a->weight_decay) - scale * u[i];
        // The op's own weight: what it is off by is judged by itself.
        if (x[3]) x[3][at + i] += (double)now->rest * (trial_get(a->w, at + i) - x[3][at + i]);
    }
}

// What the op writes, and what it wrote in the batch.
struct written {
    struct tensor now;
    const char *name;
    void *batch;
};

// Each matrix by itself: the same bits as in the batch.
static void compare_alone(struct trial *t, const struct op_muon_args *a) {
    int64_t n = a->rows * a->cols;
    struct written all[] = {
        {a->w, "w", NULL}, {a->m, "m", NULL}, {a->average, "average", NULL}, {a->low, "low", NULL}};
    for (int k = 0; k < 4; k++) {
        size_t bytes = (size_t)tensor_elems(&all[k].now) * dtype_bytes(all[k].now.dtype);
        if (!all[k].now.data) continue;
        all[k].batch = trial_alloc(t, bytes);
        memcpy(all[k].batch, all[k].now.data, bytes);
    }
    for (int i = 0; i < a->count; i++) {
        struct op_muon_args alone = *a;
        alone.at = &a->at[i];
        alone.count = 1;
        TRIAL_RUN(t, muon, alone);
        for (int k = 0; k < 4; k++) {
            size_t size = dtype_bytes(all[k].now.dtype), at = (size_t)a->at[i] * size;
            if (all[k].batch &&
                memcmp((char *)all[k].now.data + at, (char *)all[k].batch + at, (size_t)n * size) != 0)
                trial_fail(t, "%s of matrix %d [%lld, %lld] alone has other bits than in a batch of %d",
                           all[k].name, i, (long long)a->rows, (long long)a->cols, a->count);
        }
    }
}

static void compare_low_of(struct trial *t, const struct op_muon_args *a, const struct op_update *now) {
    struct bias bias = {0};
    for (int i = 0; a->low.data && i < a->count; i++) {
        struct tensor low = tensor_1d((uint16_t *)a->low.data + a->at[i], a->rows * a->cols);
        low.dtype = DTYPE_BF16;
        compare_low(t, low, tensor_1d(tensor_f32(&a->w) + a->at[i], a->rows * a->cols), &a->rounding,
                    now->step, a->first + a->at[i], &bias);
    }
    if (a->rounding.stochastic) check_bias(t, &bias);
}

void check_muon(struct trial *t) {
    int64_t at[BATCH];
    struct op_muon_args a = {.momentum = 0.95f,
                             .weight_decay = 0.01f,
                             .first = t->round % 2 ? 8 * trial_below(t, 9) : trial_below(t, 99)};
    int64_t n = lay_matrices(t, &a, at);
    struct op_update now = op_update(0.02f, 0.9f, 0.95f, 0.98f, 1 + trial_below(t, 1000));
    now.skip = t->round == 3;
    a.now = trial_device_in(t, &now, sizeof now);
    a.rounding = draw_rounding(t);
    if (t->round % 3) a.average = trial_vector(t, TRIAL_INOUT, n);
    if (t->round % 4) a.low = vector_low(t, n);
    a.w = trial_vector(t, TRIAL_INOUT, n);
    a.g = trial_vector(t, TRIAL_IN, n);
    a.m = trial_vector(t, TRIAL_INOUT, n);
    a.work = trial_vector(t, TRIAL_OUT, op_muon_work_elems(a.rows, a.cols, a.count));
    TRIAL_RUN(t, muon, a);
    double *x[4] = {trial_double(t, a.w), trial_double(t, a.g), trial_double(t, a.m),
                    a.average.data ? trial_double(t, a.average) : NULL};
    for (int i = 0; i < a.count && !now.skip; i++) expect_muon(t, &a, &now, at[i], x);
    trial_compare(t, "m", a.m, x[2], 2e-6);
    trial_compare(t, "w", a.w, x[0],
                  t->low == DTYPE_BF16 ? 3e-2 : 2e-5); // the iteration is in the compute type
    if (a.average.data) trial_compare(t, "average", a.average, x[3], 4e-6);
    compare_low_of(t, &a, &now);
    compare_alone(t, &a);
}

struct judged {
    double told[200];
    int32_t at[200];
    double frames[4], weight[4], squares, loss;
    int64_t bad;
};

// Numbers in a random order, and what they add up to.
static void fill_judged(struct trial *t, struct op_judge_args *a, struct judged *j) {
    int n = a->squares + a->counts + a->senses * a->shards;
    int first = (int)trial_below(t, 200);
    for (int i = 0; i < n; i++) j->at[i] = (first + 77 * i) % 200; // 77 and 200 have no common factor
    for (int i = 0; i < a->squares; i++) j->squares += j->told[j->at[i]] = trial_unit(t);
    for (int i = a->squares; i < a->squares + a->counts; i++) {
        int64_t bad = t->round == 5 && i == a->squares ? 3 : 0;
        memcpy(&j->told[j->at[i]], &bad, sizeof bad);
        j->bad += bad;
    }
    for (int m = 0; m < a->senses; m++) {
        double sum = 0;
        j->frames[m] = m == 0 ? 0 : 1 + (double)trial_below(t, 9);
        j->weight[m] = trial_unit(t);
        for (int k = 0; k < a->shards; k++)
            sum += j->told[j->at[a->squares + a->counts + m * a->shards + k]] =
                t->round == 6 && m == a->senses - 1 && k == 1 ? NAN : trial_unit(t);
        if (m > 0) j->loss += j->weight[m] * sum / j->frames[m];
    }
}

void check_judge(struct trial *t) {
    struct op_judge_args a = {.senses = 1 + (int32_t)trial_below(t, 4),
                              .shards = 2 + (int32_t)trial_below(t, 8)};
    struct judged j = {.bad = 0};
    a.squares = 1 + (int32_t)trial_below(t, 80);
    a.counts = 1 + (int32_t)trial_below(t, 80);
    fill_judged(t, &a, &j);
    double norm = sqrt(j.squares);
    a.clip = t->round % 2 == 0 ? 0.5 * norm : 0;
    a.spike = t->round == 4 ? 0.9 * norm : t->round == 3 ? 1.1 * norm : 0;
    struct op_update update = {.rate = 3, .step_size = 4, .skip = 7};
    struct op_verdict verdict = {.norm = -1};
    a.told = trial_device_in(t, j.told, sizeof j.told);
    a.at = trial_device_in(t, j.at, sizeof j.at);
    a.frames = trial_device_in(t, j.frames, sizeof j.frames);
    a.weight = trial_device_in(t, j.weight, sizeof j.weight);
    a.update = trial_device_out(t, &update, sizeof update);
    a.verdict = trial_device_out(t, &verdict, sizeof verdict);
    TRIAL_RUN(t, judge, a);
    bool skip = j.bad > 0 || t->round == 4 || !isfinite(j.loss);
    double scale = a.clip > 0 ? 0.5 * norm / (norm + 1e-6) : 1;
    if (!(a.verdict->norm == norm) || a.verdict->nonfinite != j.bad || a.verdict->skip != skip)
        trial_fail(t, "verdict %.17g, %lld bad, skip %lld; not %.17g, %lld, %d", a.verdict->norm,
                   (long long)a.verdict->nonfinite, (long long)a.verdict->skip, norm, (long long)j.bad, skip);
    if (a.update->skip != skip || !(fabs((double)a.update->grad_scale - scale) <= 1e-6) ||
        !(a.update->rate == 3 && a.update->step_size == 4))
        trial_fail(t, "skip %d, scale %g; not %d, %g", a.update->skip, (double)a.update->grad_scale, skip,
                   scale);
}

void check_ema(struct trial *t) {
    int64_t n = trial_size(t, 40000);
    const struct op_update now = {.rest = 0.02f, .skip = t->round == 2};
    struct op_ema_args a = {.average = trial_vector(t, TRIAL_INOUT, n), .w = trial_vector(t, TRIAL_IN, n)};
    if (t->round != 3) a.now = trial_device_in(t, &now, sizeof now);
    TRIAL_RUN(t, ema, a);
    double *average = trial_double(t, a.average), *w = trial_double(t, a.w);
    for (int64_t i = 0; i < n; i++) {
        double rest = !a.now ? 1 : now.skip ? 0 : (double)now.rest;
        average[i] += rest * (w[i] - average[i]);
    }
    trial_compare(t, "average", a.average, average, 4e-6);
}

enum { SQUARES_MOST = 300 }; // more parts than one launch takes

// Parts of x that begin anywhere, some empty; every second round some of their numbers are not finite.
void check_sum_squares(struct trial *t) {
    static struct op_squares_part part[SQUARES_MOST];
    static double sum[SQUARES_MOST];
    static int64_t none[SQUARES_MOST];
    int64_t n = 0, bad[SQUARES_MOST] = {0};
    int parts = t->round == 5 ? SQUARES_MOST : 1 + (int)trial_below(t, 5);
    for (int i = 0; i < parts; i++) {
        int64_t large = t->round == 5 ? 40 : 40000;
        part[i] =
            (struct op_squares_part){n + trial_below(t, 4), trial_below(t, 9) ? trial_size(t, large) : 0};
        if (t->round == 6 && i == 0) part[i] = (struct op_squares_part){0, 10000}; // of several blocks
        n = part[i].at + part[i].n;
    }
    struct op_sum_squares_args a = {.x = trial_vector(t, TRIAL_IN, n + 1), .part = part, .parts = parts};
    double *x = trial_double(t, a.x);
    for (int i = 0; i < parts; i++) {
        bad[i] = t->round % 2 == 1 && part[i].n > 0 ? trial_below(t, part[i].n + 1) : 0;
        for (int64_t k = 0; k < bad[i]; k++)
            tensor_f32(&a.x)[part[i].at + k] = k % 3 == 0 ? NAN : k % 3 == 1 ? INFINITY : -INFINITY;
    }
    trial_refilled(t);
    a.sum = trial_device_out(t, sum, (size_t)parts * sizeof *sum);
    a.nonfinite = trial_device_out(t, none, (size_t)parts * sizeof *none);
    TRIAL_RUN(t, sum_squares, a);
    for (int i = 0; i < parts; i++) {
        double want = 0;
        for (int64_t k = 0; k < part[i].n; k++) want += x[part[i].at + k] * x[part[i].at + k];
        if (a.nonfinite[i] != bad[i])
            trial_fail(t, "part %d: %lld non-finite, not %lld", i, (long long)a.nonfinite[i],
                       (long long)bad[i]);
        if (bad[i] == 0 && !(fabs(a.sum[i] - want) <= 1e-12 * want))
            trial_fail(t, "part %d: sum is %.17g, not %.17g", i, a.sum[i], want);
        if (bad[i] > 0 && isfinite(a.sum[i])) trial_fail(t, "part %d hides non-finite elements", i);
    }
}
