// SPDX-License-Identifier: Apache-2.0
// What the files of this folder share: the CUDA device behind kernels/device.h and the entry points of the
// ops. C++ and CUDA only; nobody outside this folder includes it. The .cu files wrap C headers in extern "C".
#ifndef ORRERY_KERNELS_CUDA_CUDA_H
#define ORRERY_KERNELS_CUDA_CUDA_H

#include <cuda_runtime.h>

extern "C" {
#include "base/err.h"
#include "kernels/cuda/sizes.h"
#include "kernels/device.h"
#include "kernels/ops.h"
}

struct attention_cache; // tile schedules on the device, attention_schedules.cu's
struct gemm_cache;      // cuBLASLt's handle, workspace and chosen algorithms, gemm.cu's

// Pinned host memory that copies go through, in halves: one fills while the other's copy runs.
enum { CUDA_HALVES = 2 };
struct cuda_pinned {
    char *host;
    cudaEvent_t free[CUDA_HALVES]; // the last copy out of that half has ended
    int half;
    size_t used; // of the half at hand
};

// Attention's forward of sm_90a: whether pairs of blocks share what they fetch; the results are the same.
// Asked for by ORRERY_ATTENTION_PAIRS=always|never.
enum attention_pairs { ATTENTION_PAIRS_WHERE_THEY_PAY, ATTENTION_PAIRS_ALWAYS, ATTENTION_PAIRS_NEVER };
int attention_pairs_asked(enum attention_pairs *out, struct err *e) ERR_CHECK;

struct cuda_device {
    struct device base; // first
    cudaStream_t stream;
    int compute;         // 90: compute capability 9.0
    int multiprocessors; // of the GPU
    int number;          // of the GPU among those that this process sees
    enum device_precision precision;
    bool recording;                    // between graphs->begin and end
    struct attention_cache *attention; // NULL until the first attention
    bool attention_free_order;         // backward may add to dq in any order (sm_90a); false: fixed order
    enum attention_pairs attention_pairs;
    struct gemm_cache *gemm; // NULL until the first product
    void *scratch;
    size_t scratch_bytes;
    struct cuda_pinned stage; // of copy_in and copy_out
};

static inline struct cuda_device *cuda_of(struct device *d) {
    return (struct cuda_device *)d;
}

// 0, or DEVICE with `what` (the op's or call's name) and the runtime's own words.
int cuda_check(cudaError_t rc, const char *what, struct err *e) ERR_CHECK;
// The device's scratch block, 256-byte aligned, grown as needed; valid until the next call that asks for it.
// Ops run in order on one stream, so each may use all of it.
int cuda_scratch(struct device *d, void **out, size_t bytes, struct err *e) ERR_CHECK;
// Into the device's stream, through its pinned memory; src may be used again when it returns. Not while
// something is recorded.
int cuda_upload(struct device *d, void *to, const void *src, size_t bytes, struct err *e) ERR_CHECK;

extern "C" {
#define OP(name, doc) int cuda_##name(struct device *d, const struct op_##name##_args *a, struct err *e);
#include "kernels/ops.def"
#undef OP
int cuda_attention_f32(struct device *d, const struct op_attention_args *a, struct err *e);
int cuda_attention_backward_f32(struct device *d, const struct op_attention_backward_args *a, struct err *e);
void cuda_attention_close(struct device *d); // frees the schedules; NULL-safe
int cuda_open(struct device **out, const struct device_gpu_options *o, struct err *e);
}
void cuda_gemm_close(struct cuda_device *c); // NULL-safe

#endif
