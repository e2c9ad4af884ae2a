// SPDX-License-Identifier: Apache-2.0
// Runs CUDA kernels on the CPU: a .cu file compiled as C++ with this folder's include/ in front finds here
// what it needs of CUDA. Every thread of a block is a fiber; blocks run one after another, or several
// side by side; barriers, warp collectives, mbarriers and asynchronous copies are functional models that
// follow the PTX ISA's layouts (simt_ptx.h). A wait that nobody can end, a collective that lanes enter
// differently, an address outside shared memory end the program with a message. Not a model of time, caches,
// memory order or proxies.
//
// Use: in tests/*.cmake
//     orrery_simt_test(NAME test.c kernels/cuda/x.cu ...)
// compiles the .cu files as C++ and links the test (C or C++, cmocka) with them. In the .cu files:
//     #include <cuda_runtime.h>, <cuda_bf16.h>    as always
//     #include "kernels/cuda/launch.h"            LAUNCH(kernel, grid, block, shared_bytes, stream, args...)
//                                                 launch_pairs: with clusters of two blocks
//                                                 DYNAMIC_SHARED(name): unsigned char *name, 1024-byte
//                                                 aligned
// What there is: threadIdx blockIdx blockDim gridDim, static __shared__, __syncthreads(_or/_and/_count),
// __syncwarp, shuffles, votes, float2/4 int2/4 uint2/4, __nv_bfloat16(2) and conversions, the usual math
// intrinsics, atomics, __ldg & co., cudaMalloc/Free/Memcpy/Memset(Async), streams (everything runs at once),
// capture of streams into graphs: what is recorded is checked for what CUDA refuses there, and runs when it
// is launched. Missing something? Add it here; small models are welcome.
//
// Options for tests: simt_options.seed changes the order of threads; .late_copies and .late_products put off
// asynchronous copies and wgmma until somebody waits for them (otherwise they are done when issued); .blocks
// runs so many blocks side by side.
#ifndef ORRERY_TESTS_SIMT_H
#define ORRERY_TESTS_SIMT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <array>
#include <functional>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__    static
#define __shared__      static
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n)  __attribute__((aligned(n)))
#define __CUDA_ARCH__ 900
#define __CUDA_ARCH_FEAT_SM90_ALL

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

#define SIMT_VECTOR(T, name, bytes)                                                                          \
    struct alignas(bytes / 2) name##2 {                                                                      \
        T x, y;                                                                                              \
    };                                                                                                       \
    struct alignas(bytes) name##4 {                                                                          \
        T x, y, z, w;                                                                                        \
    };                                                                                                       \
    static inline name##2 make_##name##2(T x, T y) {                                                         \
        return {x, y};                                                                                       \
    }                                                                                                        \
    static inline name##4 make_##name##4(T x, T y, T z, T w) {                                               \
        return {x, y, z, w};                                                                                 \
    }
SIMT_VECTOR(float, float, 16)
SIMT_VECTOR(int, int, 16)
SIMT_VECTOR(unsigned, uint, 16)
SIMT_VECTOR(unsigned short, ushort, 8)

// ---- the machine

struct simt_options {
    unsigned seed;
    bool late_copies, late_products;
    int blocks; // that run side by side, each at its own pace; not for kernels with static __shared__ in C++
};
extern struct simt_options simt_options;

struct simt_warp;
struct simt_thread {
    uint3 tid;
    int number, lane; // in the block, in the warp
    struct simt_warp *warp;
    const char *what;              // it waits for, NULL: runs
    const volatile uint64_t *wait; // it goes on when *wait != old
    uint64_t old;
    const volatile uint32_t *flag; // it goes on when *flag >= least
    uint32_t least;
    uint64_t cluster_round; // in which it came to barrier.cluster
    bool asleep;            // until somebody has done something, counted by
    uint64_t since;
    bool done;
    void *stack, *context;
};
enum { SIMT_CLUSTER = 2 }; // blocks of a cluster, at most
struct simt_block {
    uint3 index;
    dim3 grid, dim;
    unsigned char *shared;
    size_t shared_bytes;
    int threads, running;
    struct simt_thread *thread;
    int rank, cluster; // which of how many blocks of a cluster, which run side by side
    struct simt_block *of_cluster[SIMT_CLUSTER];
    void *witness; // of somebody who watches the block, NULL when it begins; given to `forget` when it ends
    void (*forget)(void *witness);
};
extern struct simt_thread *simt_self;
extern struct simt_block *simt_now;

