// SPDX-License-Identifier: Apache-2.0
// What the two passes for sm_90a share: arguments, named places in shared memory, small steps.
#ifndef ORRERY_KERNELS_CUDA_ATTENTION_SM90_CUH
#define ORRERY_KERNELS_CUDA_ATTENTION_SM90_CUH

#include "kernels/cuda/attention.cuh"

// Bodies of these kernels exist in the sm_90a code (and in the emulator) only.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SM90_CODE 1
#else
#define SM90_CODE 0
#endif

enum {
    SM90_THREADS = 384,     // a producer warpgroup and two consumers
    SM90_PANEL = 128 * 128, // bytes of 128 rows of 64 bf16
    SM90_WAVE = 16,         // key tiles of a head that follow one another in the backward queue, at least
};

// What a pair of blocks has in common beside k and v: the head, for neighbouring tiles of queries (the view's
// tiles are of twice as many), or the tile, for two heads on one kv head, which see the same keys whatever
// the mask.
enum sm90_pairs { SM90_ALONE, SM90_PAIRS_OF_TILES, SM90_PAIRS_OF_HEADS };

struct sm90_forward {
    CUtensorMap q, k, v, o;
    struct attention_task t;
    int per_section; // (sequence, kv head) pairs whose k and v stay in L2 together
    int items;
    enum sm90_pairs pairs;
    uint32_t *next; // the queue's head
};

struct sm90_backward {
    CUtensorMap q, k, v, d_o, dk, dv;
    struct attention_task t;        // view: queries by keys, tiles of 64 x 128
    const struct mask_view *turned; // keys by queries, 128 x 64
    int key_tiles, wave, items;
    int units, group; // sequences * kv heads; query heads to a kv head
    bool free_order;
    uint32_t *next;
    uint32_t *flag;       // [sequences][heads][tiles]: key tiles that have added to dq
    float *dq;            // [sequences][heads][tiles][64 D], in the order of the accumulators' registers
    CUtensorMap k_halves; // head_dim 64: k in boxes of 32 columns
};

// How the copy engine sees q, k, v and their like: the driver's function that encodes it, found once per op,
// and a map of boxes of `across` columns (64 or 32, swizzled over that many) and `box` rows of one sequence.
// What lies beyond a sequence reads as zero and is not written.
typedef CUresult attention_encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                     const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                     const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                     CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
int attention_encoder(attention_encode_fn **out, struct err *e);
int attention_map(attention_encode_fn *encode, CUtensorMap *out, struct attention_rows r, int columns,
                  int rows, int sequences, int across, int box, struct err *e);
static inline CUtensorMapSwizzle attention_swizzle(int across) {
    return across == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
}

cudaError_t attention_forward_sm90(const struct sm90_forward *f, int head_dim, int blocks,
                                   cudaStream_t stream);
cudaError_t attention_backward_sm90(const struct sm90_backward *b, int head_dim, int blocks,
                                    cudaStream_t stream);

// A ring's place and the parity of its round.
struct ring {
    int at;
    uint32_t round;
};

template <int STAGES> static __device__ __forceinline__ void ring_next(struct ring *r) {
    if (++r->at == STAGES) {
        r->at = 0;
        r->round ^= 1;
    }
}

// Between arithmetic and the wgmma_wait of a product that it is to overlap with. ptxas moves the wait ahead
// of what does not need that product, or the work behind the wait, unless another basic block begins on a
// condition that needs the work. So: a wait on a barrier's round that is known to be over, which ends at
// once; `never` is made of the work's results and is false. tests/kernels/cuda_static.py reads the machine
// code.
static __device__ __forceinline__ void done_by_now(uint32_t bar, uint32_t parity, bool never) {
    mbar_wait(bar, parity ^ (uint32_t)never);
}

// Which warpgroup of the block a thread is in, as a value that the compiler knows to be one for a warp: what
// follows from it (descriptors) is kept in uniform registers.
static __device__ __forceinline__ int warpgroup_of_block() {
    return __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);
}

// Byte address of what a lane names to stmatrix4 for columns 16 j .. of 16 rows (from a multiple of 8 on), in
// panels of ROWS rows with the 128-byte swizzle.
template <int ROWS> static __host__ __device__ __forceinline__ uint32_t swizzled(int row, int j, int lane) {
    uint32_t first = (uint32_t)((row + lane % 16) * 128 + (lane / 16 ^ (lane & 7)) * 16);
    return (first ^ (uint32_t)(j % 4 * 32)) + (uint32_t)(j / 4 * ROWS * 128);
}

// The first of a row's intervals that ends beyond column lo.
static __device__ __forceinline__ struct row_cursor row_from(const struct mask_view *m, int row, int rows,
                                                             int lo) {
    struct row_cursor c = cursor_of(m, row, rows);
    int end = c.end;
    while (c.at < end) {
        int middle = (c.at + end) / 2;
        if (m->interval[middle].hi > lo) {
            end = middle;
        } else {
            c.at = middle + 1;
        }
    }
    return c;
}

// Hides what the thread's two rows (row, row + 8) do not see of the N columns from lo on. Seldom run: it
// looks its place up anew rather than keep registers between calls.
template <int N>
static __device__ __forceinline__ void hide90(float (&s)[N / 2], const struct mask_view *m, int row, int rows,
                                              int lo) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        struct row_cursor c = row_from(m, row + 8 * i, rows, lo);
        uint32_t bits[N / 32];
        row_bits(m->interval, &c, lo, bits);
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            uint32_t two = bits[j / 4] >> (8 * (j % 4) + 2 * ((int)threadIdx.x % 4));
            if (!(two & 1)) s[4 * j + 2 * i] = -INFINITY;
            if (!(two & 2)) s[4 * j + 2 * i + 1] = -INFINITY;
        }
    }
}

// An accumulator (64 x N) as the A operand of a product over its columns.
template <int N>
static __device__ __forceinline__ void to_bf16(uint32_t (&p)[N / 4], const float (&s)[N / 2]) {
#pragma unroll
    for (int i = 0; i < N / 4; i++) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

#endif
