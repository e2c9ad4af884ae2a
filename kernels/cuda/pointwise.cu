// SPDX-License-Identifier: Apache-2.0
// silu(x) = x s, s = 1 / (1 + exp(-x)); silu'(x) = s (1 + x (1 - s)); swiglu: y = silu(u) w with [u; w] = x's
// halves;
//   du = dy w silu'(u), dw = dy silu(u). A thread owns a pack of eight elements; fp32 inside, no sums.
// Bytes per element of y (bf16): silu 4, backward 6; swiglu 6, backward 10.
// cast: y = x, rounded to nearest even; fp32 to bf16 6 bytes an element.
// A pack of bf16 in some 100 instructions: at 48 bytes to a pack of swiglu, a third of what an H200's 18
// bytes per clock and multiprocessor leave room for.
#include "kernels/cuda/kernel.cuh"
#include "kernels/cuda/ptx.cuh"

// To bf16's precision and more, or, where results are fp32, to theirs: three times the instructions.
template <class T> __device__ __forceinline__ float sigmoid(float x) {
    if constexpr (sizeof(T) == 2)
        return inverse_fast(1.0f + exp2_fast(x * -1.44269504f));
    else
        return 1.0f / (1.0f + expf(-x));
}
__device__ __forceinline__ float silu_slope(float x, float s) {
    return s * (1.0f + x * (1.0f - s));
}

template <class T, int V>
static __global__ void silu_kernel(rows_of<const T> x, rows_of<T> y, uint32_t n, divider packs) {
    EACH_ITEM(i, n) {
        uint32_t r = packs.of(i), at = (i - r * packs.by) * V;
        float v[V];
        load_pack<V>(x.row(r) + at, v);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = v[k] * sigmoid<T>(v[k]);
        store_pack<V>(y.row(r) + at, v);
    }
}

template <class T, int V>
static __global__ void silu_backward_kernel(rows_of<const T> x, rows_of<const T> dy, rows_of<T> dx,
                                            uint32_t n, divider packs) {
    EACH_ITEM(i, n) {
        uint32_t r = packs.of(i), at = (i - r * packs.by) * V;
        float v[V], g[V];
        load_pack<V>(x.row(r) + at, v);
        load_pack<V>(dy.row(r) + at, g);
#pragma unroll
        for (int k = 0; k < V; k++) g[k] *= silu_slope(v[k], sigmoid<T>(v[k]));
        store_pack<V>(dx.row(r) + at, g);
    }
}

// w lies `half` elements behind u.
template <class T, int V>
static __global__ void swiglu_kernel(rows_of<const T> x, rows_of<T> y, uint32_t n, divider packs) {
    uint32_t half = packs.by * V;
    EACH_ITEM(i, n) {
        uint32_t r = packs.of(i), at = (i - r * packs.by) * V;
        float u[V], w[V];
        load_pack<V>(x.row(r) + at, u);
        load_pack<V>(x.row(r) + half + at, w);
#pragma unroll
        for (int k = 0; k < V; k++) u[k] = u[k] * sigmoid<T>(u[k]) * w[k];
        store_pack<V>(y.row(r) + at, u);
    }
}

template <class T, int V>
static __global__ void swiglu_backward_kernel(rows_of<const T> x, rows_of<const T> dy, rows_of<T> dx,
                                              uint32_t n, divider packs) {
    uint32_t half = packs.by * V;
    EACH_ITEM(i, n) {
        uint32_t r = packs.of(i), at = (i - r * packs.by) * V;
        float u[V], w[V], g[V];
        load_pack<V>(x.row(r) + at, u);
        load_pack<V>(x.row(r) + half + at, w);
        load_pack<V>(dy.row(r) + at, g);
#pragma unroll
        for (int k = 0; k < V; k++) {
            float s = sigmoid<T>(u[k]), slope = silu_slope(u[k], s);
            float dw = g[k] * u[k] * s;
            u[k] = g[k] * w[k] * slope;
            w[k] = dw;
        }
        store_pack<V>(dx.row(r) + at, u);
        store_pack<V>(dx.row(r) + half + at, w);
    }
}

