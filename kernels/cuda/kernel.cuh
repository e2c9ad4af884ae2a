// SPDX-License-Identifier: Apache-2.0
// What the simple kernels share: numbers in fp32 or bf16 as packs of V elements (8: 16 bytes of bf16, 32 of
// fp32; 4: 16 of fp32; or one number where rows do not lie so), views of rows, sums over a block in a fixed
// order, checks of arguments.
#ifndef ORRERY_KERNELS_CUDA_KERNEL_CUH
#define ORRERY_KERNELS_CUDA_KERNEL_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/divider.cuh"
#include "kernels/cuda/launch.h"

enum { CUDA_WARP = 32, CUDA_THREADS = 256, CUDA_PACK = 8 };

// Refuses arguments that do not fit together. Only before anything is acquired.
#define CUDA_REQUIRE(condition)                                                                              \
    do {                                                                                                     \
        if (!(condition)) return err_set(e, ERR_BUG, "%s: not so: %s", __func__, #condition);                \
    } while (0)

// A kernel on the device's stream; its name is the op's in messages.
#define CUDA_RUN(d, kernel, grid, block, bytes, ...)                                                         \
    cuda_check(LAUNCH(kernel, dim3((unsigned)(grid)), dim3((unsigned)(block)), bytes, cuda_of(d)->stream,    \
                      __VA_ARGS__),                                                                          \
               __func__, e)

typedef __nv_bfloat16 bf16;

// Rows of T, ld elements apart.
template <class T> struct rows_of {
    T *at;
    int64_t ld;
    __device__ __forceinline__ T *row(int64_t r) const { return at + r * ld; }
};

template <class T> static inline rows_of<T> cuda_rows(const struct tensor *t) {
    return rows_of<T>{(T *)t->data, t->rank == 1 ? t->shape[0] : t->stride[0]};
}

static inline bool cuda_is_number(const struct tensor *t) {
    return t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16;
}
static inline bool cuda_is_rows(const struct tensor *t, int64_t rows, int64_t cols) {
    return t->data != NULL && cuda_is_number(t) && t->rank == 2 && t->shape[0] == rows &&
           t->shape[1] == cols && t->stride[1] == 1 && t->stride[0] >= cols;
}
static inline bool cuda_is_f32(const struct tensor *t, int64_t rows, int64_t cols) {
    return cuda_is_rows(t, rows, cols) && t->dtype == DTYPE_F32;
}
static inline bool cuda_is_vector(const struct tensor *t, int64_t n) {
    return t->data != NULL && t->dtype == DTYPE_F32 && tensor_elems(t) == n;
}
static inline int64_t cuda_blocks(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}
// Grids that stride over n items: enough blocks for any GPU, never more than one dimension takes.
static inline int64_t cuda_grid(int64_t n, int64_t per_block) {
    int64_t blocks = cuda_blocks(n, per_block);
    return blocks < 1 ? 1 : blocks < 65535 * 16 ? blocks : 65535 * 16;
}

// May rows of this tensor be read eight elements at a time? A tensor that is not there may.
static inline bool cuda_is_wide(const struct tensor *t) {
    size_t size = t->dtype == DTYPE_BF16 ? 2 : 4;
    if (t->data == NULL) return true;
    int64_t cols = t->rank == 1 ? t->shape[0] : t->shape[1], ld = t->rank == 1 ? cols : t->stride[0];
    return (uintptr_t)t->data % 16 == 0 && cols % CUDA_PACK == 0 && (size_t)ld * size % 16 == 0;
}
template <class... Rest> static inline bool cuda_is_wide(const struct tensor *t, Rest... rest) {
    return cuda_is_wide(t) && cuda_is_wide(rest...);
}

// ---- numbers

__device__ __forceinline__ float number_of(float x) {
    return x;
}
__device__ __forceinline__ float number_of(bf16 x) {
    return __bfloat162float(x);
}
__device__ __forceinline__ void put_number(float *to, float x) {
    *to = x;
}
__device__ __forceinline__ void put_number(bf16 *to, float x) {
    *to = __float2bfloat16(x);
}

__device__ __forceinline__ void unpack_pair(unsigned word, float *out) {
    out[0] = __uint_as_float(word << 16);
    out[1] = __uint_as_float(word & 0xffff0000u);
}
__device__ __forceinline__ unsigned pack_pair(float a, float b) {
    return (unsigned)__bfloat16_as_ushort(__float2bfloat16(a)) |
           (unsigned)__bfloat16_as_ushort(__float2bfloat16(b)) << 16;
}

template <int V> __device__ __forceinline__ void load_pack(const float *from, float *out) {
    if constexpr (V == 8) {
        float4 a = ((const float4 *)from)[0], b = ((const float4 *)from)[1];
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else if constexpr (V == 4) {
        float4 a = *(const float4 *)from;
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    } else {
        for (int i = 0; i < V; i++) out[i] = from[i];
    }
}
template <int V> __device__ __forceinline__ void load_pack(const bf16 *from, float *out) {
    if constexpr (V == 8) {
        uint4 a = *(const uint4 *)from;
        unpack_pair(a.x, out), unpack_pair(a.y, out + 2);
        unpack_pair(a.z, out + 4), unpack_pair(a.w, out + 6);
    } else if constexpr (V == 4) {
        uint2 a = *(const uint2 *)from;
        unpack_pair(a.x, out), unpack_pair(a.y, out + 2);
    } else {
        for (int i = 0; i < V; i++) out[i] = number_of(from[i]);
    }
}
template <int V> __device__ __forceinline__ void store_pack(float *to, const float *x) {
    if constexpr (V == 8) {
        ((float4 *)to)[0] = make_float4(x[0], x[1], x[2], x[3]);
        ((float4 *)to)[1] = make_float4(x[4], x[5], x[6], x[7]);
    } else if constexpr (V == 4) {
        *(float4 *)to = make_float4(x[0], x[1], x[2], x[3]);
    } else {
        for (int i = 0; i < V; i++) to[i] = x[i];
    }
}
template <int V> __device__ __forceinline__ void store_pack(bf16 *to, const float *x) {
    if constexpr (V == 8)
        *(uint4 *)to = make_uint4(pack_pair(x[0], x[1]), pack_pair(x[2], x[3]), pack_pair(x[4], x[5]),
                                  pack_pair(x[6], x[7]));
    else if constexpr (V == 4)
        *(uint2 *)to = make_uint2(pack_pair(x[0], x[1]), pack_pair(x[2], x[3]));
    else
        for (int i = 0; i < V; i++) put_number(to + i, x[i]);
}

// At random, with the words of their group; eight numbers are one whole group, in order.
template <int V>
__device__ __forceinline__ void put_rounded(bf16 *to, const float *x, const uint32_t words[4],
                                            uint64_t number) {
    unsigned pair[(V + 1) / 2];
#pragma unroll
    for (int i = 0; i < V; i++) {
        unsigned half = rounding_random(__float_as_uint(x[i]), words, V == 8 ? (uint64_t)i : number);
        pair[i / 2] = i % 2 ? pair[i / 2] | half << 16 : half;
    }
    if constexpr (V == 8)
        *(uint4 *)to = make_uint4(pair[0], pair[1], pair[2], pair[3]);
    else
        *to = __ushort_as_bfloat16((unsigned short)pair[0]);
}

// ---- sums whose order depends on shapes alone

template <class S> __device__ __forceinline__ S warp_sum(S x) {
    for (int by = CUDA_WARP / 2; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
    return x;
}

// Over whole warps; every thread gets the sum. `part` [warps] is shared memory that nobody else uses until
// all have passed another barrier.
template <class S> __device__ __forceinline__ S block_sum(S x, S *part) {
    int warps = (int)blockDim.x / CUDA_WARP;
    x = warp_sum(x);
    if (warps == 1) return x;
    if (threadIdx.x % CUDA_WARP == 0) part[threadIdx.x / CUDA_WARP] = x;
    __syncthreads();
    S sum = part[0];
    for (int w = 1; w < warps; w++) sum += part[w];
    return sum;
}

// The thread's items of n, which are few.
#define EACH_ITEM(i, n)                                                                                      \
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)

// Of tensors in a row, `first` [parts + 1] being where each begins: the one that place `at` is of. Empty ones
// have no place.
template <class I> __device__ __forceinline__ int part_at(const I *first, int parts, I at) {
    int lo = 0, hi = parts;
    while (hi - lo > 1) {
        int middle = (lo + hi) / 2;
        if (first[middle] <= at)
            lo = middle;
        else
            hi = middle;
    }
    return lo;
}

__device__ __forceinline__ int64_t thread_number() {
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t thread_count() {
    return (int64_t)gridDim.x * blockDim.x;
}

// ---- modalities: slots first[m] .. first[m + 1] - 1 of a frame are modality m's; passed to kernels by value

struct slot_table {
    int32_t first[OPS_MODALITIES_MAX + 1];
    int32_t per_frame, modalities;
    __device__ __forceinline__ int of(int32_t slot) const {
        int m = 0;
        while (slot >= first[m + 1]) m++;
        return m;
    }
};
// False when the map is no map: slots out of order or out of range.
bool cuda_slots(const struct token_map *map, struct slot_table *out);

// out[n] (+)= sum over rows of x, in fp32; gpu_col_sum_bytes(rows, cols) of scratch.
int cuda_col_sum_f32(struct device *d, const float *x, int64_t ld, int64_t rows, int64_t cols, float *out,
                     bool accumulate, void *scratch, struct err *e) ERR_CHECK;

// The squares of each part of x, as sum_squares adds them. work: one of these for each part, its result, and
// behind them one for each block of each part (gpu_squares_blocks).
struct cuda_squares {
    double sum, bad; // bad: how many are not finite
};
int cuda_sum_squares_of(struct device *d, const float *x, const struct op_squares_part *part, int parts,
                        struct cuda_squares *work, struct err *e) ERR_CHECK;

// A product for each matrix of a batch, a's and b's and c's so many elements apart. The algorithm is a
// function of the shape, the strides and `most`, the largest batch that will be asked for, never of `count`:
// so a matrix's bits do not depend on how many are multiplied at once. No bias.
struct gemm_batch {
    int count, most;
    int64_t a, b, c;
};
int cuda_gemm_batch(struct device *d, const struct op_gemm_args *a, const struct gemm_batch *batch,
                    struct err *e) ERR_CHECK;

// Calls f with a value of the type of dtype and the width of a pack.
#define CUDA_TYPED(dtype, wide, f)                                                                           \
    ((dtype) == DTYPE_BF16 ? ((wide) ? f<bf16, CUDA_PACK> : f<bf16, 1>)                                      \
                           : ((wide) ? f<float, CUDA_PACK> : f<float, 1>))

#endif
