// SPDX-License-Identifier: Apache-2.0
// The host side of CUDA for the emulator, as far as kernels/cuda/device.cu needs it: one GPU, whose memory is
// the host's and whose queues are always empty, or captured into a graph. Included after simt.h.
#ifndef ORRERY_TESTS_SIMT_RUNTIME_H
#define ORRERY_TESTS_SIMT_RUNTIME_H

#include "tests/simt/simt.h"

#define CUDART_VERSION              13000
#define cudaErrorInsufficientDriver ((cudaError_t)35)
#define cudaErrorNotReady           ((cudaError_t)600)
#define cudaErrorNoDevice           ((cudaError_t)100)
#define cudaEventDisableTiming      2
#define cudaStreamNonBlocking       1

typedef struct simt_event {
    bool captured;       // when it was recorded
    cudaStream_t stream; // that it was recorded in
} * cudaEvent_t;
typedef struct simt_graph *cudaGraph_t, *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };

struct cudaUUID {
    char bytes[16];
};
struct cudaDeviceProp {
    char name[256];
    struct cudaUUID uuid;
    int major, minor, multiProcessorCount;
};

// ORRERY_SIMT_DRIVER: the CUDA version that the driver claims, 0: there is none.
static inline cudaError_t cudaDriverGetVersion(int *v) {
    const char *driver = getenv("ORRERY_SIMT_DRIVER");
    *v = driver ? (int)strtol(driver, NULL, 10) : CUDART_VERSION;
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceCount(int *n) {
    int driver;
    (void)cudaDriverGetVersion(&driver);
    *n = 1;
    return driver / 1000 < CUDART_VERSION / 1000 ? cudaErrorInsufficientDriver : cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}
// ORRERY_SIMT_COMPUTE: the compute capability that the emulator claims.
static inline cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int) {
    const char *compute = getenv("ORRERY_SIMT_COMPUTE");
    int c = compute ? (int)strtol(compute, NULL, 10) : 80;
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulator");
    memset(p->uuid.bytes, 7, sizeof p->uuid.bytes);
    p->major = c / 10;
    p->minor = c % 10;
    p->multiProcessorCount = 2;
    return cudaSuccess;
}
static inline cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *total = simt_memory_total();
    *free_bytes = simt_memory_room();
    return cudaSuccess;
}
static inline cudaError_t cudaMallocHost(void **p, size_t bytes) {
    *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *p != NULL ? cudaSuccess : cudaErrorMemoryAllocation;
}
static inline cudaError_t cudaFreeHost(void *p) {
    free(p);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned, int);
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest);
cudaError_t cudaStreamDestroy(cudaStream_t s);
// An event of a captured stream brings the stream that waits for it into the capture.
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
static inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    return cudaGraphDestroy(graph);
}

static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = (cudaEvent_t)calloc(1, sizeof **e);
    return cudaSuccess;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
    free(e);
    return cudaSuccess;
}
static inline cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    return e->captured ? cudaErrorCapturedEvent : cudaSuccess;
}
static inline cudaError_t cudaEventQuery(cudaEvent_t e) {
    return e->captured ? cudaErrorCapturedEvent : cudaSuccess;
}

static inline void sincospif(float x, float *s, float *c) {
    double a = 3.14159265358979323846 * fmod((double)x, 2.0);
    *s = (float)sin(a);
    *c = (float)cos(a);
}

#endif
