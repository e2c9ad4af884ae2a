// SPDX-License-Identifier: Apache-2.0
// Optimisers and the running average; state and weights are fp32, a thread owns elements.
// AdamW over many tensors in one launch of up to PARTS: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
//   w = w (1 - rate wd) - rate m^ / (sqrt(v^) + eps), g clipped. Bytes a parameter: 28 (reads w, g, m, v;
//   writes w, m, v); the average 8 more, the bf16 copy 2: 38 in one pass, where three passes would move 28 +
//   12 + 6.
// Muon: m = momentum m + g, u = g + momentum m, X = u / (|u|_F + 1e-7), five times X <- (a I + b S + c S^2) X
// with S = X X^T on the side with fewer rows (from the right for a tall X), w = w (1 - rate wd) - rate 0.2
//   sqrt(max) X, average and copy in the same pass. A batch of equal matrices takes each step in one launch
//   and one product. The norm is added in double in a fixed order; X and S are the device's compute type,
//   products add in fp32, by algorithms that do not know how large the batch is.
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

static __global__ void adamw_kernel(const __grid_constant__ adamw_walk k) {
    for (int64_t chunk = blockIdx.x; chunk < k.first_chunk[k.parts]; chunk += gridDim.x) {
        int number = part_at(k.first_chunk, k.parts, chunk);
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

// The matrices of a batch, grids' second dimension. A launch's argument, as AdamW's tensors are.
struct muon_walk {
    float *w, *m;
    const float *g;
    struct follow follow;
    float momentum, weight_decay, longer_root; // sqrt(max(rows, cols))
    const struct op_update *now;
    int64_t n, padded; // of a matrix, and from one to the next in the work
    int64_t at[OPS_MUON_MOST];
};

static __global__ void momentum_kernel(const __grid_constant__ muon_walk k, float *u) {
    if (k.now->skip) return;
    int64_t at = k.at[blockIdx.y];
    u += blockIdx.y * k.padded;
    for (int64_t i = thread_number(); i < k.n; i += thread_count()) {
        float g = k.g[at + i], now = fmaf(k.m[at + i], k.momentum, g);
        k.m[at + i] = now;
        u[i] = fmaf(now, k.momentum, g);
    }
}

// norm2: each matrix's.
template <class T>
static __global__ void normalise_kernel(const float *u, T *x, const cuda_squares *norm2, int64_t n,
                                        int64_t padded) {
    float scale = (float)(1 / (sqrt(norm2[blockIdx.y].sum) + 1e-7));
    u += blockIdx.y * padded;
    x += blockIdx.y * padded;
    for (int64_t i = thread_number(); i < n; i += thread_count()) put_number(x + i, u[i] * scale);
}

// s2 = b s + c s2 + a I, so that the next X is one product.
template <class T> static __global__ void polynomial_kernel(const T *s, T *s2, int64_t side, int64_t padded) {
    s += blockIdx.y * padded;
    s2 += blockIdx.y * padded;
    for (int64_t i = thread_number(); i < side * side; i += thread_count()) {
        float v = fmaf(number_of(s2[i]), 2.0315f, number_of(s[i]) * -4.7750f);
        if (i / side == i % side) v += 3.4445f;
        put_number(s2 + i, v);
    }
}

template <class T, int V>
static __global__ void apply_kernel(const __grid_constant__ muon_walk k, const T *x) {
    const struct op_update *now = k.now;
    float keep = 1.0f - now->rate * k.weight_decay, scale = now->rate * 0.2f * k.longer_root;
    int64_t at = k.at[blockIdx.y];
    bool skip = now->skip;
    x += blockIdx.y * k.padded;
    for (int64_t i = thread_number() * V; i < k.n; i += thread_count() * V) {
        float a[V], u[V];
        load_pack<V>(k.w + at + i, a);
        if (skip) {
            if (k.follow.low) put_low<V>(k.follow, at + i, a, now->step);
            continue;
        }
        load_pack<V>(x + i, u);
#pragma unroll
        for (int j = 0; j < V; j++) a[j] = a[j] * keep - u[j] * scale;
        put_weights<V>(k.follow, k.w, at + i, a, now);
    }
}

// A kernel over n items of each matrix.
#define RUN_EACH(d, kernel, n, matrices, ...)                                                                \
    cuda_check(LAUNCH(kernel, dim3((unsigned)cuda_grid(n, CUDA_THREADS), (unsigned)(matrices)),              \
                      dim3(CUDA_THREADS), 0, cuda_of(d)->stream, __VA_ARGS__),                               \
               "muon", e)

// A batch in the work: the same part of all matrices lies together, each padded.
struct muon {
    int64_t rows, cols, side, padded, padded_square;
    int count, most;
    float *direction;        // fp32
    void *x, *next, *s, *s2; // of [rows, cols] two, of [side, side] two
    enum dtype dtype;
};

// The direction has the first of the work; in bf16 X and the rest lie behind it and fit twice over, in fp32 X
// takes its place.
static struct muon lay_muon(const struct op_muon_args *a, enum dtype dtype) {
    struct muon u = {a->rows, a->cols};
    u.side = u.rows < u.cols ? u.rows : u.cols;
    u.padded = op_muon_padded(u.rows * u.cols), u.padded_square = op_muon_padded(u.side * u.side);
    u.count = a->count, u.most = op_muon_most(u.rows, u.cols);
    u.direction = tensor_f32(&a->work);
    u.dtype = dtype;
    size_t size = dtype == DTYPE_BF16 ? 2 : 4, all = (size_t)(u.count * u.padded),
           squares = (size_t)(u.count * u.padded_square);
    char *at = (char *)u.direction + (dtype == DTYPE_BF16 ? all * sizeof(float) : 0);
    u.x = at;
    u.next = at + all * size;
    u.s = at + 2 * all * size;
    u.s2 = at + (2 * all + squares) * size;
    return u;
}

static struct tensor matrix(const struct muon *u, void *data, int64_t rows, int64_t cols) {
    struct tensor t = tensor_2d(data, rows, cols);
    t.dtype = u->dtype;
    return t;
}

template <class T> static int muon_iterate(struct device *d, struct muon *u, struct err *e) {
    bool tall = u->rows > u->cols;
    int64_t n = u->padded, square = u->padded_square;
    struct tensor x = matrix(u, u->x, u->rows, u->cols), s = matrix(u, u->s, u->side, u->side);
    struct tensor s2 = matrix(u, u->s2, u->side, u->side);
    struct op_gemm_args gram = {}, power = {}, next = {};
    struct gemm_batch of_gram = {u->count, u->most, n, n, square},
                      of_power = {u->count, u->most, square, square, square},
                      of_next = {u->count, u->most, tall ? n : square, tall ? square : n, n};
    gram.a = gram.b = x;
    gram.c = s;
    gram.trans_a = tall;
    gram.trans_b = !tall;
    power.a = power.b = s;
    power.c = s2;
    next.a = tall ? x : s2;
    next.b = tall ? s2 : x;
    next.c = matrix(u, u->next, u->rows, u->cols);
    int rc = cuda_gemm_batch(d, &gram, &of_gram, e);
    if (!rc) rc = cuda_gemm_batch(d, &power, &of_power, e);
    if (!rc)
        rc = RUN_EACH(d, polynomial_kernel<T>, u->side * u->side, u->count, (const T *)u->s, (T *)u->s2,
                      u->side, square);
    if (!rc) rc = cuda_gemm_batch(d, &next, &of_next, e);
    void *swap = u->x;
    u->x = u->next;
    u->next = swap;
    return rc;
}

// The next X is not there yet: its place holds the norms and what they are added from.
template <class T> static int normalise(struct device *d, const struct muon *u, struct err *e) {
    int64_t n = u->rows * u->cols;
    cuda_squares *squares = (cuda_squares *)u->next;
    op_squares_part part[OPS_MUON_MOST];
    for (int i = 0; i < u->count; i++) part[i] = op_squares_part{i * u->padded, n};
    int rc = cuda_sum_squares_of(d, u->direction, part, u->count, squares, e);
    return rc ? rc
              : RUN_EACH(d, normalise_kernel<T>, n, u->count, (const float *)u->direction, (T *)u->x,
                         (const cuda_squares *)squares, n, u->padded);
}

static struct muon_walk walk_of(const struct op_muon_args *a, const struct muon *u) {
    muon_walk k = {tensor_f32(&a->w), tensor_f32(&a->m), tensor_f32(&a->g)};
    k.follow = follow_of(&a->average, &a->low, &a->rounding, a->first);
    k.momentum = a->momentum;
    k.weight_decay = a->weight_decay;
    k.longer_root = sqrtf((float)(u->rows > u->cols ? u->rows : u->cols));
    k.now = a->now;
    k.n = u->rows * u->cols;
    k.padded = u->padded;
    for (int i = 0; i < a->count; i++) k.at[i] = a->at[i];
    return k;
}

// May the matrices be read eight elements at a time?
static bool is_wide(const struct op_muon_args *a) {
    bool yes = is_aligned(&a->w) && is_aligned(&a->average) && is_aligned(&a->low) &&
               a->rows * a->cols % CUDA_PACK == 0 && a->first % ROUNDING_GROUP == 0;
    for (int i = 0; i < a->count; i++) yes = yes && a->at[i] % CUDA_PACK == 0;
    return yes;
}

template <class T>
static int run_muon(struct device *d, const struct op_muon_args *a, struct muon *u, struct err *e) {
    muon_walk k = walk_of(a, u);
    int rc = RUN_EACH(d, momentum_kernel, k.n, u->count, k, u->direction);
    if (!rc) rc = normalise<T>(d, u, e);
    for (int i = 0; !rc && i < 5; i++) rc = muon_iterate<T>(d, u, e);
    if (rc) return rc;
    return is_wide(a)
               ? RUN_EACH(d, (apply_kernel<T, CUDA_PACK>), k.n / CUDA_PACK, u->count, k, (const T *)u->x)
               : RUN_EACH(d, (apply_kernel<T, 1>), k.n, u->count, k, (const T *)u->x);
}

int cuda_muon(struct device *d, const struct op_muon_args *a, struct err *e) {
    int64_t n = a->w.shape[0];
    CUDA_REQUIRE(a->w.rank == 1 && cuda_is_vector(&a->w, n) && cuda_is_vector(&a->g, n) &&
                 cuda_is_vector(&a->m, n));
    CUDA_REQUIRE(can_follow(&a->average, &a->low, n));
    CUDA_REQUIRE(a->rows > 0 && a->cols > 0 && a->count >= 1 && a->count <= op_muon_most(a->rows, a->cols));
    CUDA_REQUIRE(a->now != NULL);
    CUDA_REQUIRE(a->work.data != NULL && (uintptr_t)a->work.data % 256 == 0 &&
                 tensor_elems(&a->work) >= op_muon_work_elems(a->rows, a->cols, a->count));
    for (int i = 0; i < a->count; i++) CUDA_REQUIRE(a->at[i] >= 0 && a->at[i] + a->rows * a->cols <= n);
    struct muon u = lay_muon(a, d->compute);
    return d->compute == DTYPE_BF16 ? run_muon<bf16>(d, a, &u, e) : run_muon<float>(d, a, &u, e);
}
