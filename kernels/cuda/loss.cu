// SPDX-License-Identifier: Apache-2.0
// Per active frame of E elements: l = w(tau) mean (p - x)^2, dp = scale w 2 (p - x) / E. A block owns a
// frame, its threads add in fp32 and then in a fixed tree in double; one warp adds the frames' losses in a
// fixed tree. pred and target are fp32, the gradient T. Bytes per element (bf16): 8 + 2.
#include "kernels/cuda/kernel.cuh"

struct loss_shape {
    struct patch_grid grid;
    int64_t tau_stride;
    int weighting, tokens, across;
};

__device__ __forceinline__ float loss_weight(int weighting, float tau) {
    if (weighting == 1) return 0.9f * tau + 0.1f;
    if (weighting == 0) return 1.0f;
    float rest = fmaxf(1.0f - tau, 0.05f);
    return 1.0f / (rest * rest);
}

template <class T>
static __global__ void loss_kernel(rows_of<const float> pred, rows_of<const float> target, const float *tau,
                                   const float *active, const float *scale, rows_of<T> dpred,
                                   double *frame_loss, loss_shape s) {
    __shared__ double part[CUDA_THREADS / CUDA_WARP];
    int64_t frame = blockIdx.x;
    int value = s.grid.patch * s.grid.patch * s.grid.channels, elems = s.tokens * value;
    bool on = active[frame] != 0;
    float w = loss_weight(s.weighting, tau[frame * s.tau_stride]), slope = *scale * w * 2.0f / (float)elems,
          sum = 0;
    for (int i = (int)threadIdx.x; i < elems; i += (int)blockDim.x) {
        int token = i / value, k = i % value, line = s.grid.patch * s.grid.channels;
        int64_t row = frame * s.tokens + token;
        float diff = 0;
        if (on) {
            int64_t y = (int64_t)(token / s.across) * s.grid.patch + k / line;
            int64_t at =
                (y * s.grid.width + (int64_t)(token % s.across) * s.grid.patch) * s.grid.channels + k % line;
            diff = pred.row(row)[k] - target.row(frame)[at];
        }
        sum = fmaf(diff, diff, sum);
        if (dpred.at) put_number(dpred.row(row) + k, on ? diff * slope : 0.0f);
    }
    double total = block_sum((double)sum, part);
    if (threadIdx.x == 0) frame_loss[frame] = on ? (double)w * total / (double)elems : 0.0;
}

static __global__ void loss_end_kernel(const double *frame_loss, int64_t frames, double *to) {
    double sum = 0;
    for (int64_t f = threadIdx.x; f < frames; f += CUDA_WARP) sum += frame_loss[f];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) *to += sum;
}

template <class T>
static int run_loss(struct device *d, const struct op_loss_args *a, double *frame_loss, struct err *e) {
    const struct patch_grid *g = &a->grid;
    loss_shape s = {*g, a->tau_stride, a->weighting, (g->height / g->patch) * (g->width / g->patch),
                    g->width / g->patch};
    rows_of<T> dpred = a->dpred.data ? cuda_rows<T>(&a->dpred) : rows_of<T>{NULL, 0};
    int64_t frames = a->target.shape[0];
    int rc = CUDA_RUN(d, loss_kernel<T>, frames, CUDA_THREADS, 0, cuda_rows<const float>(&a->pred),
                      cuda_rows<const float>(&a->target), (const float *)a->tau.data, a->active, a->scale,
                      dpred, frame_loss, s);
    if (rc) return rc;
    return CUDA_RUN(d, loss_end_kernel, 1, CUDA_WARP, 0, (const double *)frame_loss, frames, a->loss_sum);
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
    int rc = cuda_scratch(d, &scratch, (size_t)frames * sizeof(double), e);
    if (rc) return rc;
    if (a->dpred.data && a->dpred.dtype == DTYPE_BF16) return run_loss<bf16>(d, a, (double *)scratch, e);
    return run_loss<float>(d, a, (double *)scratch, e);
}
