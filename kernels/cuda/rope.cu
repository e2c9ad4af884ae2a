// SPDX-License-Identifier: Apache-2.0
// QK-norm and rotation. With n = x r, r = 1 / sqrt(mean x^2 + 1e-6) over a head, R the rotation of pairs (i,
// i + hd/2):
//   q = R n gamma/hd, k = R n;   with u = R^T dout, t = sum u n:  dx = s r (u - n t/hd), s = gamma/hd or 1
//   dgamma[h] += sum over rows of t/hd: to scratch first, then added as col_sum does.
// A power of two of lanes owns a head of a row, V pairs a lane; fp32 inside, T outside; the angles are fp32
// and are served by the caches. Bytes per element of q and k (bf16): 4 forward, 6 backward.
#include "kernels/cuda/kernel.cuh"

#define ROPE_EPS 1e-6f

struct rope_shape {
    int64_t rows, per_sequence, first_position;
    int heads, kv_heads, head_dim;
    int lanes; // of a head
};

// What a thread works on: a head of a row and the first of its pairs. Threads past the end share the last
// head without storing, since whole warps meet in the sums.
struct rope_item {
    int64_t row;
    int head, lane;
    bool live;
};

__device__ __forceinline__ rope_item find_item(const rope_shape &s) {
    int64_t number = thread_number() / s.lanes, all = s.heads + s.kv_heads, last = s.rows * all - 1;
    bool live = number <= last;
    if (!live) number = last;
    return rope_item{number / all, (int)(number % all), (int)(thread_number() % s.lanes), live};
}

__device__ __forceinline__ float lanes_sum(float x, int lanes) {
    for (int by = lanes / 2; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
    return x;
}

template <class T, int V>
static __global__ void rope_kernel(rows_of<const T> qkv, rows_of<T> q, rows_of<T> k, float *rstd,
                                   rows_of<const float> cosines, rows_of<const float> sines,
                                   const float *gamma, rope_shape s) {
    rope_item it = find_item(s);
    int half = s.head_dim / 2, step = s.lanes * V;
    const T *x = qkv.row(it.row) + (int64_t)it.head * s.head_dim;
    float a[V], b[V], c[V], n[V], sum = 0;
    for (int i = it.lane * V; i < half; i += step) {
        load_pack<V>(x + i, a);
        load_pack<V>(x + half + i, b);
#pragma unroll
        for (int j = 0; j < V; j++) sum = fmaf(a[j], a[j], fmaf(b[j], b[j], sum));
    }
    float r = rsqrtf(lanes_sum(sum, s.lanes) / (float)s.head_dim + ROPE_EPS);
    if (!it.live) return;
    bool is_q = it.head < s.heads;
    float scale = is_q ? r * gamma[it.head] / (float)s.head_dim : r;
    if (it.lane == 0) rstd[it.row * (s.heads + s.kv_heads) + it.head] = r;
    T *out = is_q ? q.row(it.row) + (int64_t)it.head * s.head_dim
                  : k.row(it.row) + (int64_t)(it.head - s.heads) * s.head_dim;
    int64_t position = s.first_position + it.row % s.per_sequence;
    for (int i = it.lane * V; i < half; i += step) {
        load_pack<V>(x + i, a);
        load_pack<V>(x + half + i, b);
        load_pack<V>(cosines.row(position) + i, c);
        load_pack<V>(sines.row(position) + i, n);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float u = a[j] * scale, v = b[j] * scale;
            a[j] = u * c[j] - v * n[j];
            b[j] = u * n[j] + v * c[j];
        }
        store_pack<V>(out + i, a);
        store_pack<V>(out + half + i, b);
    }
}

