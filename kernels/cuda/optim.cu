// SPDX-License-Identifier: Apache-2.0
// Optimisers and the running average; state and weights are fp32, a thread owns elements.
// AdamW: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w = w (1 - lr wd) - lr m^ / (sqrt(v^) + eps), g
// clipped:
//   28 bytes an element. EMA: 12 bytes.
// Muon: m = momentum m + g, u = g + momentum m, X = u / (|u|_F + 1e-7), five times X <- (a I + b S + c S^2) X
// with
//   S = X X^T on the side with fewer rows (from the right for a tall X), w = w (1 - lr wd) - lr 0.2 sqrt(max)
//   X. The norm is added in double in a fixed order; X and S are the device's compute type, products add in
//   fp32.
#include "kernels/cuda/kernel.cuh"

struct adamw_factors {
    float grad_scale, beta1, beta2, step_size, v_scale, eps, keep;
};

__device__ __forceinline__ void adamw_one(float *w, float g, float *m, float *v, const adamw_factors &f) {
    g *= f.grad_scale;
    *m = *m * f.beta1 + g * (1.0f - f.beta1);
    *v = *v * f.beta2 + g * g * (1.0f - f.beta2);
    *w = *w * f.keep - *m * f.step_size / (sqrtf(*v * f.v_scale) + f.eps);
}

template <int V>
static __global__ void adamw_kernel(float *w, const float *g, float *m, float *v, int64_t n,
                                    const struct op_update *now, float weight_decay, adamw_factors f) {
    if (now->skip) return;
    f.grad_scale = now->grad_scale;
    f.step_size = now->step_size;
    f.v_scale = now->v_scale;
    f.keep = 1.0f - now->rate * weight_decay;
    for (int64_t i = thread_number() * V; i < n; i += thread_count() * V) {
        float a[V], b[V], c[V], x[V];
        load_pack<V>(w + i, a);
        load_pack<V>(g + i, b);
        load_pack<V>(m + i, c);
        load_pack<V>(v + i, x);
#pragma unroll
        for (int k = 0; k < V; k++) adamw_one(&a[k], b[k], &c[k], &x[k], f);
        store_pack<V>(w + i, a);
        store_pack<V>(m + i, c);
        store_pack<V>(v + i, x);
    }
}

template <int V>
static int run_adamw(struct device *d, const struct op_adamw_args *a, const adamw_factors &f, struct err *e) {
    int64_t n = a->w.shape[0];
    return CUDA_RUN(d, adamw_kernel<V>, cuda_grid(n / V, CUDA_THREADS), CUDA_THREADS, 0, tensor_f32(&a->w),
                    (const float *)a->g.data, tensor_f32(&a->m), tensor_f32(&a->v), n, a->now,
                    a->weight_decay, f);
}

int cuda_adamw(struct device *d, const struct op_adamw_args *a, struct err *e) {
    int64_t n = a->w.shape[0];
    CUDA_REQUIRE(a->w.rank == 1 && cuda_is_vector(&a->w, n) && cuda_is_vector(&a->g, n) &&
                 cuda_is_vector(&a->m, n));
    CUDA_REQUIRE(cuda_is_vector(&a->v, n) && a->now != NULL);
    adamw_factors f = {0, a->beta1, a->beta2, 0, 0, a->eps, 0}; // the rest is the step's
    if (n == 0) return 0;
    bool wide = cuda_is_wide(&a->w, &a->g, &a->m, &a->v);
    return wide ? run_adamw<CUDA_PACK>(d, a, f, e) : run_adamw<1>(d, a, f, e);
}

static __global__ void ema_kernel(float *average, const float *w, int64_t n, const struct op_update *now) {
    if (now && now->skip) return;
    float rest = now ? now->rest : 1.0f;
    for (int64_t i = thread_number(); i < n; i += thread_count())
        average[i] = fmaf(w[i] - average[i], rest, average[i]);
}

int cuda_ema(struct device *d, const struct op_ema_args *a, struct err *e) {
    int64_t n = tensor_elems(&a->w);
    CUDA_REQUIRE(cuda_is_vector(&a->w, n) && cuda_is_vector(&a->average, n));
    if (n == 0) return 0;
    return CUDA_RUN(d, ema_kernel, cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0, tensor_f32(&a->average),
                    (const float *)a->w.data, n, a->now);
}

static __global__ void momentum_kernel(const float *g, float *m, float *u, int64_t n, float momentum,
                                       const struct op_update *now) {
    if (now->skip) return;
    for (int64_t i = thread_number(); i < n; i += thread_count()) {
        float now = fmaf(m[i], momentum, g[i]);
        m[i] = now;
        u[i] = fmaf(now, momentum, g[i]);
    }
}

template <class T>
static __global__ void normalise_kernel(const float *u, T *x, const double *norm2, int64_t n) {
    float scale = (float)(1 / (sqrt(*norm2) + 1e-7));
    for (int64_t i = thread_number(); i < n; i += thread_count()) put_number(x + i, u[i] * scale);
}

// s2 = b s + c s2 + a I, so that the next X is one product.
template <class T> static __global__ void polynomial_kernel(const T *s, T *s2, int64_t side) {
    for (int64_t i = thread_number(); i < side * side; i += thread_count()) {
        float v = fmaf(number_of(s2[i]), 2.0315f, number_of(s[i]) * -4.7750f);
        if (i / side == i % side) v += 3.4445f;
        put_number(s2 + i, v);
    }
}

