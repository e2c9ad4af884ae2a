// SPDX-License-Identifier: Apache-2.0
// The instructions that CUDA C++ has no names for, one function each; nothing else in this folder holds
// assembly. Shared memory is addressed by 32-bit addresses (shared_address). The tests' emulator brings
// functional models with the same names and layouts (tests/simt/include/simt_ptx.h).
//
// Fragments (PTX ISA, mma.m16n8k16): lane = 4 g + t. A: a0 (g, 2t..), a1 (g+8, 2t..), a2 (g, 2t+8..),
// a3 (g+8, 2t+8..); B: b0 (k 2t.., n g), b1 (k 2t+8.., n g); C: c0 c1 (g, 2t..), c2 c3 (g+8, 2t..).
// wgmma m64nN: warp w of the warpgroup holds rows 16 w .. 16 w + 15 in that layout, d[4 j + i] being c_i of
// columns 8 j ...
#ifndef ORRERY_KERNELS_CUDA_PTX_CUH
#define ORRERY_KERNELS_CUDA_PTX_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

// A matrix in shared memory for wgmma: panels with ROW bytes to a row (128 or 64: 64 or 32 bf16), swizzled
// over as many bytes as TMA writes them, each panel 1024-byte aligned; groups of 8 rows lie one behind the
// other. By rows ("K-major": the product sums over columns) `lead` is not used: WGMMA_BY_ROWS, as CUTLASS
// has it. With columns as M or N ("MN-major", turned) it is the distance of panels, 0 where one holds all.
enum { WGMMA_BY_ROWS = 16 };
template <int ROW = 128>
static __device__ __forceinline__ uint64_t wgmma_matrix(uint32_t address, uint32_t lead) {
    static_assert(ROW == 128 || ROW == 64, "swizzles of 128 and 64 bytes");
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)((lead & 0x3ffff) >> 4) << 16 |
           (uint64_t)(8 * ROW >> 4) << 32 | (uint64_t)(ROW == 128 ? 1 : 2) << 62;
}
// The matrix that begins so many bytes further: cheaper than to make it anew.
static __device__ __forceinline__ uint64_t wgmma_further(uint64_t matrix, uint32_t bytes) {
    return (matrix & 0xffffffff00000000u) | ((uint32_t)matrix + (bytes >> 4));
}

static __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&v;
}

#ifndef __CUDACC__
#include <simt_ptx.h>
#else

static __device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x, to one unit in the last place or two; 0 from 2^126 on.
static __device__ __forceinline__ float inverse_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The same pointer, worked out anew where it is used instead of being carried in registers.
template <class T> static __device__ __forceinline__ const T *worked_out_anew(const T *p) {
    asm volatile("" : "+l"(p));
    return p;
}

// ---- sm_80: asynchronous copies, matrix loads, products of a warp

// 16 bytes from global to shared memory; zeros when `valid` is false.
static __device__ __forceinline__ void cp_async16(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
static __device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int KEEP> static __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(KEEP) : "memory");
}

// Four 8x8 matrices of bf16; lane i gives the address of row i % 8 of matrix i / 8.
static __device__ __forceinline__ void ldmatrix4(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix4_turned(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
static __device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- sm_90: barriers in shared memory, bulk copies, products of a warpgroup

// Named barrier 1..15 of `threads` threads (a multiple of 32).
static __device__ __forceinline__ void bar_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
static __device__ __forceinline__ void bar_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

static __device__ __forceinline__ void mbar_init(uint32_t bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
// Makes the initialised barriers known to the copy engine; before the block's first barrier. The second fence
// is what the programming guide asks for; it runs once.
static __device__ __forceinline__ void mbar_init_done() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
static __device__ __forceinline__ void mbar_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
static __device__ __forceinline__ void mbar_expect(uint32_t bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
// Returns when the phase of this parity is over.
static __device__ __forceinline__ void mbar_wait(uint32_t bar, uint32_t parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}

// An ordinary store, which the emulator wants to know of.
static __device__ __forceinline__ void store_quad(void *shared, float4 v) {
    *(float4 *)shared = v;
}
// Shared memory written by ordinary stores is about to be read by the copy engine or wgmma.
static __device__ __forceinline__ void fence_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// The same for global memory, between bulk copies of different blocks that are ordered by a flag.
static __device__ __forceinline__ void fence_async_global() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

static __device__ __forceinline__ void tma_load(uint32_t to, const CUtensorMap *map, uint32_t bar, int x,
                                                int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
                 "[%1, {%3, %4, %5}], [%2];" ::"r"(to),
                 "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
static __device__ __forceinline__ void tma_store(const CUtensorMap *map, uint32_t from, int x, int y, int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
        "r"(from), "r"(x), "r"(y), "r"(z)
        : "memory");
}
static __device__ __forceinline__ void tma_prefetch_map(const CUtensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// Two floats of shared memory, read here and not earlier.
static __device__ __forceinline__ float2 shared_pair(uint32_t at) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at) : "memory");
    return v;
}
// Four 8x8 matrices of bf16 into shared memory; lane i gives the address of row i % 8 of matrix i / 8.
static __device__ __forceinline__ void stmatrix4(uint32_t row, uint32_t r0, uint32_t r1, uint32_t r2,
                                                 uint32_t r3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r0),
                 "r"(r1), "r"(r2), "r"(r3)
                 : "memory");
}