static bool same_rows(const struct tensor *a, const struct tensor *b) {
    return cuda_is_rows(a, b->shape[0], b->shape[1]) && cuda_is_rows(b, a->shape[0], a->shape[1]) &&
           a->dtype == b->dtype;
}

template <class T, int V> static int run_silu(struct device *d, const struct op_silu_args *a, struct err *e) {
    int64_t packs = a->x.shape[1] / V, n = a->x.shape[0] * packs;
    CUDA_REQUIRE(cuda_is_few(n));
    return CUDA_RUN(d, (silu_kernel<T, V>), cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const T>(&a->x), cuda_rows<T>(&a->y), (uint32_t)n, divide_by(packs));
}

int cuda_silu(struct device *d, const struct op_silu_args *a, struct err *e) {
    CUDA_REQUIRE(same_rows(&a->x, &a->y));
    auto run = CUDA_TYPED(a->x.dtype, cuda_is_wide(&a->x, &a->y), run_silu);
    return run(d, a, e);
}

template <class T, int V>
static int run_silu_backward(struct device *d, const struct op_silu_backward_args *a, struct err *e) {
    int64_t packs = a->x.shape[1] / V, n = a->x.shape[0] * packs;
    CUDA_REQUIRE(cuda_is_few(n));
    return CUDA_RUN(d, (silu_backward_kernel<T, V>), cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const T>(&a->x), cuda_rows<const T>(&a->dy), cuda_rows<T>(&a->dx), (uint32_t)n,
                    divide_by(packs));
}

int cuda_silu_backward(struct device *d, const struct op_silu_backward_args *a, struct err *e) {
    CUDA_REQUIRE(same_rows(&a->x, &a->dy) && same_rows(&a->x, &a->dx));
    auto run = CUDA_TYPED(a->x.dtype, cuda_is_wide(&a->x, &a->dy, &a->dx), run_silu_backward);
    return run(d, a, e);
}

template <class T, int V>
static int run_swiglu(struct device *d, const struct op_swiglu_args *a, struct err *e) {
    int64_t packs = a->y.shape[1] / V, n = a->y.shape[0] * packs;
    CUDA_REQUIRE(cuda_is_few(n));
    return CUDA_RUN(d, (swiglu_kernel<T, V>), cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const T>(&a->x), cuda_rows<T>(&a->y), (uint32_t)n, divide_by(packs));
}

int cuda_swiglu(struct device *d, const struct op_swiglu_args *a, struct err *e) {
    CUDA_REQUIRE(cuda_is_rows(&a->y, a->y.shape[0], a->y.shape[1]) && a->x.dtype == a->y.dtype);
    CUDA_REQUIRE(cuda_is_rows(&a->x, a->y.shape[0], 2 * a->y.shape[1]));
    bool wide = cuda_is_wide(&a->x, &a->y) && a->y.shape[1] % CUDA_PACK == 0;
    auto run = CUDA_TYPED(a->x.dtype, wide, run_swiglu);
    return run(d, a, e);
}

template <class T, int V>
static int run_swiglu_backward(struct device *d, const struct op_swiglu_backward_args *a, struct err *e) {
    int64_t packs = a->dy.shape[1] / V, n = a->dy.shape[0] * packs;
    CUDA_REQUIRE(cuda_is_few(n));
    return CUDA_RUN(d, (swiglu_backward_kernel<T, V>), cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const T>(&a->x), cuda_rows<const T>(&a->dy), cuda_rows<T>(&a->dx), (uint32_t)n,
                    divide_by(packs));
}

