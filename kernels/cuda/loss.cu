// SPDX-License-Identifier: Apache-2.0
// Per active frame of E elements: l = w(tau) mean (p - x)^2, dp = scale w 2 (p - x) / E. A block owns a chunk
// of a frame (a picture has a hundred thousand elements and a step few pictures, fewer than a GPU has
// multiprocessors); its threads add in fp32 and then in a fixed tree in double; one block adds the chunks in
// a fixed order. pred and target are fp32, the gradient T. Bytes per element (bf16): 8 + 2.
#include "kernels/cuda/kernel.cuh"

// A frame's elements in packs, in the order of pred: token after token, line after line of its patch.
struct loss_shape {
    int64_t tau_stride;
    int weighting, tokens, elems, chunks;
    int patch, across_elems, line_elems; // of a picture's row, of a patch's
    uint32_t packs;                      // of a frame
    divider chunk, token, line, across;  // a chunk's number, a token's packs, a line's packs, tokens in a row
};

__device__ __forceinline__ float loss_weight(int weighting, float tau) {
    if (weighting == 1) return 0.9f * tau + 0.1f;
    if (weighting == 0) return 1.0f;
    float rest = fmaxf(1.0f - tau, 0.05f);
    return 1.0f / (rest * rest);
}

// Element (of target's frame) that pack `at` of a token begins with.
template <int V> __device__ __forceinline__ int target_at(const loss_shape &s, uint32_t token, uint32_t at) {
    uint32_t down = s.across.of(token), right = token - down * s.across.by, y = s.line.of(at);
    return (int)(down * s.patch + y) * s.across_elems + (int)right * s.line_elems +
           (int)(at - y * s.line.by) * V;
}

template <class T, int V>
static __global__ void loss_kernel(rows_of<const float> pred, rows_of<const float> target, const float *tau,
                                   const float *active, const float *scale, rows_of<T> dpred, double *part,
                                   const __grid_constant__ loss_shape s) {
    __shared__ double sums[CUDA_THREADS / CUDA_WARP];
    uint32_t frame = s.chunk.of(blockIdx.x), chunk = blockIdx.x - frame * s.chunk.by;
    bool on = active[frame] != 0;
    float w = loss_weight(s.weighting, tau[frame * s.tau_stride]),
          slope = on ? *scale * w * 2.0f / (float)s.elems : 0.0f, sum = 0;
#pragma unroll 4
    for (int k = 0; k < GPU_LOSS_ELEMS / V / CUDA_THREADS; k++) {
        uint32_t i = chunk * (GPU_LOSS_ELEMS / V) + (uint32_t)k * CUDA_THREADS + threadIdx.x;
        if (i >= s.packs) break;
        uint32_t token = s.token.of(i), at = i - token * s.token.by;
        int64_t row = (int64_t)frame * s.tokens + token;
        float p[V] = {}, x[V] = {};
        if (on) {
            load_pack<V>(pred.row(row) + at * V, p);
            load_pack<V>(target.row(frame) + target_at<V>(s, token, at), x);
        }
#pragma unroll
        for (int j = 0; j < V; j++) {
            p[j] -= x[j];
            sum = fmaf(p[j], p[j], sum);
            p[j] *= slope;
        }
        if (dpred.at) store_pack<V>(dpred.row(row) + at * V, p);
    }
    double total = block_sum((double)sum, sums);
    if (threadIdx.x == 0) part[blockIdx.x] = on ? (double)w * total / (double)s.elems : 0.0;
}

static __global__ void loss_end_kernel(const double *part, int64_t n, double *to) {
    __shared__ double sums[CUDA_THREADS / CUDA_WARP];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += CUDA_THREADS) sum += part[i];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) *to += sum;
}

static loss_shape loss_shape_of(const struct op_loss_args *a, int v) {
    const struct patch_grid *g = &a->grid;
    int across = g->width / g->patch, line = g->patch * g->channels;
    loss_shape s = {a->tau_stride, a->weighting, g->height / g->patch * across,
                    g->height * g->width * g->channels};
    s.chunks = (int)cuda_blocks(s.elems, GPU_LOSS_ELEMS);
    s.patch = g->patch;
    s.across_elems = g->width * g->channels;
    s.line_elems = line;
    s.packs = (uint32_t)(s.elems / v);
    s.chunk = divide_by(s.chunks);
    s.token = divide_by(g->patch * line / v);
    s.line = divide_by(line / v);
    s.across = divide_by(across);
    return s;
}

template <class T, int V>
static int run_loss(struct device *d, const struct op_loss_args *a, double *part, struct err *e) {
    loss_shape s = loss_shape_of(a, V);
    rows_of<T> dpred = a->dpred.data ? cuda_rows<T>(&a->dpred) : rows_of<T>{NULL, 0};
    int64_t blocks = a->target.shape[0] * s.chunks;
    CUDA_REQUIRE(cuda_is_few(blocks));
    int rc = CUDA_RUN(d, (loss_kernel<T, V>), blocks, CUDA_THREADS, 0, cuda_rows<const float>(&a->pred),
                      cuda_rows<const float>(&a->target), (const float *)a->tau.data, a->active, a->scale,
                      dpred, part, s);
    if (rc) return rc;
    return CUDA_RUN(d, loss_end_kernel, 1, CUDA_THREADS, 0, (const double *)part, blocks, a->loss_sum);
}

int cuda_loss(struct device *d, const struct op_loss_args *a, struct err *e) {
    const struct patch_grid *g = &a->grid;
    int64_t frames = a->target.shape[0], elems = (int64_t)g->height * g->width * g->channels;
    CUDA_REQUIRE(g->patch > 0 && g->channels > 0 && g->height % g->patch == 0 && g->width % g->patch == 0);
    int64_t n = (int64_t)(g->height / g->patch) * (g->width / g->patch),
            value = (int64_t)g->patch * g->patch * g->channels;
    CUDA_REQUIRE(elems < INT32_MAX && cuda_is_f32(&a->target, frames, elems) &&
                 cuda_is_f32(&a->pred, frames * n, value));
    CUDA_REQUIRE(a->dpred.data == NULL || cuda_is_rows(&a->dpred, frames * n, value));
    CUDA_REQUIRE(a->active != NULL && a->scale != NULL && a->tau.data != NULL && a->loss_sum != NULL);
    CUDA_REQUIRE(a->weighting >= 0 && a->weighting <= 2);
    if (frames == 0) return 0;
    void *scratch = NULL;
    int rc = cuda_scratch(d, &scratch, gpu_loss_bytes(frames, elems), e);
    if (rc) return rc;
    bool wide = cuda_is_wide(&a->pred, &a->target, &a->dpred) && g->patch * g->channels % CUDA_PACK == 0;
    auto run = CUDA_TYPED(a->dpred.data ? a->dpred.dtype : DTYPE_F32, wide, run_loss);
    return run(d, a, (double *)scratch, e);
}