// Contiguous floats, 16-byte aligned: a load on a barrier, a store, an addition.
static __device__ __forceinline__ void bulk_load(uint32_t to, const void *from, int bytes, uint32_t bar) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
        "l"(from), "r"(bytes), "r"(bar)
        : "memory");
}
static __device__ __forceinline__ void bulk_store(void *to, uint32_t from, int bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from),
                 "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void bulk_add(float *to, uint32_t from, int bytes) {
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
                 "r"(from), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void bulk_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// All but the youngest KEEP groups have read their sources; or are wholly done.
template <int KEEP> static __device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(KEEP) : "memory");
}
template <int KEEP> static __device__ __forceinline__ void bulk_wait() {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(KEEP) : "memory");
}

// Clusters: blocks that run at the same time and reach each other's shared memory. An address of a block is
// one of the cluster too.
static __device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// The same place in shared memory of block `rank` of the cluster.
static __device__ __forceinline__ uint32_t cluster_address(uint32_t address, uint32_t rank) {
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}
// Of all threads of the cluster.
static __device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
// As mbar_arrive, on a barrier of any block of the cluster. What it orders is the reading of shared memory by
// wgmma, which was waited for, before the copy engine writes there again.
static __device__ __forceinline__ void cluster_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(bar) : "memory");
}
// A word for another block; it counts 4 bytes on a barrier there.
static __device__ __forceinline__ void cluster_tell(uint32_t to, uint32_t value, uint32_t bar) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(to),
                 "r"(value), "r"(bar)
                 : "memory");
}
// tma_load into each block of the cluster whose bit is set in `blocks`: the same place, and its own barrier.
static __device__ __forceinline__ void cluster_load(uint32_t to, const CUtensorMap *map, uint32_t bar, int x,
                                                    int y, int z, uint16_t blocks) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
                 "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z), "h"(blocks)
                 : "memory");
}

// Flags between blocks.
static __device__ __forceinline__ void flag_add(uint32_t *flag, uint32_t value) {
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
static __device__ __forceinline__ uint32_t flag_read(const uint32_t *flag) {
    uint32_t v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(flag) : "memory");
    return v;
}
static __device__ __forceinline__ void flag_wait(const uint32_t *flag, uint32_t value) {
    while (flag_read(flag) < value) __nanosleep(20);
}

template <int REGISTERS> static __device__ __forceinline__ void registers_more() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> static __device__ __forceinline__ void registers_fewer() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

static __device__ __forceinline__ void wgmma_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int KEEP> static __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(KEEP) : "memory");
}
// Registers that a product in flight writes: the compiler may not move their uses across this point.
template <int N> static __device__ __forceinline__ void wgmma_hold(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#define PTX_D4(i)   "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define PTX_D16(i)  PTX_D4(i), PTX_D4((i) + 4), PTX_D4((i) + 8), PTX_D4((i) + 12)
#define PTX_OUT_32  PTX_D16(0)
#define PTX_OUT_64  PTX_D16(0), PTX_D16(16)
#define PTX_OUT_128 PTX_D16(0), PTX_D16(16), PTX_D16(32), PTX_D16(48)
#define PTX_R16     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define PTX_R32     PTX_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PTX_R64                                                                                              \
    PTX_R32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d (64 x n) = or += A B. TA, TB: the matrix in shared memory is MN-major. The first form takes A from shared
// memory, the second from registers (four per 16 columns). Numbers: of the operands behind the n / 2 results.
#define PTX_WGMMA(n, results, o0, o1, o2, o3, o4, o5, o6)                                                    \
    template <int TA, int TB>                                                                                \
    static __device__ __forceinline__ void wgmma(float(&d)[n / 2], uint64_t a, uint64_t b, bool add) {       \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #o2 ", 0;\n"                                       \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" results "}, %" #o0         \
                     ", %" #o1 ", p, 1, 1, %" #o3 ", %" #o4 ";\n}"                                           \
                     : PTX_OUT_##n                                                                           \
                     : "l"(a), "l"(b), "r"((int)add), "n"(TA), "n"(TB));                                     \
    }                                                                                                        \
    template <int TB>                                                                                        \
    static __device__ __forceinline__ void wgmma(float(&d)[n / 2], const uint32_t *a, uint64_t b,            \
                                                 bool add) {                                                 \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #o5 ", 0;\n"                                       \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" results "}, {%" #o0        \
                     ", %" #o1 ", %" #o2 ", %" #o3 "}, %" #o4 ", p, 1, 1, %" #o6 ";\n}"                      \
                     : PTX_OUT_##n                                                                           \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add), "n"(TB));          \
    }
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
PTX_WGMMA(32, PTX_R16, 16, 17, 18, 19, 20, 21, 22)
PTX_WGMMA(64, PTX_R32, 32, 33, 34, 35, 36, 37, 38)
PTX_WGMMA(128, PTX_R64, 64, 65, 66, 67, 68, 69, 70)
#endif

#endif
#endif
