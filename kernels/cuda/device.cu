// SPDX-License-Identifier: Apache-2.0
// A GPU as a device: memory, copies through pinned memory, one stream, and every error of the runtime in
// words.
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/kernel.cuh"

// An error of a kernel sticks: every later call reports it, so the process must end, and the launcher starts
// it elsewhere (class RANK).
int cuda_check(cudaError_t rc, const char *what, struct err *e) {
    if (rc == cudaSuccess) return 0;
    if (rc == cudaErrorMemoryAllocation)
        return err_set(e, ERR_MEMORY, "%s: the GPU is out of memory; orrery plan says what takes how much",
                       what);
    return err_set(e, ERR_DEVICE, "%s: the GPU fails: %s (CUDA error %d)", what, cudaGetErrorString(rc),
                   (int)rc);
}

// ---- memory

static int gpu_alloc(struct device *d, void **out, size_t bytes, struct err *e) {
    size_t free_bytes = 0, total = 0;
    *out = NULL;
    cudaError_t rc = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (rc != cudaErrorMemoryAllocation) return cuda_check(rc, "allocation", e);
    (void)cudaGetLastError(); // not a sticky one
    (void)cudaMemGetInfo(&free_bytes, &total);
    return err_set(
        e, ERR_MEMORY,
        "the GPU has no room for %.2f GiB more: %.2f of %.2f GiB are free; lower train.batch or raise "
        "comm.shards, or see orrery plan",
        (double)bytes / (1 << 30), (double)free_bytes / (1 << 30), (double)total / (1 << 30));
}

static void gpu_release(struct device *d, void *p) {
    if (d->lost) return;
    (void)cudaStreamSynchronize(cuda_of(d)->stream);
    (void)cudaFree(p);
}

static int open_pinned(struct cuda_pinned *p, size_t bytes, struct err *e) {
    cudaError_t said = cudaMallocHost((void **)&p->host, bytes);
    int rc =
        said == cudaErrorMemoryAllocation
            ? err_set(e, ERR_MEMORY, "the host has no %zu MiB left to pin for copies to the GPU", bytes >> 20)
            : cuda_check(said, "pinned memory", e);
    for (int i = 0; !rc && i < CUDA_HALVES; i++)
        rc = cuda_check(cudaEventCreateWithFlags(&p->free[i], cudaEventDisableTiming), "cudaEventCreate", e);
    return rc;
}

static void close_pinned(struct cuda_pinned *p) {
    for (int i = 0; i < CUDA_HALVES; i++)
        if (p->free[i]) (void)cudaEventDestroy(p->free[i]);
    if (p->host) (void)cudaFreeHost(p->host);
}

// Goes on to the other half: what was queued from this one is marked, what was queued from that one is over.
static int turn_pinned(struct cuda_device *c, struct cuda_pinned *p, struct err *e) {
    int rc = cuda_check(cudaEventRecord(p->free[p->half], c->stream), "cudaEventRecord", e);
    p->half = (p->half + 1) % CUDA_HALVES;
    p->used = 0;
    return rc ? rc : cuda_check(cudaEventSynchronize(p->free[p->half]), "waiting for a copy", e);
}

// The copy would be repeated, what it copies not.
static int refuse_recording(const struct cuda_device *c, const char *what, struct err *e) {
    return c->recording ? err_set(e, ERR_BUG, "%s cannot be recorded", what) : 0;
}

int cuda_upload(struct device *d, void *dst, const void *src, size_t bytes, struct err *e) {
    struct cuda_device *c = cuda_of(d);
    struct cuda_pinned *p = &c->stage;
    const size_t half = GPU_STAGE_BYTES / CUDA_HALVES;
    int rc = refuse_recording(c, "a copy to the GPU", e);
    for (size_t done = 0; !rc && done < bytes;) {
        if (p->used == half) rc = turn_pinned(c, p, e);
        if (rc) break;
        size_t n = bytes - done < half - p->used ? bytes - done : half - p->used;
        char *from = p->host + (size_t)p->half * half + p->used;
        memcpy(from, (const char *)src + done, n);
        rc = cuda_check(cudaMemcpyAsync((char *)dst + done, from, n, cudaMemcpyHostToDevice, c->stream),
                        "copy to the GPU", e);
        p->used += n;
        done += n;
    }
    return rc;
}