// terms [rows, heads]: t / hd.
template <class T, int V>
static __global__ void rope_backward_kernel(rows_of<const T> qkv, const float *rstd, rows_of<const T> dq,
                                            rows_of<const T> dk, rows_of<T> dqkv,
                                            rows_of<const float> cosines, rows_of<const float> sines,
                                            const float *gamma, float *terms, rope_shape s) {
    rope_item it = find_item(s);
    int half = s.head_dim / 2, step = s.lanes * V;
    bool is_q = it.head < s.heads;
    const T *x = qkv.row(it.row) + (int64_t)it.head * s.head_dim;
    const T *dout = is_q ? dq.row(it.row) + (int64_t)it.head * s.head_dim
                         : dk.row(it.row) + (int64_t)(it.head - s.heads) * s.head_dim;
    int64_t position = s.first_position + it.row % s.per_sequence;
    float r = rstd[it.row * (s.heads + s.kv_heads) + it.head];
    float a[V], b[V], c[V], n[V], xa[V], xb[V], dot = 0;
    for (int i = it.lane * V; i < half; i += step) {
        load_pack<V>(dout + i, a);
        load_pack<V>(dout + half + i, b);
        load_pack<V>(cosines.row(position) + i, c);
        load_pack<V>(sines.row(position) + i, n);
        load_pack<V>(x + i, xa);
        load_pack<V>(x + half + i, xb);
#pragma unroll
        for (int j = 0; j < V; j++) {
            dot = fmaf(a[j] * c[j] + b[j] * n[j], xa[j] * r, dot);
            dot = fmaf(b[j] * c[j] - a[j] * n[j], xb[j] * r, dot);
        }
    }
    float t = lanes_sum(dot, s.lanes) / (float)s.head_dim;
    if (!it.live) return;
    if (is_q && it.lane == 0) terms[it.row * s.heads + it.head] = t;
    float scale = is_q ? r * gamma[it.head] / (float)s.head_dim : r, mean = t * r;
    T *dx = dqkv.row(it.row) + (int64_t)it.head * s.head_dim;
    for (int i = it.lane * V; i < half; i += step) {
        load_pack<V>(dout + i, a);
        load_pack<V>(dout + half + i, b);
        load_pack<V>(cosines.row(position) + i, c);
        load_pack<V>(sines.row(position) + i, n);
        load_pack<V>(x + i, xa);
        load_pack<V>(x + half + i, xb);
#pragma unroll
        for (int j = 0; j < V; j++) {
            xa[j] = (a[j] * c[j] + b[j] * n[j] - xa[j] * mean) * scale;
            xb[j] = (b[j] * c[j] - a[j] * n[j] - xb[j] * mean) * scale;
        }
        store_pack<V>(dx + i, xa);
        store_pack<V>(dx + half + i, xb);
    }
}

// A power of two, so that the lanes of a head lie in one warp.
static int lanes_of(int head_dim, int pack) {
    int lanes = 1;
    while (lanes < CUDA_WARP && lanes * pack < head_dim / 2) lanes *= 2;
    return lanes;
}

static bool rope_fits(int heads, int kv_heads, int hd, int64_t first, int64_t per_sequence,
                      const struct tensor *cosines, const struct tensor *sines) {
    int64_t positions = cosines->shape[0];
    return heads > 0 && kv_heads > 0 && hd > 0 && hd % 2 == 0 && per_sequence > 0 && first >= 0 &&
           first + per_sequence <= positions && cuda_is_f32(cosines, positions, hd / 2) &&
           cuda_is_f32(sines, positions, hd / 2);
}

