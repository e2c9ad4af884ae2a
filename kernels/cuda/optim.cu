// SPDX-License-Identifier: Apache-2.0
// Optimisers and the running average; state and weights are fp32, a thread owns elements.
// AdamW over many tensors in one launch of up to PARTS: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
//   w = w (1 - rate wd) - rate m^ / (sqrt(v^) + eps), g clipped. Bytes a parameter: 28 (reads w, g, m, v;
//   writes w, m, v); the average 8 more, the bf16 copy 2: 38 in one pass, where three passes would move 28 +
//   12 + 6.
// Muon: m = momentum m + g, u = g + momentum m, X = u / (|u|_F + 1e-7), five times X <- (a I + b S + c S^2) X
// with S = X X^T on the side with fewer rows (from the right for a tall X), w = w (1 - rate wd) - rate 0.2
//   sqrt(max) X, average and copy in the same pass. The norm is added in double in a fixed order; X and S are
//   the device's compute type, products add in fp32.
// EMA alone: 12 bytes.
#include "kernels/cuda/kernel.cuh"

// What a tensor's numbers go on to after the update: the average, and the copy in bf16.
struct follow {
    float *average; // or NULL
    bf16 *low;      // or NULL
    struct op_rounding rounding;
    int64_t first; // number of element 0
};

static struct follow follow_of(const struct tensor *average, const struct tensor *low,
                               const struct op_rounding *rounding, int64_t first) {
    return follow{tensor_f32(average), (bf16 *)low->data, *rounding, first};
}

// V numbers from i on, V numbers of one group where V is 8.
template <int V>
__device__ __forceinline__ void put_low(const follow &f, int64_t i, const float *w, uint32_t step) {
    if (!f.rounding.stochastic) return store_pack<V>(f.low + i, w);
    uint32_t words[4];
    uint64_t number = (uint64_t)(f.first + i);
    rounding_draw(f.rounding.key, step, number / ROUNDING_GROUP, words);
    put_rounded<V>(f.low + i, w, words, number);
}

template <int V>
__device__ __forceinline__ void put_weights(const follow &f, float *to, int64_t i, const float *w,
                                            const struct op_update *now) {
    store_pack<V>(to + i, w);
    if (f.average) {
        float v[V], rest = now->rest;
        load_pack<V>(f.average + i, v);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = fmaf(w[k] - v[k], rest, v[k]);
        store_pack<V>(f.average + i, v);
    }
    if (f.low) put_low<V>(f, i, w, now->step);
}

// A launch's tensors are its argument: nothing is copied to the device, and a graph keeps them.
enum { PARTS = 64, CHUNK = CUDA_THREADS * CUDA_PACK };

struct adamw_walk {
    float *w, *m, *v;
    const float *g;
    struct follow follow;
    float beta1, beta2, eps;
    const struct op_update *now;
    int parts;
    struct op_adamw_part part[PARTS];
    int64_t first_chunk[PARTS + 1];
};

template <int V>
__device__ __forceinline__ void adamw_pack(const adamw_walk &k, const op_adamw_part &p, int64_t i) {
    float w[V], g[V], m[V], v[V];
    const struct op_update now = *k.now;
    float keep = 1.0f - now.rate * p.weight_decay;
    int64_t at = p.at + i, v_at = p.v + i;
    load_pack<V>(k.w + at, w);
    if (now.skip) {
        if (k.follow.low) put_low<V>(k.follow, at, w, now.step);
        return;
    }
    load_pack<V>(k.g + at, g);
    load_pack<V>(k.m + at, m);
    load_pack<V>(k.v + v_at, v);
#pragma unroll
    for (int j = 0; j < V; j++) {
        g[j] *= now.grad_scale;
        m[j] = m[j] * k.beta1 + g[j] * (1.0f - k.beta1);
        v[j] = v[j] * k.beta2 + g[j] * g[j] * (1.0f - k.beta2);
        w[j] = w[j] * keep - m[j] * now.step_size / (sqrtf(v[j] * now.v_scale) + k.eps);
    }
    store_pack<V>(k.m + at, m);
    store_pack<V>(k.v + v_at, v);
    put_weights<V>(k.follow, k.w, at, w, k.now);
}

// The tensor that a chunk is of: the last one that does not start behind it.
__device__ __forceinline__ int part_of(const adamw_walk &k, int64_t chunk) {
    int lo = 0, hi = k.parts;
    while (hi - lo > 1) {
        int middle = (lo + hi) / 2;
        if (k.first_chunk[middle] <= chunk)
            lo = middle;
        else
            hi = middle;
    }
    return lo;
}

static __global__ void adamw_kernel(const __grid_constant__ adamw_walk k) {
    for (int64_t chunk = blockIdx.x; chunk < k.first_chunk[k.parts]; chunk += gridDim.x) {
        int number = part_of(k, chunk);
        const op_adamw_part &p = k.part[number];
        int64_t i = (chunk - k.first_chunk[number]) * CHUNK + (int64_t)threadIdx.x * CUDA_PACK;
        if (i + CUDA_PACK <= p.n) {
            adamw_pack<CUDA_PACK>(k, p, i);
        } else {
            for (; i < p.n; i++) adamw_pack<1>(k, p, i);
        }
    }
}

static bool is_aligned(const struct tensor *t) {
    return (uintptr_t)t->data % 16 == 0;
}

// What follows the weights is there or not, and as long as they are.
static bool can_follow(const struct tensor *average, const struct tensor *low, int64_t n) {
    return (average->data == NULL || cuda_is_vector(average, n)) &&
           (low->data == NULL || (low->dtype == DTYPE_BF16 && tensor_elems(low) == n));
}

