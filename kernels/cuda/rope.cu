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
    int64_t rows, first_position;
    divider per_row;      // heads of a row: of q, then of k
    divider per_sequence; // rows
    int heads, head_dim;
    int lanes_log2; // of a head
    float inverse_dim;
};

// What a thread works on: a head of a row and the first of its pairs. Threads past the end share the last
// head without storing, since whole warps meet in the sums.
struct rope_item {
    int64_t row, position;
    int head, lane;
    bool live, is_q;
};

__device__ __forceinline__ rope_item find_item(const rope_shape &s) {
    uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, number = thread >> s.lanes_log2;
    uint32_t last = (uint32_t)s.rows * s.per_row.by - 1;
    bool live = number <= last;
    if (!live) number = last;
    uint32_t row = s.per_row.of(number), head = number - row * s.per_row.by;
    uint32_t in_sequence = row - s.per_sequence.of(row) * s.per_sequence.by;
    return rope_item{row,       s.first_position + in_sequence,
                     (int)head, (int)(thread & ((1u << s.lanes_log2) - 1)),
                     live,      (int)head < s.heads};
}

__device__ __forceinline__ float lanes_sum(float x, int lanes_log2) {
    for (int by = 1 << lanes_log2 >> 1; by > 0; by >>= 1) x += __shfl_xor_sync(0xffffffffu, x, by);
    return x;
}

// A head of q or k where they lie apart.
template <class T>
__device__ __forceinline__ T *head_of(const rows_of<T> &q, const rows_of<T> &k, const rope_item &it,
                                      const rope_shape &s) {
    return it.is_q ? q.row(it.row) + it.head * s.head_dim : k.row(it.row) + (it.head - s.heads) * s.head_dim;
}

// V pairs: of a head, or of the angles' cosines and sines.
template <int V> struct rope_pairs {
    float a[V], b[V];
    template <class T> __device__ __forceinline__ void load(const T *first, const T *second) {
        load_pack<V>(first, a);
        load_pack<V>(second, b);
    }
    template <class T> __device__ __forceinline__ void store(T *first, T *second) const {
        store_pack<V>(first, a);
        store_pack<V>(second, b);
    }
};

// A lane's first pairs are kept in registers; where heads are so long that it has further ones, these are
// read twice.
template <class T, int V>
static __global__ void rope_kernel(rows_of<const T> qkv, rows_of<T> q, rows_of<T> k, float *rstd,
                                   rows_of<const float> cosines, rows_of<const float> sines,
                                   const float *gamma, const __grid_constant__ rope_shape s) {
    rope_item it = find_item(s);
    int half = s.head_dim / 2, first = it.lane * V, step = V << s.lanes_log2;
    const T *x = qkv.row(it.row) + it.head * s.head_dim;
    rope_pairs<V> kept, other;
    float sum = 0;
    auto square = [&](const rope_pairs<V> &p) {
#pragma unroll
        for (int j = 0; j < V; j++) sum = fmaf(p.a[j], p.a[j], fmaf(p.b[j], p.b[j], sum));
    };
    if (first < half) {
        kept.load(x + first, x + half + first);
        square(kept);
    }
    for (int i = first + step; i < half; i += step) {
        other.load(x + i, x + half + i);
        square(other);
    }
    float r = rsqrtf(lanes_sum(sum, s.lanes_log2) * s.inverse_dim + ROPE_EPS);
    if (!it.live) return;
    float scale = it.is_q ? r * gamma[it.head] * s.inverse_dim : r;
    if (it.lane == 0) rstd[it.row * s.per_row.by + it.head] = r;
    T *out = head_of(q, k, it, s);
    auto turn = [&](int i, rope_pairs<V> &p) {
        rope_pairs<V> angle;
        angle.load(cosines.row(it.position) + i, sines.row(it.position) + i);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float u = p.a[j] * scale, v = p.b[j] * scale;
            p.a[j] = u * angle.a[j] - v * angle.b[j];
            p.b[j] = u * angle.b[j] + v * angle.a[j];
        }
        p.store(out + i, out + half + i);
    };
    if (first < half) turn(first, kept);
    for (int i = first + step; i < half; i += step) {
        other.load(x + i, x + half + i);
        turn(i, other);
    }
}