#define threadIdx (simt_self->tid)
#define blockIdx  (simt_now->index)
#define blockDim  (simt_now->dim)
#define gridDim   (simt_now->grid)
#define warpSize  32

void simt_launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &kernel,
                 int cluster = 1);
void simt_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void simt_wait(const volatile uint64_t *word, uint64_t old, const char *what); // until *word != old
void simt_wait_flag(const volatile uint32_t *flag, uint32_t least);            // until *flag >= least
void simt_sleep(); // until any other thread has done something but sleep
// Waits until `count` threads have come to meeting place `place` (64 per block), then the last one runs `all`
// over the arguments of all, in the order of their numbers.
typedef void simt_all_fn(void **args, int count, void *context);
void simt_meet(int place, int count, const char *what, void *arg, simt_all_fn *all, void *context);
void simt_arrive(int place, int count, const char *what); // comes without waiting
// Asynchronous work. `later` is done when nobody else can go on (or at once); the groups of an owner are done
// when it waits for them (or at once).
enum simt_kind { SIMT_CP_ASYNC, SIMT_BULK, SIMT_PRODUCT, SIMT_KINDS };
void simt_later(const std::function<void()> &work);
void simt_defer(enum simt_kind kind, int owner, const std::function<void()> &work);
void simt_commit(enum simt_kind kind, int owner);
void simt_drain(enum simt_kind kind, int owner, size_t keep); // all but the youngest `keep` groups
unsigned char *simt_shared(uint32_t address, size_t bytes);   // checked
uint32_t simt_shared_address(const void *p);
// An address of shared memory names a block of the cluster in its upper bits, or none: the one that runs.
enum { SIMT_RANK_SHIFT = 24 };
uint32_t simt_cluster_address(uint32_t address, uint32_t rank);
struct simt_block *simt_block_of(uint32_t address);
static inline uint32_t simt_offset(uint32_t address) {
    return address & ((1u << SIMT_RANK_SHIFT) - 1);
}
// barrier.cluster: comes; and waits until all threads of the cluster have come.
void simt_cluster_arrive();
void simt_cluster_wait();
// What a thread wrote by ordinary stores is not for the asynchronous proxy (the copy engine, wgmma) to touch
// before that thread has fenced it.
void simt_stored(int thread, uint32_t address, size_t bytes);
void simt_fenced(int thread);
unsigned char *simt_shared_async(uint32_t address, size_t bytes); // simt_shared, and checked so

// Not NULL: is told of the end of an mbarrier's phase, by an address that the block that runs may use.
typedef void simt_phase_fn(uint32_t bar, uint32_t parity);
extern simt_phase_fn *simt_phase_over;

enum { SIMT_BLOCK = 16, SIMT_WARP = 24, SIMT_WARPGROUP = 56, SIMT_PLACES = 64 }; // 0..15: named barriers