template <class T>
static __global__ void apply_kernel(float *w, const T *x, int64_t n, float weight_decay, float root,
                                    const struct op_update *now) {
    if (now->skip) return;
    float keep = 1.0f - now->rate * weight_decay, scale = now->rate * 0.2f * root;
    for (int64_t i = thread_number(); i < n; i += thread_count())
        w[i] = w[i] * keep - number_of(x[i]) * scale;
}

struct muon {
    int64_t rows, cols, side;
    void *x, *next, *s, *s2; // [rows, cols] twice, [side, side] twice
    enum dtype dtype;
};

static struct tensor matrix(const struct muon *u, void *data, int64_t rows, int64_t cols) {
    struct tensor t = tensor_2d(data, rows, cols);
    t.dtype = u->dtype;
    return t;
}

template <class T> static int muon_iterate(struct device *d, struct muon *u, struct err *e) {
    bool tall = u->rows > u->cols;
    struct tensor x = matrix(u, u->x, u->rows, u->cols), s = matrix(u, u->s, u->side, u->side);
    struct tensor s2 = matrix(u, u->s2, u->side, u->side);
    struct op_gemm_args gram = {}, square = {}, next = {};
    gram.a = gram.b = x;
    gram.c = s;
    gram.trans_a = tall;
    gram.trans_b = !tall;
    square.a = square.b = s;
    square.c = s2;
    next.a = tall ? x : s2;
    next.b = tall ? s2 : x;
    next.c = matrix(u, u->next, u->rows, u->cols);
    int rc = cuda_gemm(d, &gram, e);
    if (!rc) rc = cuda_gemm(d, &square, e);
    if (!rc)
        rc = CUDA_RUN(d, polynomial_kernel<T>, cuda_grid(u->side * u->side, CUDA_THREADS), CUDA_THREADS, 0,
                      (const T *)u->s, (T *)u->s2, u->side);
    if (!rc) rc = cuda_gemm(d, &next, e);
    void *swap = u->x;
    u->x = u->next;
    u->next = swap;
    return rc;
}

// The direction (fp32) has the first rows*cols floats of the work, X and the rest lie behind it; in bf16 they
// fit twice over. In fp32 X takes the direction's place.
static struct muon lay_muon(const struct op_muon_args *a, enum dtype dtype) {
    struct muon u = {a->w.shape[0], a->w.shape[1], 0, NULL, NULL, NULL, NULL, dtype};
    u.side = u.rows < u.cols ? u.rows : u.cols;
    size_t size = dtype == DTYPE_BF16 ? 2 : 4, n = (size_t)(u.rows * u.cols),
           square = (size_t)(u.side * u.side);
    char *at = (char *)a->work.data + (dtype == DTYPE_BF16 ? n * sizeof(float) : 0);
    u.x = at;
    u.next = at + n * size;
    u.s = at + 2 * n * size;
    u.s2 = at + 2 * n * size + square * size;
    return u;
}

template <class T>
static int run_muon(struct device *d, const struct op_muon_args *a, struct muon *u, struct err *e) {
    int64_t n = u->rows * u->cols;
    float *direction = tensor_f32(&a->work);
    struct op_sum_squares_args squares = {};
    squares.x = tensor_1d(direction, n);
    int rc = CUDA_RUN(d, momentum_kernel, cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0,
                      (const float *)a->g.data, tensor_f32(&a->m), direction, n, a->momentum, a->now);
    double *norm2 = cuda_of(d)->result;
    squares.sum = norm2;
    squares.nonfinite = (int64_t *)(norm2 + 1);
    if (!rc) rc = cuda_sum_squares(d, &squares, e);
    if (!rc)
        rc = CUDA_RUN(d, normalise_kernel<T>, cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0,
                      (const float *)direction, (T *)u->x, (const double *)norm2, n);
    for (int i = 0; !rc && i < 5; i++) rc = muon_iterate<T>(d, u, e);
    if (rc) return rc;
    float root = sqrtf((float)(u->rows > u->cols ? u->rows : u->cols));
    return CUDA_RUN(d, apply_kernel<T>, cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0, tensor_f32(&a->w),
                    (const T *)u->x, n, a->weight_decay, root, a->now);
}

int cuda_muon(struct device *d, const struct op_muon_args *a, struct err *e) {
    int64_t rows = a->w.shape[0], cols = a->w.shape[1];
    CUDA_REQUIRE(cuda_is_f32(&a->w, rows, cols) && cuda_is_f32(&a->g, rows, cols) &&
                 cuda_is_f32(&a->m, rows, cols));
    CUDA_REQUIRE(a->w.stride[0] == cols && a->g.stride[0] == cols && a->m.stride[0] == cols);
    CUDA_REQUIRE(a->work.data != NULL && tensor_elems(&a->work) >= op_muon_work_elems(rows, cols));
    CUDA_REQUIRE(a->now != NULL);
    struct muon u = lay_muon(a, d->compute);
    return d->compute == DTYPE_BF16 ? run_muon<bf16>(d, a, &u, e) : run_muon<float>(d, a, &u, e);
}