static int check_adamw(const struct op_adamw_args *a, struct err *e) {
    int64_t n = a->w.shape[0], room = tensor_elems(&a->v);
    CUDA_REQUIRE(a->w.rank == 1 && cuda_is_vector(&a->w, n) && cuda_is_vector(&a->g, n) &&
                 cuda_is_vector(&a->m, n));
    CUDA_REQUIRE(cuda_is_vector(&a->v, room) && can_follow(&a->average, &a->low, n));
    CUDA_REQUIRE(is_aligned(&a->w) && is_aligned(&a->g) && is_aligned(&a->m) && is_aligned(&a->v) &&
                 is_aligned(&a->average) && is_aligned(&a->low));
    CUDA_REQUIRE(a->now != NULL && a->first % ROUNDING_GROUP == 0);
    for (int i = 0; i < a->parts; i++) {
        const struct op_adamw_part *p = &a->part[i];
        CUDA_REQUIRE(p->at >= 0 && p->v >= 0 && p->n >= 0 && p->at + p->n <= n && p->v + p->n <= room);
        CUDA_REQUIRE(p->at % ROUNDING_GROUP == 0 && p->v % ROUNDING_GROUP == 0);
    }
    return 0;
}

int cuda_adamw(struct device *d, const struct op_adamw_args *a, struct err *e) {
    int rc = check_adamw(a, e);
    adamw_walk k = {tensor_f32(&a->w),
                    tensor_f32(&a->m),
                    tensor_f32(&a->v),
                    tensor_f32(&a->g),
                    {},
                    a->beta1,
                    a->beta2,
                    a->eps,
                    a->now};
    k.follow = follow_of(&a->average, &a->low, &a->rounding, a->first);
    for (int from = 0; !rc && from < a->parts; from += PARTS) {
        k.parts = a->parts - from < PARTS ? a->parts - from : (int)PARTS;
        for (int i = 0; i < k.parts; i++) {
            k.part[i] = a->part[from + i];
            k.first_chunk[i + 1] = k.first_chunk[i] + cuda_blocks(k.part[i].n, CHUNK);
        }
        int64_t chunks = k.first_chunk[k.parts];
        if (chunks > 0) rc = CUDA_RUN(d, adamw_kernel, cuda_grid(chunks, 1), CUDA_THREADS, 0, k);
    }
    return rc;
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

struct muon_apply {
    struct follow follow;
    const struct op_update *now;
    float weight_decay, longer_root; // sqrt(max(rows, cols))
};

template <class T, int V> static __global__ void apply_kernel(float *w, const T *x, int64_t n, muon_apply k) {
    float keep = 1.0f - k.now->rate * k.weight_decay, scale = k.now->rate * 0.2f * k.longer_root;
    bool skip = k.now->skip;
    for (int64_t i = thread_number() * V; i < n; i += thread_count() * V) {
        float a[V], u[V];
        load_pack<V>(w + i, a);
        if (skip) {
            if (k.follow.low) put_low<V>(k.follow, i, a, k.now->step);
            continue;
        }
        load_pack<V>(x + i, u);
#pragma unroll
        for (int j = 0; j < V; j++) a[j] = a[j] * keep - u[j] * scale;
        put_weights<V>(k.follow, w, i, a, k.now);
    }
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

template <class T, int V>
static int run_apply(struct device *d, const struct op_muon_args *a, const T *x, struct err *e) {
    int64_t rows = a->w.shape[0], cols = a->w.shape[1];
    muon_apply k = {follow_of(&a->average, &a->low, &a->rounding, a->first), a->now, a->weight_decay,
                    sqrtf((float)(rows > cols ? rows : cols))};
    return CUDA_RUN(d, (apply_kernel<T, V>), cuda_grid(rows * cols / V, CUDA_THREADS), CUDA_THREADS, 0,
                    tensor_f32(&a->w), x, rows * cols, k);
}

template <class T>
static int apply_muon(struct device *d, const struct op_muon_args *a, const T *x, struct err *e) {
    bool wide = is_aligned(&a->w) && is_aligned(&a->average) && is_aligned(&a->low) &&
                (uintptr_t)x % 16 == 0 && a->w.shape[0] * a->w.shape[1] % CUDA_PACK == 0 &&
                a->first % ROUNDING_GROUP == 0;
    return wide ? run_apply<T, CUDA_PACK>(d, a, x, e) : run_apply<T, 1>(d, a, x, e);
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
    return rc ? rc : apply_muon<T>(d, a, (const T *)u->x, e);
}

int cuda_muon(struct device *d, const struct op_muon_args *a, struct err *e) {
    int64_t rows = a->w.shape[0], cols = a->w.shape[1];
    CUDA_REQUIRE(cuda_is_f32(&a->w, rows, cols) && cuda_is_f32(&a->g, rows, cols) &&
                 cuda_is_f32(&a->m, rows, cols));
    CUDA_REQUIRE(a->w.stride[0] == cols && a->g.stride[0] == cols && a->m.stride[0] == cols);
    CUDA_REQUIRE(can_follow(&a->average, &a->low, rows * cols));
    CUDA_REQUIRE(a->work.data != NULL && tensor_elems(&a->work) >= op_muon_work_elems(rows, cols));
    CUDA_REQUIRE(a->now != NULL);
    struct muon u = lay_muon(a, d->compute);
    return d->compute == DTYPE_BF16 ? run_muon<bf16>(d, a, &u, e) : run_muon<float>(d, a, &u, e);
}
