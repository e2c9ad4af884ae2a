// SPDX-License-Identifier: Apache-2.0
// Kernels that do something wrong when they are told to, and one that computes with everything.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "tests/ptx/test_ptx.h"

enum { THREADS = 256, BLOCKS = 2 };

// ---- numbers

static __global__ void compute(const int64_t *in, int64_t *out) {
    int64_t a = in[threadIdx.x], b = in[(threadIdx.x + 1) % THREADS];
    int x = (int)a, y = (int)b;
    unsigned u = (unsigned)a, v = (unsigned)b;
    float f = __int_as_float((x & 0x3fffffff) | 0x20000000), g = (float)y;
    double d = (double)a, e = (double)f;
    int64_t *o = out + threadIdx.x * PTX_TEST_RESULTS;
    *o++ = a / (b | 1), *o++ = a % (b | 1), *o++ = x / (y | 1), *o++ = x % (y | 1);
    *o++ = u / (v | 1), *o++ = u % (v | 1), *o++ = (int64_t)((uint64_t)a / (uint64_t)(b | 1));
    *o++ = a * b, *o++ = (int64_t)x * y, *o++ = (int64_t)__umulhi(u, v);
    *o++ = (int64_t)__umul64hi((uint64_t)a, (uint64_t)b);
    *o++ = a << (y & 63), *o++ = a >> (y & 63), *o++ = u >> (v & 31), *o++ = x >> (v & 31);
    *o++ = __clz(x), *o++ = __popc(u), *o++ = x < y ? a : b, *o++ = u < v ? a : b;
    *o++ = min(a, b), *o++ = max(x, y), *o++ = (int8_t)x, *o++ = (uint16_t)y;
    *o++ = __float_as_int(__fadd_rn(f, g)), *o++ = __float_as_int(__fmul_rn(f, g));
    *o++ = __float_as_int(fmaf(f, g, f)), *o++ = __float_as_int(__fdiv_rn(f, g + 0.5f));
    *o++ = __float_as_int(__fsqrt_rn(f)), *o++ = __float_as_int((float)a), *o++ = (int)(g * 0.5f);
    *o++ = (int64_t)(f * 1e3f), *o++ = f < g, *o++ = !(f >= g), *o++ = (int64_t)(d > e);
    *o++ = __bfloat16_as_ushort(__float2bfloat16(f)), *o++ = __float_as_int(floorf(g * 0.3f));
    *o++ = (int64_t)__dadd_rn(d * 0.25, e), *o++ = (int64_t)(__dmul_rn(d, 0.5)), *o++ = (int64_t)sqrt(e);
    *o++ = __shfl_xor_sync(0xffffffffu, x, 5), *o++ = __shfl_sync(0xffffffffu, y, 3);
    *o++ = __any_sync(0xffffffffu, x > y);
}

int ptx_test_compute(const int64_t *in, int64_t *out) {
    int64_t *at = NULL, *to = NULL;
    size_t n = THREADS * sizeof *at;
    cudaMalloc((void **)&at, n);
    cudaMalloc((void **)&to, n * PTX_TEST_RESULTS);
    cudaMemcpy(at, in, n, cudaMemcpyHostToDevice);
    cudaMemset(to, 0, n * PTX_TEST_RESULTS);
    cudaError_t rc = LAUNCH(compute, dim3(1), dim3(THREADS), 0, (cudaStream_t)NULL, at, to);
    cudaMemcpy(out, to, n * PTX_TEST_RESULTS, cudaMemcpyDeviceToHost);
    cudaFree(at);
    cudaFree(to);
    return (int)rc;
}

// ---- faults

