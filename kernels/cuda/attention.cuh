// SPDX-License-Identifier: Apache-2.0
// What the attention kernels share: their arguments, the walk over the tiles of a schedule, and the bits of a
// row where a mask's boundary runs through a tile.
#ifndef ORRERY_KERNELS_CUDA_ATTENTION_CUH
#define ORRERY_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/schedule.h"

#define ATTENTION_LOG2E 1.4426950408889634f
#define ATTENTION_LN2   0.6931471805599453f

typedef __nv_bfloat16 bf16;

// One sequence's schedule in device memory.
struct mask_view {
    const struct schedule_tile *tile;
    const struct schedule_range *range;
    const int32_t *order;
    const struct schedule_row *row;
    const struct mask_interval *interval;
};

// Rows of one sequence and head: element (row, c) at data + (b * rows + row) * stride + h * D + c.
struct attention_rows {
    bf16 *data;
    int64_t stride;
};

struct attention_task {
    struct attention_rows q, k, v, o;
    float *lse;
    int64_t lse_stride;
    const struct mask_view *view; // [sequences]
    int sequences, heads, kv_heads, queries, keys;
    int tiles;            // of rows, per sequence
    int splits;           // of a row tile's steps
    float *part, *weight; // splits > 1: [splits][sequences * queries][heads][D], and without D
    // Backward.
    struct attention_rows d_o, dq, dk, dv;
    // [sequences][heads][padded / 64][2][64]: log2 of the sum (+inf where nothing is seen), then sum o dO.
    float *lse2;
    int padded; // queries, rounded up
};

// Where a query's lse2 is among its head's; its delta lies 64 further.
static __device__ __forceinline__ int row_at(int q) {
    return q / 64 * 128 + q % 64;
}

// The tiles that a tile of rows meets, one after another.
struct tile_walk {
    const struct schedule_range *range;
    int left;      // steps, this one included
    int ranges, j; // of this range on; the column tile
    bool partly;
};

static __device__ __forceinline__ void walk_enter(struct tile_walk *w, int skip) {
    while (w->left > 0 && skip >= w->range->hi - w->range->lo) {
        skip -= w->range->hi - w->range->lo;
        w->range++;
    }
    if (w->left > 0) {
        w->j = w->range->lo + skip;
        w->partly = w->range->partly != 0;
    }
}

// The steps [first, end) of a row tile.
static __device__ __forceinline__ struct tile_walk walk_begin(const struct mask_view *m, int tile, int first,
                                                              int end) {
    struct tile_walk w;
    w.range = m->range + m->tile[tile].first;
    w.left = end - first;
    w.ranges = 0;
    w.j = 0;
    w.partly = false;
    walk_enter(&w, first);
    return w;
}

static __device__ __forceinline__ void walk_next(struct tile_walk *w) {
    w->left--;
    w->j++;
    if (w->left > 0 && w->j == w->range->hi) {
        w->range++;
        w->j = w->range->lo;
        w->partly = w->range->partly != 0;
    }
}

// The intervals of a row that are not over yet.
struct row_cursor {
    int at, end;
};

static __device__ __forceinline__ struct row_cursor cursor_of(const struct mask_view *m, int row, int rows) {
    struct row_cursor c = {0, 0};
    if (row < rows) {
        struct schedule_row r = m->row[row];
        c.at = r.first;
        c.end = r.end;
    }
    return c;
}

static __device__ __forceinline__ uint32_t low_bits(int n) {
    return n >= 32 ? 0xffffffffu : n <= 0 ? 0 : (1u << n) - 1;
}

// Bit i: the row sees column lo + i. Called with ascending lo.
template <int WORDS>
static __device__ __forceinline__ void row_bits(const struct mask_interval *interval, struct row_cursor *c,
                                                int lo, uint32_t (&bits)[WORDS]) {
#pragma unroll
    for (int w = 0; w < WORDS; w++) bits[w] = 0;
    while (c->at < c->end && interval[c->at].hi <= lo) c->at++;
    for (int i = c->at; i < c->end; i++) {
        struct mask_interval v = interval[i];
        if (v.lo >= lo + 32 * WORDS) break;
#pragma unroll
        for (int w = 0; w < WORDS; w++)
            bits[w] |= low_bits(v.hi - lo - 32 * w) & ~low_bits(v.lo - lo - 32 * w);
    }
}

// Schedules of a batch's masks on the device. What lies behind a view stays until the next call but one, and
// as long as a recorded graph is launched that was recorded with it (device.h: generation).
struct attention_tiles {
    int rows, columns;
    bool turned; // rows are the masks' keys
};
struct attention_schedule {
    struct mask_view *view; // [sequences]
    int32_t tiles, steps;   // row tiles of a sequence; the most steps of one
    int64_t work;           // schedule_work of all sequences
};
int attention_schedule(struct cuda_device *d, const struct mask *const *masks, int sequences,
                       struct attention_tiles tiles, const struct attention_schedule **out,
                       struct err *e) ERR_CHECK;

// The views that the kernels of sm_80 walk, [sequences]; from one mask or one per sequence.
int attention_views(struct cuda_device *d, const struct mask *one, const struct mask *const *many,
                    int sequences, const struct mask_view **out, struct err *e);

// The kernels, one launcher each.
cudaError_t attention_forward_sm80(const struct attention_task *t, int head_dim, cudaStream_t stream);
cudaError_t attention_backward_sm80(const struct attention_task *t, const struct mask_view *turned,
                                    int key_tiles, int head_dim, cudaStream_t stream);
#endif