// terms [rows, heads]: t / hd.
template <class T, int V>
static __global__ void __launch_bounds__(CUDA_THREADS, V == 1 ? 1 : 3)
    rope_backward_kernel(rows_of<const T> qkv, const float *rstd, rows_of<const T> dq, rows_of<const T> dk,
                         rows_of<T> dqkv, rows_of<const float> cosines, rows_of<const float> sines,
                         const float *gamma, float *terms, const __grid_constant__ rope_shape s) {
    rope_item it = find_item(s);
    int half = s.head_dim / 2, first = it.lane * V, step = V << s.lanes_log2;
    const T *x = qkv.row(it.row) + it.head * s.head_dim, *dout = head_of(dq, dk, it, s);
    float r = rstd[it.row * s.per_row.by + it.head], dot = 0;
    rope_pairs<V> kept, kept_x, other, other_x;
    // u = R^T dout, and its share of sum u n.
    auto turn_back = [&](int i, rope_pairs<V> &u, rope_pairs<V> &of_x) {
        rope_pairs<V> angle;
        u.load(dout + i, dout + half + i);
        of_x.load(x + i, x + half + i);
        angle.load(cosines.row(it.position) + i, sines.row(it.position) + i);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float a = u.a[j] * angle.a[j] + u.b[j] * angle.b[j];
            u.b[j] = u.b[j] * angle.a[j] - u.a[j] * angle.b[j];
            u.a[j] = a;
            dot = fmaf(u.a[j], of_x.a[j] * r, fmaf(u.b[j], of_x.b[j] * r, dot));
        }
    };
    if (first < half) turn_back(first, kept, kept_x);
    for (int i = first + step; i < half; i += step) turn_back(i, other, other_x);
    float t = lanes_sum(dot, s.lanes_log2) * s.inverse_dim;
    if (!it.live) return;
    if (it.is_q && it.lane == 0) terms[it.row * s.heads + it.head] = t;
    float scale = it.is_q ? r * gamma[it.head] * s.inverse_dim : r, mean = t * r;
    T *dx = dqkv.row(it.row) + it.head * s.head_dim;
    auto finish = [&](int i, rope_pairs<V> &u, const rope_pairs<V> &of_x) {
#pragma unroll
        for (int j = 0; j < V; j++) {
            u.a[j] = (u.a[j] - of_x.a[j] * mean) * scale;
            u.b[j] = (u.b[j] - of_x.b[j] * mean) * scale;
        }
        u.store(dx + i, dx + half + i);
    };
    if (first < half) finish(first, kept, kept_x);
    for (int i = first + step; i < half; i += step) {
        turn_back(i, other, other_x);
        finish(i, other, other_x);
    }
}

// A power of two, so that the lanes of a head lie in one warp.
static int lanes_log2(int head_dim, int pack) {
    int log2 = 0;
    while (1 << log2 < CUDA_WARP && (pack << log2) < head_dim / 2) log2++;
    return log2;
}

static rope_shape shape_of(int64_t rows, int64_t per_sequence, int64_t first, int heads, int kv_heads,
                           int head_dim, int pack) {
    return rope_shape{rows,  first,    divide_by(heads + kv_heads), divide_by(per_sequence),
                      heads, head_dim, lanes_log2(head_dim, pack),  1.0f / (float)head_dim};
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
    rope_shape s =
        shape_of(a->qkv.shape[0], a->per_sequence, a->first_position, a->heads, a->kv_heads, a->head_dim, V);
    int64_t threads = s.rows * s.per_row.by << s.lanes_log2;
    CUDA_REQUIRE(threads <= UINT32_MAX - CUDA_THREADS && cuda_is_few(s.rows * s.per_row.by));
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
    rope_shape s =
        shape_of(a->qkv.shape[0], a->per_sequence, a->first_position, a->heads, a->kv_heads, a->head_dim, V);
    int64_t threads = s.rows * s.per_row.by << s.lanes_log2;
    CUDA_REQUIRE(threads <= UINT32_MAX - CUDA_THREADS && cuda_is_few(s.rows * s.per_row.by));
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
