// SPDX-License-Identifier: Apache-2.0
// The emulator on small kernels whose results are known.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test_simt.h"

static __global__ void block_sums(const float *__restrict__ x, float *out, int n) {
    __shared__ float part[8];
    float v = 0;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += (int)(gridDim.x * blockDim.x))
        v += x[i];
    for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        v = 0;
        for (unsigned w = 0; w < blockDim.x / 32; w++) v += part[w];
        out[blockIdx.x] = v;
    }
}

static __global__ void reverse(const __nv_bfloat16 *x, float4 *out) {
    DYNAMIC_SHARED(bytes);
    __nv_bfloat16 *s = (__nv_bfloat16 *)bytes;
    for (int i = 0; i < 4; i++) s[4 * threadIdx.x + i] = x[4 * threadIdx.x + i];
    if (threadIdx.x >= 64) return; // a thread that left is not waited for
    __syncthreads();
    int last = 4 * 64 - 1 - 4 * (int)threadIdx.x;
    out[threadIdx.x] = make_float4(__bfloat162float(s[last]), __bfloat162float(s[last - 1]),
                                   __bfloat162float(s[last - 2]), __bfloat162float(s[last - 3]));
}

static __global__ void hang() {
    if (threadIdx.x == 3) return;
    __syncwarp();
}

static __global__ void beyond(int at) {
    DYNAMIC_SHARED(bytes);
    bytes[at] = 1;
}

static __global__ void add_one(float *x, int n) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) x[i] += 1;
}
static __global__ void twice(float *x, int n) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) x[i] *= 2;
}

struct two_streams {
    cudaStream_t first, side;
    cudaEvent_t fork, join;
};
static void open_two(struct two_streams *s) {
    cudaStreamCreateWithFlags(&s->first, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&s->side, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&s->fork, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&s->join, cudaEventDisableTiming);
}
static void close_two(struct two_streams *s) {
    cudaStreamDestroy(s->first);
    cudaStreamDestroy(s->side);
    cudaEventDestroy(s->fork);
    cudaEventDestroy(s->join);
}

int simt_test_capture(float *x, int n) {
    struct two_streams s;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    float before = x[0];
    open_two(&s);
    int rc = cudaStreamBeginCapture(s.first, cudaStreamCaptureModeRelaxed);
    if (!rc) rc = LAUNCH(add_one, dim3(1), dim3(32), 0, s.first, x, n);
    n = 0; // what was launched keeps its arguments
    cudaEventRecord(s.fork, s.first);
    cudaStreamWaitEvent(s.side, s.fork, 0);
    if (!rc) rc = LAUNCH(twice, dim3(1), dim3(32), 0, s.side, x, 2);
    cudaEventRecord(s.join, s.side);
    cudaStreamWaitEvent(s.first, s.join, 0);
    if (!rc) rc = cudaStreamEndCapture(s.first, &graph);
    if (!rc && x[0] != before) rc = -1; // it ran
    if (!rc) rc = cudaGraphInstantiate(&exec, graph, 0);
    for (int i = 0; i < 2 && !rc; i++) rc = cudaGraphLaunch(exec, s.first);
    cudaGraphDestroy(graph);
    cudaGraphExecDestroy(exec);
    close_two(&s);
    return rc;
}

int simt_test_refused(int what) {
    struct two_streams s;
    cudaGraph_t graph = NULL;
    float x[2] = {0, 0};
    open_two(&s);
    cudaStreamBeginCapture(s.first, cudaStreamCaptureModeRelaxed);
    (void)LAUNCH(add_one, dim3(1), dim3(32), 0, s.first, x, 1);
    cudaEventRecord(s.fork, s.first);
    cudaStreamWaitEvent(s.side, s.fork, 0);
    (void)LAUNCH(twice, dim3(1), dim3(32), 0, s.side, x, 1);
    cudaEventRecord(s.join, s.side);
    if (what != 3) cudaStreamWaitEvent(s.first, s.join, 0);
    if (what == 1) (void)cudaStreamSynchronize(s.first);
    if (what == 2) (void)cudaMemcpyAsync(x, x + 1, 4, cudaMemcpyHostToDevice, s.first);
    int asked = what == 4 ? cudaEventQuery(s.join) : 0;
    int rc = cudaStreamEndCapture(s.first, &graph);
    cudaGraphDestroy(graph);
    close_two(&s);
    return rc ? rc : asked;
}

int simt_test_sums(const float *x, float *out, int n, int blocks) {
    return LAUNCH(block_sums, dim3((unsigned)blocks), dim3(256), 0, (cudaStream_t)NULL, x, out, n);
}

int simt_test_reverse(const uint16_t *x, float *out) {
    return LAUNCH(reverse, dim3(1), dim3(96), 1024, (cudaStream_t)NULL, (const __nv_bfloat16 *)x,
                  (float4 *)out);
}

int simt_test_hang(void) {
    return LAUNCH(hang, dim3(1), dim3(32), 0, (cudaStream_t)NULL);
}

// What every thread stored goes out by the copy engine; thread `unfenced` forgets its fence.
static __global__ void send(float *out, int unfenced) {
    DYNAMIC_SHARED(shared);
    int i = (int)threadIdx.x;
    store_quad(shared + 16 * i, make_float4((float)i, 0, 0, 0));
    if (i != unfenced) fence_async();
    __syncthreads();
    if (i != 0) return;
    bulk_store(out, shared_address(shared), 32 * 16);
    bulk_commit();
    bulk_wait<0>();
}

int simt_test_unfenced(int thread) {
    static float out[32 * 4] __attribute__((aligned(16)));
    int rc = LAUNCH(send, dim3(1), dim3(32), 1024, (cudaStream_t)NULL, out, thread);
    return rc ? rc : out[31 * 4] != 31;
}

int simt_test_room(int bytes, int asked) {
    if (asked > 0 &&
        cudaFuncSetAttribute(beyond, cudaFuncAttributeMaxDynamicSharedMemorySize, asked) != cudaSuccess)
        return -1;
    return (int)LAUNCH(beyond, dim3(1), dim3(32), (size_t)bytes, (cudaStream_t)NULL, 0);
}

int simt_test_beyond(int at) {
    return LAUNCH(beyond, dim3(1), dim3(32), 1000, (cudaStream_t)NULL, at);
}