static __global__ void neighbours(float *x, bool wrong) {
    __shared__ float s[THREADS];
    s[threadIdx.x] = 0;
    __syncthreads();
    s[threadIdx.x] = x[threadIdx.x];
    if (!wrong) __syncthreads();
    x[threadIdx.x] = s[(threadIdx.x + 64) % THREADS];
}
static __global__ void twice_used(float *x, bool wrong) {
    __shared__ float s[THREADS];
    for (int i = 0; i < 2; i++) {
        s[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] = s[(threadIdx.x + 64) % THREADS];
        if (!wrong) __syncthreads();
    }
}
static __global__ void lanes(float *x, bool wrong) {
    __shared__ float s[THREADS];
    s[threadIdx.x] = 0;
    __syncthreads();
    s[threadIdx.x] = x[threadIdx.x];
    if (!wrong) __syncwarp();
    x[threadIdx.x] = s[threadIdx.x ^ 1];
}
static __global__ void unwritten_shared(float *x, bool wrong) {
    __shared__ float s[THREADS];
    if (!wrong || threadIdx.x != 9) s[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = s[(threadIdx.x + 1) % THREADS];
}
static __global__ void blocks_meet(float *x, bool wrong) {
    if (threadIdx.x == 0) x[wrong ? 0 : blockIdx.x] = 1;
}
static __global__ void flagged(float *x, uint32_t *flag, bool wrong) {
    if (threadIdx.x != 0) return;
    if (!wrong) flag_wait(flag, blockIdx.x);
    x[0] = blockIdx.x > 0 ? x[0] + 1 : 1;
    flag_add(flag, 1);
}
static __global__ void beyond_memory(float *x, bool wrong) {
    x[threadIdx.x + (wrong && threadIdx.x == THREADS - 1)] = 1;
}
static __global__ void unwritten_memory(float *x, const float *y, bool wrong) {
    x[threadIdx.x] = wrong ? y[threadIdx.x] : 1;
}
static __global__ void crooked(float *x, bool wrong) {
    if (threadIdx.x == 0) *(float4 *)(x + wrong) = make_float4(1, 2, 3, 4);
}
static __global__ void copies(float *x, bool wrong) {
    __shared__ __align__(16) float s[THREADS * 4];
    cp_async16(shared_address(s + 4 * threadIdx.x), x + 4 * threadIdx.x, true);
    cp_async_commit();
    if (!wrong) cp_async_wait<0>();
    __syncthreads();
    x[4 * threadIdx.x] = s[(4 * threadIdx.x + 128) % (4 * THREADS)];
}
static __global__ void sent(float *x, bool wrong) {
    __shared__ __align__(128) float s[THREADS];
    s[threadIdx.x] = 1;
    fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        bulk_store(x, shared_address(s), THREADS * 4);
        bulk_commit();
        if (!wrong) bulk_wait_read<0>();
    }
    __syncthreads();
    s[threadIdx.x] = 2;
    if (threadIdx.x == 0) bulk_wait<0>();
}
static __global__ void unfenced(float *x, bool wrong) {
    __shared__ __align__(128) float s[THREADS];
    s[threadIdx.x] = 1;
    if (!wrong || threadIdx.x != 17) fence_async();
    __syncthreads();
    if (threadIdx.x != 0) return;
    bulk_store(x, shared_address(s), THREADS * 4);
    bulk_commit();
    bulk_wait<0>();
}
static __global__ void received(float *x, bool wrong) {
    __shared__ __align__(128) float s[THREADS];
    __shared__ __align__(8) uint64_t bar;
    if (threadIdx.x == 0) {
        mbar_init(shared_address(&bar), 1);
        mbar_init_done();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbar_expect(shared_address(&bar), THREADS * 4);
        bulk_load(shared_address(s), x, THREADS * 4, shared_address(&bar));
    }
    if (!wrong || threadIdx.x != 100) mbar_wait(shared_address(&bar), 0);
    x[THREADS + threadIdx.x] = s[threadIdx.x];
}

