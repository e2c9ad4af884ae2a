// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trial.h"

struct loss_view {
    const struct op_loss_args *a;
    double *pred, *target;
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
        if (l->a->active[f] == 0) continue;
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
    return (double)l->a->scale * plain_loss(arg);
}

void check_loss(struct trial *t) {
    int64_t frames = trial_size(t, 30);
    int32_t patch = 1 + (int32_t)trial_below(t, 5);
    struct patch_grid g = {patch * (1 + (int32_t)trial_below(t, 3)), patch * (1 + (int32_t)trial_below(t, 3)),
                           1 + (int32_t)trial_below(t, 3), patch, 0};
    int64_t n = (int64_t)(g.height / patch) * (g.width / patch),
            elems = (int64_t)g.height * g.width * g.channels;
    struct op_loss_args a = {
        .grid = g, .tau_stride = 1 + trial_below(t, 4), .scale = 0.3f, .weighting = t->round % 3};
    a.pred = trial_rows(t, TRIAL_IN, frames * n, elems / n);
    a.target = trial_rows(t, TRIAL_IN, frames, elems);
    a.tau = trial_vector(t, TRIAL_IN, frames * a.tau_stride);
    for (int64_t i = 0; i < frames * a.tau_stride; i++) tensor_f32(&a.tau)[i] = (float)trial_unit(t);
    float *active = trial_alloc(t, (size_t)frames * sizeof *active);
    for (int64_t i = 0; i < frames; i++) active[i] = (float)(trial_below(t, 3) > 0);
    a.active = active;
    trial_refilled(t);
    if (trial_below(t, 4) > 0) a.dpred = trial_low(t, TRIAL_OUT, frames * n, elems / n);
    double before = 7;
    a.loss_sum = trial_device_out(t, &before, sizeof before);
    TRIAL_RUN(t, loss, a);
    struct loss_view l = {&a, trial_double(t, a.pred), trial_double(t, a.target), frames};
    double want = before + plain_loss(&l);
    if (!(fabs(*a.loss_sum - want) <= 1e-5 * want)) trial_fail(t, "loss is %g, not %g", *a.loss_sum, want);
    if (a.dpred.data != NULL) trial_gradient(t, "dpred", a.dpred, false, l.pred, scaled_loss, &l, 2e-5);
}

void check_adamw(struct trial *t) {
    int64_t n = trial_size(t, 40000);
    struct op_adamw_args a = {
        .lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f, .grad_scale = 0.7f};
    a.step = 1 + trial_below(t, 1000);
    a.w = trial_vector(t, TRIAL_INOUT, n);
    a.g = trial_vector(t, TRIAL_IN, n);
    a.m = trial_vector(t, TRIAL_INOUT, n);
    a.v = trial_vector(t, TRIAL_INOUT, n);
    for (int64_t i = 0; i < n; i++) tensor_f32(&a.v)[i] *= tensor_f32(&a.v)[i];
    trial_refilled(t);
    TRIAL_RUN(t, adamw, a);
    double *w = trial_double(t, a.w), *g = trial_double(t, a.g), *m = trial_double(t, a.m),
           *v = trial_double(t, a.v);
    double b1 = (double)a.beta1, b2 = (double)a.beta2, lr = (double)a.lr;
    for (int64_t i = 0; i < n; i++) {
        double grad = g[i] * (double)a.grad_scale;
        m[i] = b1 * m[i] + (1 - b1) * grad;
        v[i] = b2 * v[i] + (1 - b2) * grad * grad;
        double m_hat = m[i] / (1 - pow(b1, (double)a.step)), v_hat = v[i] / (1 - pow(b2, (double)a.step));
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
    struct op_muon_args a = {.lr = 0.02f, .momentum = 0.95f, .weight_decay = 0.01f};
    a.w = trial_dense(t, TRIAL_INOUT, rows, cols);
    a.g = trial_dense(t, TRIAL_IN, rows, cols);
    a.m = trial_dense(t, TRIAL_INOUT, rows, cols);
    a.work = trial_vector(t, TRIAL_INOUT, op_muon_work_elems(rows, cols));
    TRIAL_RUN(t, muon, a);
    double *w = trial_double(t, a.w), *g = trial_double(t, a.g), *m = trial_double(t, a.m);
    double *u = trial_alloc(t, (size_t)n * sizeof *u);
    for (int64_t i = 0; i < n; i++) {
        m[i] = (double)a.momentum * m[i] + g[i];
        u[i] = g[i] + (double)a.momentum * m[i];
    }
    orthogonalise(t, u, rows, cols);
    double scale = (double)a.lr * 0.2 * sqrt((double)(rows > cols ? rows : cols));
    for (int64_t i = 0; i < n; i++) w[i] = w[i] * (1 - (double)a.lr * (double)a.weight_decay) - scale * u[i];
    trial_compare(t, "m", a.m, m, 2e-6);
    trial_compare(t, "w", a.w, w, t->low == DTYPE_BF16 ? 3e-2 : 2e-5); // the iteration is in the compute type
}

void check_ema(struct trial *t) {
    int64_t n = trial_size(t, 40000);
    struct op_ema_args a = {
        .average = trial_vector(t, TRIAL_INOUT, n), .w = trial_vector(t, TRIAL_IN, n), .decay = 0.98f};
    TRIAL_RUN(t, ema, a);
    double *average = trial_double(t, a.average), *w = trial_double(t, a.w);
    for (int64_t i = 0; i < n; i++) average[i] += (1 - (double)a.decay) * (w[i] - average[i]);
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