#define DYNAMIC_SHARED(name) unsigned char *name = simt_now->shared
#define LAUNCH(kernel, grid, block, bytes, stream, ...)                                                      \
    simt_queue(stream, 1, grid, block, bytes, kernel, ##__VA_ARGS__)

enum cudaError_t {
    cudaSuccess,
    cudaErrorInvalidValue,
    cudaErrorMemoryAllocation,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorCapturedEvent = 907
};
typedef struct simt_stream *cudaStream_t;
// Runs the work, or records it when the stream is being captured.
cudaError_t simt_enqueue(cudaStream_t stream, const std::function<void()> &work);
bool simt_captures(cudaStream_t stream);
cudaError_t simt_refuse(cudaStream_t stream); // what may not be captured; a capture that meets it is void

// A kernel may have 48 KB of dynamic shared memory, and as much as it asked for.
cudaError_t simt_make_room(const void *kernel, int bytes);
bool simt_has_room(const void *kernel, size_t bytes);

// Not NULL: this runs kernels instead of their C++ (tests/ptx). `parameters`: as CUDA lays them.
typedef void simt_instead_fn(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, int cluster,
                             const unsigned char *parameters, size_t parameter_bytes);
extern simt_instead_fn *simt_instead;

struct alignas(128) simt_parameters {
    unsigned char at[4096];
    size_t bytes;
    template <class T> void add(const T &v) {
        bytes = (bytes + alignof(T) - 1) / alignof(T) * alignof(T);
        if (bytes + sizeof v > sizeof at) simt_fail("more than %zu bytes of parameters", sizeof at);
        memcpy(at + bytes, &v, sizeof v);
        bytes += sizeof v;
    }
};

// Arguments are copied at the launch, as the hardware's are.
template <class... P, class... A>
static inline cudaError_t simt_queue(cudaStream_t stream, int cluster, dim3 grid, dim3 block, size_t bytes,
                                     void (*kernel)(P...), A... arguments) {
    std::tuple<std::decay_t<P>...> copy(arguments...);
    if (!simt_has_room((const void *)kernel, bytes)) return cudaErrorInvalidValue;
    return simt_enqueue(stream, [=] {
        if (simt_instead == NULL)
            return simt_launch(
                grid, block, bytes, [&] { std::apply(kernel, copy); }, cluster);
        simt_parameters p;
        p.bytes = 0;
        std::apply([&p](const auto &...each) { (p.add(each), ...); }, copy);
        simt_instead((const void *)kernel, grid, block, bytes, cluster, p.at, p.bytes);
    });
}

template <class... P, class... A>
static inline cudaError_t launch_pairs(void (*kernel)(P...), dim3 grid, dim3 block, size_t bytes,
                                       cudaStream_t stream, const A &...arguments) {
    return simt_queue(stream, 2, grid, block, bytes, kernel, arguments...);
}

// Everybody of the warp hands in a T; the last one calls f(T *args[32]).
template <class T, class F> static inline void simt_warp_all(unsigned mask, const char *what, T *arg, F f) {
    if (mask != 0xffffffffu) simt_fail("%s: only the full mask is modelled, not %08x", what, mask);
    int first = simt_self->number & ~31, count = std::min(32, simt_now->threads - first);
    simt_meet(
        SIMT_WARP + simt_self->number / 32, count, what, arg,
        [](void **args, int n, void *context) { (*(F *)context)((T **)args, n); }, &f);
}

static inline void __syncthreads() {
    simt_meet(SIMT_BLOCK, simt_now->running, "__syncthreads", NULL, NULL, NULL);
}
static inline int simt_sync_count(int p, const char *what) {
    int v[2] = {p != 0, 0};
    simt_meet(
        SIMT_BLOCK, simt_now->running, what, v,
        [](void **a, int n, void *) {
            int sum = 0;
            for (int i = 0; i < n; i++) sum += ((int *)a[i])[0];
            for (int i = 0; i < n; i++) ((int *)a[i])[1] = sum;
        },
        NULL);
    return v[1];
}
static inline int __syncthreads_count(int p) {
    return simt_sync_count(p, "__syncthreads_count");
}
static inline int __syncthreads_or(int p) {
    return simt_sync_count(p, "__syncthreads_or") > 0;
}
static inline int __syncthreads_and(int p) {
    return simt_sync_count(p, "__syncthreads_and") == simt_now->running;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    int none = 0;
    simt_warp_all(mask, "__syncwarp", &none, [](int **, int) {});
}

template <class T> struct simt_lane {
    T value, result;
    int from;
};
template <class T> static inline T simt_shuffle(unsigned mask, T value, int from, const char *what) {
    simt_lane<T> me = {value, value, from};
    simt_warp_all(mask, what, &me, [](simt_lane<T> **a, int n) {
        for (int i = 0; i < n; i++) a[i]->result = a[a[i]->from < n ? a[i]->from : i]->value;
    });
    return me.result;
}
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return simt_shuffle(mask, v, (simt_self->lane & ~(width - 1)) | (lane & (width - 1)), "__shfl_sync");
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32) {
    return simt_shuffle(mask, v, (simt_self->lane & ~(width - 1)) | ((simt_self->lane ^ x) & (width - 1)),
                        "__shfl_xor_sync");
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int at = simt_self->lane & (width - 1), to = at + (int)by < width ? at + (int)by : at;
    return simt_shuffle(mask, v, (simt_self->lane & ~(width - 1)) | to, "__shfl_down_sync");
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int at = simt_self->lane & (width - 1), to = at >= (int)by ? at - (int)by : at;
    return simt_shuffle(mask, v, (simt_self->lane & ~(width - 1)) | to, "__shfl_up_sync");
}
static inline unsigned __ballot_sync(unsigned mask, int p) {
    simt_lane<unsigned> me = {p != 0, 0, 0};
    simt_warp_all(mask, "__ballot_sync", &me, [](simt_lane<unsigned> **a, int n) {
        unsigned bits = 0;
        for (int i = 0; i < n; i++) bits |= a[i]->value << i;
        for (int i = 0; i < n; i++) a[i]->result = bits;
    });
    return me.result;
}
static inline int __any_sync(unsigned mask, int p) {
    return __ballot_sync(mask, p) != 0;
}
static inline int __all_sync(unsigned mask, int p) {
    return __ballot_sync(mask, !p) == 0;
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned v) {
    for (int i = 16; i > 0; i /= 2) v += __shfl_xor_sync(mask, v, i);
    return v;
}

