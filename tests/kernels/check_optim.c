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
    int64_t n = (int64_t)(g.height / patch) * (g.width / patch),
            elems = (int64_t)g.height * g.width * g.channels;
    struct op_loss_args a = {.grid = g, .tau_stride = 1 + trial_below(t, 4), .weighting = t->round % 3};
    const float scale = 0.3f;
    a.scale = trial_device_in(t, &scale, sizeof scale);
    a.pred = trial_rows(t, TRIAL_IN, frames * n, elems / n);
    a.target = trial_rows(t, TRIAL_IN, frames, elems);
    a.tau = trial_vector(t, TRIAL_IN, frames * a.tau_stride);
    for (int64_t i = 0; i < frames * a.tau_stride; i++) tensor_f32(&a.tau)[i] = (float)trial_unit(t);
    float *active = trial_alloc(t, (size_t)frames * sizeof *active);
    for (int64_t i = 0; i < frames; i++) active[i] = (float)(trial_below(t, 3) > 0);
    a.active = trial_device_in(t, active, (size_t)frames * sizeof *active);
    trial_refilled(t);
    if (trial_below(t, 4) > 0) a.dpred = trial_low(t, TRIAL_OUT, frames * n, elems / n);
    double before = 7;
    a.loss_sum = trial_device_out(t, &before, sizeof before);
    TRIAL_RUN(t, loss, a);
    struct loss_view l = {&a, trial_double(t, a.pred), trial_double(t, a.target), active, frames};
    double want = before + plain_loss(&l);
    if (!(fabs(*a.loss_sum - want) <= 1e-5 * want)) trial_fail(t, "loss is %g, not %g", *a.loss_sum, want);
    if (a.dpred.data != NULL) trial_gradient(t, "dpred", a.dpred, false, l.pred, scaled_loss, &l, 2e-5);
}

void check_adamw(struct trial *t) {
    int64_t n = trial_size(t, 40000);
    struct op_adamw_args a = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f};
    double lr = 0.01, b1 = (double)a.beta1, b2 = (double)a.beta2, step = 1 + (double)trial_below(t, 1000);
    struct op_update now = {.rate = (float)lr, .grad_scale = 0.7f, .skip = t->round == 2};
    now.step_size = (float)(lr / (1 - pow(b1, step)));
    now.v_scale = (float)(1 / (1 - pow(b2, step)));
    a.now = trial_device_in(t, &now, sizeof now);
    a.w = trial_vector(t, TRIAL_INOUT, n);
    a.g = trial_vector(t, TRIAL_IN, n);
    a.m = trial_vector(t, TRIAL_INOUT, n);
    a.v = trial_vector(t, TRIAL_INOUT, n);
    for (int64_t i = 0; i < n; i++) tensor_f32(&a.v)[i] *= tensor_f32(&a.v)[i];
    trial_refilled(t);
    TRIAL_RUN(t, adamw, a);
    double *w = trial_double(t, a.w), *g = trial_double(t, a.g), *m = trial_double(t, a.m),
           *v = trial_double(t, a.v);
    for (int64_t i = 0; i < n && !now.skip; i++) {
        double grad = g[i] * (double)now.grad_scale;
        m[i] = b1 * m[i] + (1 - b1) * grad;
        v[i] = b2 * v[i] + (1 - b2) * grad * grad;
        double m_hat = m[i] / (1 - pow(b1, step)), v_hat = v[i] / (1 - pow(b2, step));
        w[i] = w[i] * (1 - lr * (double)a.weight_decay) - lr * m_hat / (sqrt(v_hat) + (double)a.eps);
    }
    trial_compare(t, "m", a.m, m, 4e-6);
    trial_compare(t, "v", a.v, v, 4e-6);
    trial_compare(t, "w", a.w, w, 4e-6);
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

void check_muon(struct trial *t) {
    int64_t rows = trial_size(t, 100), cols = trial_size(t, 100), n = rows * cols;
    if (t->round == 1) rows = 96, cols = 256;
    if (t->round == 2) rows = 256, cols = 96;
    n = rows * cols;
    struct op_muon_args a = {.momentum = 0.95f, .weight_decay = 0.01f};
    const struct op_update now = {.rate = 0.02f, .skip = t->round == 3};
    a.now = trial_device_in(t, &now, sizeof now);
    a.w = trial_dense(t, TRIAL_INOUT, rows, cols);
    a.g = trial_dense(t, TRIAL_IN, rows, cols);
    a.m = trial_dense(t, TRIAL_INOUT, rows, cols);
    a.work = trial_vector(t, TRIAL_INOUT, op_muon_work_elems(rows, cols));
    TRIAL_RUN(t, muon, a);
    double *w = trial_double(t, a.w), *g = trial_double(t, a.g), *m = trial_double(t, a.m);
    double *u = trial_alloc(t, (size_t)n * sizeof *u);
    for (int64_t i = 0; i < n && !now.skip; i++) {
        m[i] = (double)a.momentum * m[i] + g[i];
        u[i] = g[i] + (double)a.momentum * m[i];
    }
    if (!now.skip) orthogonalise(t, u, rows, cols);
    double lr = now.skip ? 0 : (double)now.rate, scale = lr * 0.2 * sqrt((double)(rows > cols ? rows : cols));
    for (int64_t i = 0; i < n; i++) w[i] = w[i] * (1 - lr * (double)a.weight_decay) - scale * u[i];
    trial_compare(t, "m", a.m, m, 2e-6);
    trial_compare(t, "w", a.w, w, t->low == DTYPE_BF16 ? 3e-2 : 2e-5); // the iteration is in the compute type
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

void check_sum_squares(struct trial *t) {
    int64_t n = trial_size(t, 40000), bad = t->round % 2 == 1 ? 1 + trial_below(t, n) : 0;
    struct op_sum_squares_args a = {.x = trial_vector(t, TRIAL_IN, n)};
    double *x = trial_double(t, a.x), want = 0;
    for (int64_t i = 0; i < n; i++) want += x[i] * x[i];
    for (int64_t i = 0; i < bad; i++)
        tensor_f32(&a.x)[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
    trial_refilled(t);
    double zero = 0;
    int64_t none = 0;
    a.sum = trial_device_out(t, &zero, sizeof zero);
    a.nonfinite = trial_device_out(t, &none, sizeof none);
    TRIAL_RUN(t, sum_squares, a);
    if (*a.nonfinite != bad)
        trial_fail(t, "%lld non-finite, not %lld", (long long)*a.nonfinite, (long long)bad);
    if (bad == 0 && !(fabs(*a.sum - want) <= 1e-12 * want))
        trial_fail(t, "sum is %.17g, not %.17g", *a.sum, want);
    if (bad > 0 && isfinite(*a.sum)) trial_fail(t, "the sum hides non-finite elements");
}
