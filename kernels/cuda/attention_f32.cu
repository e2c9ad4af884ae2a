// SPDX-License-Identifier: Apache-2.0
// Attention in fp32, for debugging (cuda.precision fp32 and tf32) and as an oracle: any head dim up to 256, a
// warp per query and head forward and for dq, a warp per key and kv head for dk and dv; every sum runs over
// the other side in order. o = softmax(q k^T + mask) v; with p = exp(s - lse), D = sum o do: dv = p^T do, ds
// = p (do v^T - D), dq = ds k, dk = ds^T q. Reads all keys once per query: nothing that should be fast.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/kernel.cuh"

enum { MOST = 256 / CUDA_WARP, WARPS = CUDA_THREADS / CUDA_WARP }; // numbers of a head that a lane holds

// One sequence.
struct f32_task {
    rows_of<const float> q, k, v, o, d_o;
    rows_of<float> out, dq, dk, dv;
    float *lse; // [queries, heads]
    const struct mask_view *view;
    int queries, keys, heads, kv_heads, head_dim;
};

__device__ __forceinline__ void take_head(const float *row, int head_dim, float *out) {
    int lane = (int)threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int i = 0; i < MOST; i++) out[i] = lane + i * CUDA_WARP < head_dim ? row[lane + i * CUDA_WARP] : 0;
}
__device__ __forceinline__ void put_head(float *row, int head_dim, const float *x) {
    int lane = (int)threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int i = 0; i < MOST; i++)
        if (lane + i * CUDA_WARP < head_dim) row[lane + i * CUDA_WARP] = x[i];
}
__device__ __forceinline__ float dot_head(const float *a, const float *b) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < MOST; i++) sum = fmaf(a[i], b[i], sum);
    return warp_sum(sum);
}

static __global__ void f32_forward(f32_task t) {
    int unit = (int)blockIdx.x * WARPS + (int)threadIdx.x / CUDA_WARP, row = unit / t.heads,
        head = unit % t.heads;
    if (row >= t.queries) return;
    int kv = head / (t.heads / t.kv_heads) * t.head_dim;
    float q[MOST], x[MOST], o[MOST] = {}, top = -INFINITY, sum = 0;
    take_head(t.q.row(row) + head * t.head_dim, t.head_dim, q);
    for (int i = t.view->row[row].first; i < t.view->row[row].end; i++) {
        for (int key = t.view->interval[i].lo; key < t.view->interval[i].hi; key++) {
            take_head(t.k.row(key) + kv, t.head_dim, x);
            float s = dot_head(q, x), high = fmaxf(top, s), keep = expf(top - high), p = expf(s - high);
            take_head(t.v.row(key) + kv, t.head_dim, x);
#pragma unroll
            for (int j = 0; j < MOST; j++) o[j] = o[j] * keep + p * x[j];
            sum = sum * keep + p;
            top = high;
        }
    }
#pragma unroll
    for (int j = 0; j < MOST; j++) o[j] = sum > 0 ? o[j] / sum : 0;
    put_head(t.out.row(row) + head * t.head_dim, t.head_dim, o);
    if (threadIdx.x % CUDA_WARP == 0)
        t.lse[(int64_t)row * t.heads + head] = sum > 0 ? top + logf(sum) : -INFINITY;
}

static __global__ void f32_queries(f32_task t) {
    int unit = (int)blockIdx.x * WARPS + (int)threadIdx.x / CUDA_WARP, row = unit / t.heads,
        head = unit % t.heads;
    if (row >= t.queries) return;
    int at = head * t.head_dim, kv = head / (t.heads / t.kv_heads) * t.head_dim;
    float q[MOST], g[MOST], x[MOST], dq[MOST] = {}, lse = t.lse[(int64_t)row * t.heads + head];
    take_head(t.q.row(row) + at, t.head_dim, q);
    take_head(t.d_o.row(row) + at, t.head_dim, g);
    take_head(t.o.row(row) + at, t.head_dim, x);
    float delta = dot_head(x, g);
    for (int i = t.view->row[row].first; i < t.view->row[row].end; i++) {
        for (int key = t.view->interval[i].lo; key < t.view->interval[i].hi; key++) {
            take_head(t.v.row(key) + kv, t.head_dim, x);
            float dp = dot_head(g, x);
            take_head(t.k.row(key) + kv, t.head_dim, x);
            float ds = expf(dot_head(q, x) - lse) * (dp - delta);
#pragma unroll
            for (int j = 0; j < MOST; j++) dq[j] = fmaf(ds, x[j], dq[j]);
        }
    }
    put_head(t.dq.row(row) + at, t.head_dim, dq);
}

__device__ __forceinline__ bool sees(const f32_task &t, int row, int key) {
    for (int i = t.view->row[row].first; i < t.view->row[row].end; i++)
        if (t.view->interval[i].lo <= key && key < t.view->interval[i].hi) return true;
    return false;
}