// ---- numbers

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;
static inline float __bfloat162float(__nv_bfloat16 v) {
    uint32_t u = (uint32_t)v.bits << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline __nv_bfloat16 __float2bfloat16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if (f != f) return {0x7fff};
    return {(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
static inline __nv_bfloat16 __float2bfloat16_rn(float f) {
    return __float2bfloat16(f);
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return {__float2bfloat16(a), __float2bfloat16(b)};
}
static inline float2 __bfloat1622float2(__nv_bfloat162 v) {
    return {__bfloat162float(v.x), __bfloat162float(v.y)};
}
static inline float __low2float(__nv_bfloat162 v) {
    return __bfloat162float(v.x);
}
static inline float __high2float(__nv_bfloat162 v) {
    return __bfloat162float(v.y);
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) {
    return v.bits;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) {
    return {v};
}
template <class A, class B> static inline A simt_cast(B b) {
    static_assert(sizeof(A) == sizeof(B));
    A a;
    memcpy(&a, &b, sizeof a);
    return a;
}
static inline float __uint_as_float(unsigned v) {
    return simt_cast<float>(v);
}
static inline unsigned __float_as_uint(float v) {
    return simt_cast<unsigned>(v);
}
static inline float __int_as_float(int v) {
    return simt_cast<float>(v);
}
static inline int __float_as_int(float v) {
    return simt_cast<int>(v);
}
#define SIMT_MATH1(name, expression)                                                                         \
    static inline float name(float a) {                                                                      \
        return expression;                                                                                   \
    }
#define SIMT_MATH2(name, expression)                                                                         \
    static inline float name(float a, float b) {                                                             \
        return expression;                                                                                   \
    }
// glibc has names like these of its own.
#define __expf    simt_expf
#define __exp2f   simt_exp2f
#define __logf    simt_logf
#define __log2f   simt_log2f
#define __sinf    simt_sinf
#define __cosf    simt_cosf
#define __tanhf   simt_tanhf
#define __sincosf simt_sincosf
SIMT_MATH1(rsqrtf, 1.0f / sqrtf(a))
SIMT_MATH1(__frsqrt_rn, 1.0f / sqrtf(a))
SIMT_MATH1(__frcp_rn, 1.0f / a)
SIMT_MATH1(__fsqrt_rn, sqrtf(a))
SIMT_MATH1(__expf, expf(a))
SIMT_MATH1(__exp2f, exp2f(a))
SIMT_MATH1(__logf, logf(a))
SIMT_MATH1(__log2f, log2f(a))
SIMT_MATH1(__sinf, sinf(a))
SIMT_MATH1(__cosf, cosf(a))
SIMT_MATH1(__tanhf, tanhf(a))
SIMT_MATH1(__saturatef, a > 0 ? (a < 1 ? a : 1) : 0)
SIMT_MATH2(__fdividef, a / b)
SIMT_MATH2(__fdiv_rn, a / b)
SIMT_MATH2(__fmul_rn, a *b)
SIMT_MATH2(__fadd_rn, a + b)
SIMT_MATH2(__fsub_rn, a - b)
static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline double __dmul_rn(double a, double b) {
    return a * b;
}
static inline double __dadd_rn(double a, double b) {
    return a + b;
}
static inline void __sincosf(float a, float *s, float *c) {
    sincosf(a, s, c);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __clz(int v) {
    return v == 0 ? 32 : __builtin_clz((unsigned)v);
}
static inline int __ffs(int v) {
    return __builtin_ffs(v);
}
static inline int __popc(unsigned v) {
    return __builtin_popcount(v);
}
template <class T> static inline T min(T a, T b) {
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b) {
    return a < b ? b : a;
}

// ---- memory

template <class T> static inline T simt_exchange(T *p, T v) {
    T old = *p;
    *p = v;
    return old;
}
template <class T> static inline T atomicAdd(T *p, T v) {
    return simt_exchange(p, (T)(*p + v));
}
template <class T> static inline T atomicMax(T *p, T v) {
    return simt_exchange(p, *p < v ? v : *p);
}
template <class T> static inline T atomicMin(T *p, T v) {
    return simt_exchange(p, v < *p ? v : *p);
}
template <class T> static inline T atomicOr(T *p, T v) {
    return simt_exchange(p, (T)(*p | v));
}
template <class T> static inline T atomicExch(T *p, T v) {
    return simt_exchange(p, v);
}
template <class T> static inline T atomicCAS(T *p, T compare, T v) {
    return simt_exchange(p, *p == compare ? v : *p);
}
template <class T> static inline T __ldg(const T *p) {
    return *p;
}
template <class T> static inline T __ldcs(const T *p) {
    return *p;
}
template <class T> static inline T __ldcg(const T *p) {
    return *p;
}
template <class T> static inline void __stcs(T *p, T v) {
    *p = v;
}
template <class T> static inline void __stcg(T *p, T v) {
    *p = v;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __nanosleep(unsigned) {}

// ---- the runtime, as far as host code of kernels needs it

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
// Device memory: bytes in use, and the most so far, which go to the file ORRERY_SIMT_PEAK when the program
// ends.
extern struct simt_memory { size_t used, peak; } simt_memory;
size_t simt_memory_total(); // ORRERY_SIMT_MEMORY, 4 GiB without
size_t simt_memory_room();  // of it, without what is used and what others hold, ORRERY_SIMT_HELD

// Not NULL: is told what becomes of device memory.
struct simt_witness {
    void (*allocated)(void *p, size_t bytes);
    void (*freed)(void *p, size_t bytes);
    void (*written)(void *p, size_t bytes); // by the host, or by what stands in for a library
    void (*copied)(void *to, const void *from, size_t bytes);
};
extern const struct simt_witness *simt_watched;
static inline void simt_written(void *p, size_t bytes) {
    if (simt_watched != NULL) simt_watched->written(p, bytes);
}

static inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
static inline cudaError_t cudaPeekAtLastError() {
    return cudaSuccess;
}
static inline const char *cudaGetErrorString(cudaError_t e) {
    return e == cudaSuccess ? "no error" : "error";
}
template <class T> static inline cudaError_t cudaFuncSetAttribute(T *kernel, cudaFuncAttribute, int bytes) {
    return simt_make_room((const void *)kernel, bytes);
}
// A block's size stands in front of it, so that what is free can be told.
static inline cudaError_t cudaMalloc(void **p, size_t bytes) {
    *p = NULL;
    if (bytes > simt_memory_room()) return cudaErrorMemoryAllocation;
    char *block = (char *)aligned_alloc(256, (bytes + 767) / 256 * 256);
    if (block == NULL) return cudaErrorMemoryAllocation;
    memcpy(block, &bytes, sizeof bytes);
    memset(block + 256, 0xff, bytes);
    simt_memory.used += bytes;
    if (simt_memory.used > simt_memory.peak) simt_memory.peak = simt_memory.used;
    *p = block + 256;
    if (simt_watched != NULL) simt_watched->allocated(*p, bytes);
    return cudaSuccess;
}
template <class T> static inline cudaError_t cudaMalloc(T **p, size_t bytes) {
    return cudaMalloc((void **)p, bytes);
}
static inline cudaError_t cudaFree(void *p) {
    size_t bytes;
    if (p == NULL) return cudaSuccess;
    memcpy(&bytes, (char *)p - 256, sizeof bytes);
    simt_memory.used -= bytes;
    if (simt_watched != NULL) simt_watched->freed(p, bytes);
    free((char *)p - 256);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    if (bytes > 0) memcpy(to, from, bytes);
    if (kind == cudaMemcpyHostToDevice) simt_written(to, bytes);
    if (kind == cudaMemcpyDeviceToDevice && simt_watched != NULL) simt_watched->copied(to, from, bytes);
    return cudaSuccess;
}
// The house rule is stricter than CUDA's: recorded work reads no host memory.
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                                          cudaStream_t stream = NULL) {
    if (kind != cudaMemcpyDeviceToDevice && simt_captures(stream)) return simt_refuse(stream);
    return simt_enqueue(stream, [=] { cudaMemcpy(to, from, bytes, kind); });
}
static inline cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    if (bytes > 0) memset(to, value, bytes);
    simt_written(to, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream = NULL) {
    return simt_enqueue(stream, [=] { cudaMemset(to, value, bytes); });
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return simt_captures(stream) ? simt_refuse(stream) : cudaSuccess;
}
static inline cudaError_t cudaDeviceSynchronize() {
    return cudaSuccess;
}

#endif