template <class T, int V>
static int run_rope(struct device *d, const struct op_qk_rope_args *a, struct err *e) {
    rope_shape s = {a->qkv.shape[0], a->per_sequence, a->first_position,       a->heads,
                    a->kv_heads,     a->head_dim,     lanes_of(a->head_dim, V)};
    int64_t threads = s.rows * (s.heads + s.kv_heads) * s.lanes;
    return CUDA_RUN(d, (rope_kernel<T, V>), cuda_blocks(threads, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const T>(&a->qkv), cuda_rows<T>(&a->q), cuda_rows<T>(&a->k),
                    tensor_f32(&a->rstd), cuda_rows<const float>(&a->cos), cuda_rows<const float>(&a->sin),
                    (const float *)a->gamma.data, s);
}

int cuda_qk_rope(struct device *d, const struct op_qk_rope_args *a, struct err *e) {
    int64_t rows = a->qkv.shape[0], hd = a->head_dim;
    CUDA_REQUIRE(
        rope_fits(a->heads, a->kv_heads, a->head_dim, a->first_position, a->per_sequence, &a->cos, &a->sin));
    CUDA_REQUIRE(cuda_is_rows(&a->qkv, rows, (a->heads + 2 * a->kv_heads) * hd));
    CUDA_REQUIRE(cuda_is_rows(&a->q, rows, a->heads * hd) && cuda_is_rows(&a->k, rows, a->kv_heads * hd));
    CUDA_REQUIRE(a->q.dtype == a->qkv.dtype && a->k.dtype == a->qkv.dtype);
    CUDA_REQUIRE(cuda_is_vector(&a->rstd, rows * (a->heads + a->kv_heads)) &&
                 cuda_is_vector(&a->gamma, a->heads));
    if (rows == 0) return 0;
    bool wide = cuda_is_wide(&a->qkv, &a->q, &a->k, &a->cos, &a->sin) && hd / 2 % CUDA_PACK == 0;
    auto run = CUDA_TYPED(a->qkv.dtype, wide, run_rope);
    return run(d, a, e);
}

template <class T, int V>
static int run_rope_backward(struct device *d, const struct op_qk_rope_backward_args *a, struct err *e) {
    rope_shape s = {a->qkv.shape[0], a->per_sequence, a->first_position,       a->heads,
                    a->kv_heads,     a->head_dim,     lanes_of(a->head_dim, V)};
    int64_t threads = s.rows * (s.heads + s.kv_heads) * s.lanes;
    size_t terms = ((size_t)(s.rows * s.heads) * sizeof(float) + 255) / 256 * 256;
    void *scratch = NULL;
    int rc = cuda_scratch(d, &scratch, gpu_rope_backward_bytes(s.rows, s.heads), e);
    if (!rc)
        rc = CUDA_RUN(d, (rope_backward_kernel<T, V>), cuda_blocks(threads, CUDA_THREADS), CUDA_THREADS, 0,
                      cuda_rows<const T>(&a->qkv), (const float *)a->rstd.data, cuda_rows<const T>(&a->dq),
                      cuda_rows<const T>(&a->dk), cuda_rows<T>(&a->dqkv), cuda_rows<const float>(&a->cos),
                      cuda_rows<const float>(&a->sin), (const float *)a->gamma.data, (float *)scratch, s);
    if (rc) return rc;
    return cuda_col_sum_f32(d, (const float *)scratch, s.heads, s.rows, s.heads, tensor_f32(&a->dgamma), true,
                            (char *)scratch + terms, e);
}

int cuda_qk_rope_backward(struct device *d, const struct op_qk_rope_backward_args *a, struct err *e) {
    int64_t rows = a->qkv.shape[0], hd = a->head_dim;
    CUDA_REQUIRE(
        rope_fits(a->heads, a->kv_heads, a->head_dim, a->first_position, a->per_sequence, &a->cos, &a->sin));
    CUDA_REQUIRE(cuda_is_rows(&a->qkv, rows, (a->heads + 2 * a->kv_heads) * hd));
    CUDA_REQUIRE(cuda_is_rows(&a->dqkv, rows, (a->heads + 2 * a->kv_heads) * hd));
    CUDA_REQUIRE(cuda_is_rows(&a->dq, rows, a->heads * hd) && cuda_is_rows(&a->dk, rows, a->kv_heads * hd));
    CUDA_REQUIRE(a->dq.dtype == a->qkv.dtype && a->dk.dtype == a->qkv.dtype && a->dqkv.dtype == a->qkv.dtype);
    CUDA_REQUIRE(cuda_is_vector(&a->rstd, rows * (a->heads + a->kv_heads)));
    CUDA_REQUIRE(cuda_is_vector(&a->gamma, a->heads) && cuda_is_vector(&a->dgamma, a->heads));
    if (rows == 0) return 0;
    bool wide = cuda_is_wide(&a->qkv, &a->dq, &a->dk, &a->cos, &a->sin) && cuda_is_wide(&a->dqkv) &&
                hd / 2 % CUDA_PACK == 0;
    auto run = CUDA_TYPED(a->qkv.dtype, wide, run_rope_backward);
    return run(d, a, e);
}
