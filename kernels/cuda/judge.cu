// SPDX-License-Identifier: Apache-2.0
// The verdict on a step, where the update will read it: no host in between. One block: its threads fetch the
// numbers, and each adds them all in the tables' order, so the norm has the CPU's bits. Bytes: nothing to
// speak of; time: one launch.
#include "kernels/cuda/kernel.cuh"

struct judge_task {
    const double *told, *frames, *weight;
    const int32_t *at;
    int squares, counts, senses, shards;
    double clip, spike;
    struct op_update *update;
    struct op_verdict *verdict;
};

// By the whole block; `part` is shared memory.
static __device__ double ordered_sum(const double *told, const int32_t *at, int n, double *part) {
    double sum = 0;
    for (int first = 0; first < n; first += CUDA_THREADS) {
        int i = first + (int)threadIdx.x, count = n - first < CUDA_THREADS ? n - first : CUDA_THREADS;
        __syncthreads();
        if (i < n) part[threadIdx.x] = told[at[i]];
        __syncthreads();
        for (int k = 0; k < count; k++) sum += part[k];
    }
    return sum;
}

static __device__ int64_t count_of(const double *told, const int32_t *at, int n) {
    int64_t sum = 0;
    for (int i = 0; i < n; i++) sum += *(const int64_t *)(told + at[i]);
    return sum;
}

static __global__ void judge_kernel(judge_task t) {
    __shared__ double part[CUDA_THREADS];
    const int32_t *losses = t.at + t.squares + t.counts;
    double norm = sqrt(ordered_sum(t.told, t.at, t.squares, part)), loss = 0;
    for (int i = 0; i < t.senses; i++) {
        double sum = ordered_sum(t.told, losses + i * t.shards, t.shards, part);
        if (t.frames[i] > 0) loss += t.weight[i] * (sum / t.frames[i]);
    }
    if (threadIdx.x != 0) return;
    int64_t bad = count_of(t.told, t.at + t.squares, t.counts);
    bool sound = bad == 0 && norm - norm == 0 && loss - loss == 0; // NaN and Inf are not
    bool skip = !sound || (t.spike > 0 && norm > t.spike);
    *t.verdict = op_verdict{norm, bad, skip};
    t.update->grad_scale = t.clip > 0 && norm > t.clip ? (float)(t.clip / (norm + 1e-6)) : 1.0f;
    t.update->skip = skip;
}

int cuda_judge(struct device *d, const struct op_judge_args *a, struct err *e) {
    CUDA_REQUIRE(a->told != NULL && a->at != NULL && a->update != NULL && a->verdict != NULL);
    CUDA_REQUIRE(a->senses == 0 || (a->frames != NULL && a->weight != NULL));
    judge_task t = {a->told,   a->frames, a->weight, a->at,    a->squares, a->counts,
                    a->senses, a->shards, a->clip,   a->spike, a->update,  a->verdict};
    return CUDA_RUN(d, judge_kernel, 1, CUDA_THREADS, 0, t);
}