// A piece into one half. What the queue still reads of that half is copied before.
static int bring(struct cuda_device *c, int half, const void *src, size_t bytes, struct err *e) {
    char *to = c->stage.host + (size_t)half * (GPU_STAGE_BYTES / CUDA_HALVES);
    int rc = cuda_check(cudaMemcpyAsync(to, src, bytes, cudaMemcpyDeviceToHost, c->stream),
                        "copy from the GPU", e);
    return rc ? rc : cuda_check(cudaEventRecord(c->stage.free[half], c->stream), "cudaEventRecord", e);
}

// Waits: the host reads what comes. While it takes one half out, the other is filled.
static int gpu_copy_out(struct device *d, void *dst, const void *src, size_t bytes, struct err *e) {
    struct cuda_device *c = cuda_of(d);
    const size_t most = GPU_STAGE_BYTES / CUDA_HALVES;
    size_t n = bytes < most ? bytes : most, begun = n;
    int half = 0, rc = refuse_recording(c, "a copy from the GPU", e);
    if (!rc && n > 0) rc = bring(c, half, src, n, e);
    for (size_t done = 0, next; !rc && done < bytes; done += n, n = next, half = 1 - half) {
        next = bytes - begun < most ? bytes - begun : most;
        if (next > 0) rc = bring(c, 1 - half, (const char *)src + begun, next, e);
        begun += next;
        if (!rc) rc = cuda_check(cudaEventSynchronize(c->stage.free[half]), "copy from the GPU", e);
        if (!rc) memcpy((char *)dst + done, c->stage.host + (size_t)half * most, n);
    }
    if (!rc && bytes > 0) c->stage.used = 0; // all that was queued before has been copied
    return rc;
}

static int gpu_zero(struct device *d, void *dst, size_t bytes, struct err *e) {
    if (bytes == 0) return 0;
    return cuda_check(cudaMemsetAsync(dst, 0, bytes, cuda_of(d)->stream), "zero", e);
}

static int gpu_copy(struct device *d, void *dst, const void *src, size_t bytes, struct err *e) {
    if (bytes == 0) return 0;
    return cuda_check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cuda_of(d)->stream), "copy",
                      e);
}

// ---- the sum of the exact reduction; the product of nothing, so no fused rounding

template <int V> static __global__ void add_kernel(float *dst, const float *a, const float *b, int64_t n) {
    for (int64_t i = thread_number() * V; i < n; i += thread_count() * V) {
        float x[V], y[V];
        load_pack<V>(a + i, x);
        load_pack<V>(b + i, y);
#pragma unroll
        for (int k = 0; k < V; k++) x[k] += y[k];
        store_pack<V>(dst + i, x);
    }
}

template <int V>
static int run_add(struct device *d, float *dst, const float *a, const float *b, int64_t n, struct err *e) {
    return CUDA_RUN(d, add_kernel<V>, cuda_grid(n / V, CUDA_THREADS), CUDA_THREADS, 0, dst, a, b, n);
}

static int gpu_add(struct device *d, float *dst, const float *a, const float *b, int64_t n, struct err *e) {
    if (n <= 0) return 0;
    bool wide = ((uintptr_t)dst | (uintptr_t)a | (uintptr_t)b) % 16 == 0 && n % CUDA_PACK == 0;
    return wide ? run_add<CUDA_PACK>(d, dst, a, b, n, e) : run_add<1>(d, dst, a, b, n, e);
}

static int gpu_sync(struct device *d, struct err *e) {
    return cuda_check(cudaStreamSynchronize(cuda_of(d)->stream), "the queued work", e);
}

static void gpu_describe(const struct device *d, struct device_info *out) {
    const struct cuda_device *c = (const struct cuda_device *)d;
    cudaDeviceProp prop;
    size_t free_bytes = 0, total = 0;
    memset(&prop, 0, sizeof prop);
    (void)cudaGetDeviceProperties(&prop, c->number);
    (void)cudaMemGetInfo(&free_bytes, &total);
    static const char *const words[] = {"bf16", "fp32", "tf32"};
    snprintf(out->model, sizeof out->model, "%.80s (sm_%d, %d multiprocessors), %s", prop.name, c->compute,
             c->multiprocessors, words[c->precision]);
    out->threads = 0;
    out->compute = c->compute;
    out->memory_bytes = (int64_t)total;
    out->free_bytes = (int64_t)free_bytes;
}

static void gpu_close(struct device *d) {
    struct cuda_device *c = cuda_of(d);
    if (d->lost) return;
    if (c->stream) (void)cudaStreamSynchronize(c->stream);
    cuda_attention_close(d);
    cuda_gemm_close(c);
    close_pinned(&c->stage);
    if (c->scratch) (void)cudaFree(c->scratch);
    if (c->stream) (void)cudaStreamDestroy(c->stream);
    free(c);
}