// The first block of a pair tells the second a word, twice to the same place; in between it hears that the
// first was read.
static __device__ void pair_begins(uint64_t *told, uint64_t *heard) {
    if (threadIdx.x == 0) {
        mbar_init(shared_address(told), 1);
        mbar_init(shared_address(heard), 1);
        mbar_init_done();
    }
    cluster_sync();
}
static __device__ void tell(const int *word, const uint64_t *told, int value) {
    cluster_tell(cluster_address(shared_address(word), 1), (uint32_t)value,
                 cluster_address(shared_address(told), 1));
}
static __global__ void told(float *x, bool wrong) {
    __shared__ int word;
    __shared__ uint64_t told, heard;
    pair_begins(&told, &heard);
    if (cluster_rank() == 0) {
        if (threadIdx.x == 0) tell(&word, &told, 7);
    } else {
        if (threadIdx.x == 0) mbar_expect(shared_address(&told), 4);
        if (!wrong || threadIdx.x != 100) mbar_wait(shared_address(&told), 0);
        x[threadIdx.x] = (float)word;
    }
    cluster_sync();
}
static __global__ void told_again(float *x, bool wrong) {
    __shared__ int word;
    __shared__ uint64_t told, heard;
    pair_begins(&told, &heard);
    if (threadIdx.x == 0) {
        for (uint32_t i = 0; i < 2; i++) {
            if (cluster_rank() == 0) {
                if (i > 0 && !wrong) mbar_wait(shared_address(&heard), 0);
                tell(&word, &told, 7);
            } else {
                mbar_expect(shared_address(&told), 4);
                mbar_wait(shared_address(&told), i);
                x[i] = (float)*(volatile int *)&word;
                cluster_arrive(cluster_address(shared_address(&heard), 0));
            }
        }
    }
    cluster_sync();
}
static __global__ void left_early(float *x, bool wrong) {
    __shared__ uint64_t told, heard;
    pair_begins(&told, &heard);
    if (cluster_rank() == 0) {
        x[threadIdx.x] = 1;
        __syncthreads();
        __syncthreads();
        if (threadIdx.x == 0) cluster_arrive(cluster_address(shared_address(&told), 1));
    }
    if (!wrong) cluster_sync();
}

int ptx_test_fault(int which, int wrong) {
    float *x = NULL, *y = NULL;
    uint32_t *flag = NULL;
    size_t n = 4 * THREADS * sizeof *x;
    bool one = which != 4 && which != 5; // a block, or as many as there are
    cudaMalloc((void **)&x, which == 6 ? n / 4 : n);
    cudaMalloc((void **)&y, n);
    cudaMalloc((void **)&flag, sizeof *flag);
    cudaMemset(x, 0, which == 6 ? n / 4 : n);
    cudaMemset(flag, 0, sizeof *flag);
    dim3 grid(one ? 1 : BLOCKS), block(THREADS);
    bool w = wrong;
    cudaStream_t s = NULL;
    cudaError_t rc = cudaErrorInvalidValue;
    switch (which) {
    case 0: rc = LAUNCH(neighbours, grid, block, 0, s, x, w); break;
    case 1: rc = LAUNCH(twice_used, grid, block, 0, s, x, w); break;
    case 2: rc = LAUNCH(lanes, grid, block, 0, s, x, w); break;
    case 3: rc = LAUNCH(unwritten_shared, grid, block, 0, s, x, w); break;
    case 4: rc = LAUNCH(blocks_meet, grid, block, 0, s, x, w); break;
    case 5: rc = LAUNCH(flagged, grid, block, 0, s, x, flag, w); break;
    case 6: rc = LAUNCH(beyond_memory, grid, block, 0, s, x, w); break;
    case 7: rc = LAUNCH(unwritten_memory, grid, block, 0, s, x, (const float *)y, w); break;
    case 8: rc = LAUNCH(crooked, grid, block, 0, s, x, w); break;
    case 9: rc = LAUNCH(copies, grid, block, 0, s, x, w); break;
    case 10: rc = LAUNCH(sent, grid, block, 0, s, x, w); break;
    case 11: rc = LAUNCH(unfenced, grid, block, 0, s, x, w); break;
    case 12: rc = LAUNCH(received, grid, block, 0, s, x, w); break;
    case 13: rc = launch_pairs(told, dim3(2), block, 0, s, x, w); break;
    case 14: rc = launch_pairs(told_again, dim3(2), block, 0, s, x, w); break;
    case 15: rc = launch_pairs(left_early, dim3(2), block, 0, s, x, w); break;
    default: break;
    }
    cudaFree(x);
    cudaFree(y);
    cudaFree(flag);
    return (int)rc;
}

#ifndef __CUDACC__
#include "tests/ptx/machine.h"
void ptx_test_use(const char *folder) {
    ptx_use(folder);
}
#endif