int cuda_swiglu_backward(struct device *d, const struct op_swiglu_backward_args *a, struct err *e) {
    CUDA_REQUIRE(same_rows(&a->x, &a->dx) && a->x.dtype == a->dy.dtype);
    CUDA_REQUIRE(cuda_is_rows(&a->dy, a->x.shape[0], a->x.shape[1] / 2) && a->x.shape[1] % 2 == 0);
    bool wide = cuda_is_wide(&a->x, &a->dy, &a->dx) && a->dy.shape[1] % CUDA_PACK == 0;
    auto run = CUDA_TYPED(a->x.dtype, wide, run_swiglu_backward);
    return run(d, a, e);
}

template <class X, class Y, int V>
static __global__ void cast_kernel(rows_of<const X> x, rows_of<Y> y, int64_t rows, int64_t packs) {
    for (int64_t i = thread_number(); i < rows * packs; i += thread_count()) {
        int64_t r = i / packs, at = i % packs * V;
        float v[V];
        load_pack<V>(x.row(r) + at, v);
        store_pack<V>(y.row(r) + at, v);
    }
}

// fp32 to bf16 at random; `first` is the number of element 0.
template <int V>
static __global__ void cast_random_kernel(rows_of<const float> x, rows_of<bf16> y, int64_t rows, int64_t cols,
                                          struct rng_key key, uint32_t step, const struct op_update *now,
                                          int64_t first) {
    if (now) step = now->step - step;
    for (int64_t i = thread_number() * V; i < rows * cols; i += thread_count() * V) {
        float v[V];
        uint32_t words[4];
        uint64_t number = (uint64_t)(first + i);
        load_pack<V>(x.row(i / cols) + i % cols, v);
        rounding_draw(key, step, number / ROUNDING_GROUP, words);
        put_rounded<V>(y.row(i / cols) + i % cols, v, words, number);
    }
}

template <int V> static int run_cast_random(struct device *d, const struct op_cast_args *a, struct err *e) {
    int64_t rows = a->x.shape[0], cols = a->x.shape[1];
    return CUDA_RUN(d, cast_random_kernel<V>, cuda_grid(rows * cols / V, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const float>(&a->x), cuda_rows<bf16>(&a->y), rows, cols, a->rounding.key,
                    a->step, a->now, a->first);
}

template <class X, class Y, int V>
static int run_cast(struct device *d, const struct op_cast_args *a, struct err *e) {
    int64_t rows = a->x.shape[0], packs = a->x.shape[1] / V;
    return CUDA_RUN(d, (cast_kernel<X, Y, V>), cuda_grid(rows * packs, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const X>(&a->x), cuda_rows<Y>(&a->y), rows, packs);
}

template <class X, class Y>
static int choose_cast(struct device *d, const struct op_cast_args *a, struct err *e) {
    return cuda_is_wide(&a->x, &a->y) ? run_cast<X, Y, CUDA_PACK>(d, a, e) : run_cast<X, Y, 1>(d, a, e);
}

int cuda_cast(struct device *d, const struct op_cast_args *a, struct err *e) {
    CUDA_REQUIRE(cuda_is_rows(&a->x, a->y.shape[0], a->y.shape[1]));
    CUDA_REQUIRE(cuda_is_rows(&a->y, a->x.shape[0], a->x.shape[1]));
    CUDA_REQUIRE(!a->rounding.stochastic || (a->x.dtype == DTYPE_F32 && a->y.dtype == DTYPE_BF16));
    if (a->rounding.stochastic)
        return cuda_is_wide(&a->x, &a->y) && a->first % ROUNDING_GROUP == 0
                   ? run_cast_random<CUDA_PACK>(d, a, e)
                   : run_cast_random<1>(d, a, e);
    if (a->x.dtype == DTYPE_F32)
        return a->y.dtype == DTYPE_F32 ? choose_cast<float, float>(d, a, e)
                                       : choose_cast<float, bf16>(d, a, e);
    return a->y.dtype == DTYPE_F32 ? choose_cast<bf16, float>(d, a, e) : choose_cast<bf16, bf16>(d, a, e);
}