// ---- what ops need

int cuda_scratch(struct device *d, void **out, size_t bytes, struct err *e) {
    struct cuda_device *c = cuda_of(d);
    if (bytes > c->scratch_bytes) {
        int rc = cuda_check(cudaStreamSynchronize(c->stream), "the queued work", e);
        if (c->scratch) (void)cudaFree(c->scratch);
        c->base.generation++;
        c->scratch = NULL;
        c->scratch_bytes = 0;
        if (!rc) rc = gpu_alloc(d, &c->scratch, bytes, e);
        if (rc) return rc;
        c->scratch_bytes = bytes;
    }
    *out = c->scratch;
    return 0;
}

// ---- queues of the collectives

// Before the kernels' queue: a collective takes a few multiprocessors, and would else get none before the
// end of an attention that fills all of them.
static int queue_open(struct device *d, void **queue, struct err *e) {
    int least = 0, greatest = 0;
    int rc = cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "priorities of streams", e);
    return rc ? rc
              : cuda_check(
                    cudaStreamCreateWithPriority((cudaStream_t *)queue, cudaStreamNonBlocking, greatest),
                    "cudaStreamCreate", e);
}
static void queue_close(struct device *d, void *queue) {
    if (queue) (void)cudaStreamDestroy((cudaStream_t)queue);
}
static int queue_mark(struct device *d, void *queue, void **mark, struct err *e) {
    cudaEvent_t event = NULL;
    cudaStream_t stream = queue ? (cudaStream_t)queue : cuda_of(d)->stream;
    int rc = cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate", e);
    if (!rc) rc = cuda_check(cudaEventRecord(event, stream), "cudaEventRecord", e);
    if (rc && event) (void)cudaEventDestroy(event);
    if (!rc) *mark = event;
    return rc;
}
static int queue_follow(struct device *d, void *queue, struct err *e) {
    void *mark = NULL;
    int rc = queue_mark(d, NULL, &mark, e);
    if (rc) return rc;
    rc = cuda_check(cudaStreamWaitEvent((cudaStream_t)queue, (cudaEvent_t)mark, 0), "cudaStreamWaitEvent", e);
    (void)cudaEventDestroy((cudaEvent_t)mark);
    return rc;
}
static int queue_join(struct device *d, void *mark, struct err *e) {
    return cuda_check(cudaStreamWaitEvent(cuda_of(d)->stream, (cudaEvent_t)mark, 0), "cudaStreamWaitEvent",
                      e);
}
static int queue_reached(struct device *d, void *mark, bool *yes, struct err *e) {
    cudaError_t rc = cudaEventQuery((cudaEvent_t)mark);
    *yes = rc == cudaSuccess;
    return rc == cudaErrorNotReady ? 0 : cuda_check(rc, "a collective", e);
}
static void queue_unmark(struct device *d, void *mark) {
    if (mark) (void)cudaEventDestroy((cudaEvent_t)mark);
}

static const struct device_queues gpu_queues = {
    queue_open, queue_close, queue_follow, queue_join, queue_mark, queue_reached, queue_unmark,
};

// ---- recorded work