static __global__ void f32_keys(f32_task t) {
    int unit = (int)blockIdx.x * WARPS + (int)threadIdx.x / CUDA_WARP, key = unit / t.kv_heads,
        kv = unit % t.kv_heads;
    if (key >= t.keys) return;
    int group = t.heads / t.kv_heads;
    float k[MOST], v[MOST], q[MOST], g[MOST], x[MOST], dk[MOST] = {}, dv[MOST] = {};
    take_head(t.k.row(key) + kv * t.head_dim, t.head_dim, k);
    take_head(t.v.row(key) + kv * t.head_dim, t.head_dim, v);
    for (int row = 0; row < t.queries; row++) {
        if (!sees(t, row, key)) continue;
        for (int head = kv * group; head < (kv + 1) * group; head++) {
            int at = head * t.head_dim;
            take_head(t.q.row(row) + at, t.head_dim, q);
            take_head(t.d_o.row(row) + at, t.head_dim, g);
            take_head(t.o.row(row) + at, t.head_dim, x);
            float p = expf(dot_head(q, k) - t.lse[(int64_t)row * t.heads + head]);
            float ds = p * (dot_head(g, v) - dot_head(x, g));
#pragma unroll
            for (int j = 0; j < MOST; j++) {
                dk[j] = fmaf(ds, q[j], dk[j]);
                dv[j] = fmaf(p, g[j], dv[j]);
            }
        }
    }
    put_head(t.dk.row(key) + kv * t.head_dim, t.head_dim, dk);
    put_head(t.dv.row(key) + kv * t.head_dim, t.head_dim, dv);
}

static rows_of<const float> in_rows(const struct tensor *t, int64_t first) {
    rows_of<const float> r = cuda_rows<const float>(t);
    return rows_of<const float>{r.at + first * r.ld, r.ld};
}
static rows_of<float> out_rows(const struct tensor *t, int64_t first) {
    rows_of<float> r = cuda_rows<float>(t);
    return rows_of<float>{r.at + first * r.ld, r.ld};
}

static bool is_whole(const struct tensor *q, const struct tensor *k, const struct tensor *v,
                     int64_t sequences, int heads, int kv_heads, int64_t hd) {
    return sequences > 0 && heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && hd > 0 &&
           hd <= MOST * CUDA_WARP && q->shape[0] % sequences == 0 && k->shape[0] % sequences == 0 &&
           cuda_is_f32(q, q->shape[0], heads * hd) && cuda_is_f32(k, k->shape[0], kv_heads * hd) &&
           cuda_is_f32(v, k->shape[0], kv_heads * hd);
}

static int64_t units(int64_t rows, int heads) {
    return cuda_blocks(rows * heads, WARPS);
}

int cuda_attention_f32(struct device *d, const struct op_attention_args *a, struct err *e) {
    int64_t sq = a->q.shape[0] / a->sequences, sk = a->k.shape[0] / a->sequences;
    CUDA_REQUIRE(is_whole(&a->q, &a->k, &a->v, a->sequences, a->heads, a->kv_heads, a->head_dim));
    CUDA_REQUIRE(cuda_is_f32(&a->o, a->q.shape[0], a->q.shape[1]) &&
                 cuda_is_vector(&a->lse, a->q.shape[0] * a->heads));
    const struct mask_view *view = NULL;
    int rc = attention_views(cuda_of(d), a->mask, a->masks, (int)a->sequences, &view, e);
    for (int64_t b = 0; !rc && b < a->sequences; b++) {
        f32_task t = {};
        t.q = in_rows(&a->q, b * sq), t.k = in_rows(&a->k, b * sk), t.v = in_rows(&a->v, b * sk);
        t.out = out_rows(&a->o, b * sq);
        t.lse = tensor_f32(&a->lse) + b * sq * a->heads;
        t.queries = (int)sq, t.keys = (int)sk, t.heads = a->heads, t.kv_heads = a->kv_heads,
        t.head_dim = a->head_dim;
        t.view = view + b;
        rc = CUDA_RUN(d, f32_forward, units(sq, a->heads), CUDA_THREADS, 0, t);
    }
    return rc;
}

int cuda_attention_backward_f32(struct device *d, const struct op_attention_backward_args *a, struct err *e) {
    int64_t sq = a->q.shape[0] / a->sequences, sk = a->k.shape[0] / a->sequences;
    CUDA_REQUIRE(is_whole(&a->q, &a->k, &a->v, a->sequences, a->heads, a->kv_heads, a->head_dim));
    CUDA_REQUIRE(is_whole(&a->d_o, &a->dk, &a->dv, a->sequences, a->heads, a->kv_heads, a->head_dim));
    CUDA_REQUIRE(is_whole(&a->o, &a->k, &a->v, a->sequences, a->heads, a->kv_heads, a->head_dim));
    CUDA_REQUIRE(is_whole(&a->dq, &a->k, &a->v, a->sequences, a->heads, a->kv_heads, a->head_dim));
    CUDA_REQUIRE(cuda_is_vector(&a->lse, a->q.shape[0] * a->heads));
    const struct mask_view *view = NULL;
    int rc = attention_views(cuda_of(d), a->mask, a->masks, (int)a->sequences, &view, e);
    for (int64_t b = 0; !rc && b < a->sequences; b++) {
        f32_task t = {};
        t.q = in_rows(&a->q, b * sq), t.k = in_rows(&a->k, b * sk), t.v = in_rows(&a->v, b * sk);
        t.o = in_rows(&a->o, b * sq), t.d_o = in_rows(&a->d_o, b * sq);
        t.dq = out_rows(&a->dq, b * sq), t.dk = out_rows(&a->dk, b * sk), t.dv = out_rows(&a->dv, b * sk);
        t.lse = tensor_f32(&a->lse) + b * sq * a->heads;
        t.queries = (int)sq, t.keys = (int)sk, t.heads = a->heads, t.kv_heads = a->kv_heads,
        t.head_dim = a->head_dim;
        t.view = view + b;
        rc = CUDA_RUN(d, f32_queries, units(sq, a->heads), CUDA_THREADS, 0, t);
        if (!rc) rc = CUDA_RUN(d, f32_keys, units(sk, a->kv_heads), CUDA_THREADS, 0, t);
    }
    return rc;
}