// Relaxed: NCCL puts its operations into the queue from a thread of its own.
static int graph_begin(struct device *d, struct err *e) {
    struct cuda_device *c = cuda_of(d);
    int rc = cuda_check(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed), "recording", e);
    c->recording = !rc;
    return rc;
}
static int graph_end(struct device *d, void **graph, struct err *e) {
    struct cuda_device *c = cuda_of(d);
    cudaGraph_t recorded = NULL;
    cudaGraphExec_t exec = NULL;
    c->recording = false;
    int rc = cuda_check(cudaStreamEndCapture(c->stream, &recorded), "the end of a recording", e);
    if (!rc) rc = cuda_check(cudaGraphInstantiate(&exec, recorded, 0), "cudaGraphInstantiate", e);
    if (recorded) (void)cudaGraphDestroy(recorded);
    if (!rc) *graph = exec;
    return rc;
}
static int graph_launch(struct device *d, void *graph, struct err *e) {
    return cuda_check(cudaGraphLaunch((cudaGraphExec_t)graph, cuda_of(d)->stream), "cudaGraphLaunch", e);
}
static void graph_release(struct device *d, void *graph) {
    if (graph && !d->lost) (void)cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

static const struct device_graphs gpu_graphs = {graph_begin, graph_end, graph_launch, graph_release};

// ---- ranges: a call through an empty pointer where no profiler has put itself behind NVTX

static void range_push(const char *name, int64_t number) {
    nvtxEventAttributes_t a = {};
    a.version = NVTX_VERSION;
    a.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    a.messageType = NVTX_MESSAGE_TYPE_ASCII;
    a.message.ascii = name;
    if (number >= 0) a.payloadType = NVTX_PAYLOAD_TYPE_INT64;
    a.payload.llValue = number;
    (void)nvtxRangePushEx(&a);
}
static void range_pop(void) {
    (void)nvtxRangePop();
}

static const struct device_ranges gpu_ranges = {range_push, range_pop};

// ---- opening

static const struct device_vtable gpu_vtable = {
    "cuda",  gpu_alloc, gpu_release,  cuda_upload, gpu_copy_out, gpu_zero,    gpu_copy,
    gpu_add, gpu_sync,  gpu_describe, gpu_close,   &gpu_queues,  &gpu_graphs, &gpu_ranges,
};

#define OP(name, doc) cuda_##name,
static const struct ops gpu_ops = {
#include "kernels/ops.def"
};
// The fast attention is bf16's; in fp32 another one stands in its place.
#define cuda_attention          cuda_attention_f32
#define cuda_attention_backward cuda_attention_backward_f32
static const struct ops gpu_ops_f32 = {
#include "kernels/ops.def"
};
#undef cuda_attention
#undef cuda_attention_backward
#undef OP

static uint64_t identity_of(const cudaDeviceProp *p) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof p->uuid.bytes; i++)
        h = (h ^ (unsigned char)p->uuid.bytes[i]) * 1099511628211u;
    return h ? h : 1;
}

static int count_gpus(int *count, struct err *e) {
    int driver = 0;
    cudaError_t rc = cudaGetDeviceCount(count);
    (void)cudaDriverGetVersion(&driver);
    if (rc == cudaErrorInsufficientDriver && driver > 0)
        return err_set(
            e, ERR_ABSENT,
            "the NVIDIA driver is too old (CUDA %d.%d, %d.%d needed): update it, or use device=cpu",
            driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (rc == cudaErrorInsufficientDriver || rc == cudaErrorNoDevice || (rc == cudaSuccess && *count == 0))
        return err_set(
            e, ERR_ABSENT,
            "no GPU here: nvidia-smi and CUDA_VISIBLE_DEVICES say what this process may see; without one "
            "use device=cpu");
    return cuda_check(rc, "looking for GPUs", e);
}

static int check_gpu(struct cuda_device *c, const cudaDeviceProp *p, struct err *e) {
    c->compute = p->major * 10 + p->minor;
    c->multiprocessors = p->multiProcessorCount;
    c->base.identity = identity_of(p);
    if (c->compute >= GPU_LEAST_COMPUTE) return 0;
    return err_set(e, ERR_ABSENT, "%s is too old (sm_%d, sm_%d or later is needed): use device=cpu", p->name,
                   c->compute, GPU_LEAST_COMPUTE);
}

static int open_gpu(struct cuda_device *c, const struct device_gpu_options *o, struct err *e) {
    int count = 0;
    cudaDeviceProp prop;
    int rc = count_gpus(&count, e);
    if (rc) return rc;
    c->number = o->local_rank % count;
    rc = cuda_check(cudaSetDevice(c->number), "cudaSetDevice", e);
    if (!rc) rc = cuda_check(cudaGetDeviceProperties(&prop, c->number), "cudaGetDeviceProperties", e);
    if (!rc) rc = check_gpu(c, &prop, e);
    if (!rc) rc = attention_pairs_asked(&c->attention_pairs, e);
    if (!rc)
        rc = cuda_check(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "cudaStreamCreate", e);
    return rc ? rc : open_pinned(&c->stage, GPU_STAGE_BYTES, e);
}

int cuda_open(struct device **out, const struct device_gpu_options *o, struct err *e) {
    struct cuda_device *c = (struct cuda_device *)calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_MEMORY, "no memory for a GPU's description");
    c->base.vtable = &gpu_vtable;
    c->base.ops = o->precision == DEVICE_BF16 ? &gpu_ops : &gpu_ops_f32;
    c->base.threads = 1;
    c->base.compute = o->precision == DEVICE_BF16 ? DTYPE_BF16 : DTYPE_F32;
    c->precision = o->precision;
    int rc = open_gpu(c, o, e);
    if (rc)
        gpu_close(&c->base);
    else
        *out = &c->base;
    return rc;
}
