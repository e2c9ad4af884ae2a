// SPDX-License-Identifier: Apache-2.0
// What the GPU's ops take besides their arguments, and which shapes they know: functions of shapes alone,
// without CUDA, so that a plan on any machine counts with the numbers that the GPU's code allocates by. Bytes
// of device memory.
#ifndef ORRERY_KERNELS_CUDA_SIZES_H
#define ORRERY_KERNELS_CUDA_SIZES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/device.h"
#include "kernels/mask.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    GPU_LEAST_COMPUTE = 80,      // compute capability 8.0
    GPU_WORKSPACE = 32 << 20,    // of cuBLASLt
    GPU_STAGE_BYTES = 8 << 20,   // pinned host memory of copies
    GPU_SUM_ROWS = 512,          // rows that one block of col_sum adds
    GPU_SQUARES = 4096,          // numbers that one block of sum_squares adds
    GPU_SQUARES_BYTES = 16,      // its two sums
    GPU_LOSS_ELEMS = 8192,       // of a frame, whose loss one block adds
    GPU_CHUNK = 32,              // tokens that one block of adaLN's backward adds
    GPU_MASK_VIEW_BYTES = 5 * 8, // of a sequence's schedule
    // Tiles of attention.
    SM80_ROWS = 128,
    SM80_COLUMNS = 64,
    SM80_BACKWARD_COLUMNS = 32,
    SM90_ROWS = 128,   // queries of a forward tile
    SM90_KEYS = 128,   // keys of a tile, both passes
    SM90_QUERIES = 64, // queries of a backward tile
};

// `compute`: 90 for compute capability 9.0. 0, or CONFIG with what is supported.
int gpu_supports(int compute, enum device_precision precision, int64_t head_dim, struct err *e) ERR_CHECK;

// Scratch: an op's own, one at a time, so a step takes the most of all.
size_t gpu_col_sum_bytes(int64_t rows, int64_t cols);
size_t gpu_squares_bytes(int64_t blocks, int64_t parts); // of GPU_SQUARES numbers each, of all parts
int64_t gpu_squares_blocks(int64_t n);                   // of one part
size_t gpu_loss_bytes(int64_t frames, int64_t elems);
size_t gpu_rope_backward_bytes(int64_t rows, int64_t heads);
// adaLN's sums of `vectors` [groups, width] each, gathered from so many chunks.
size_t gpu_mod_sums_bytes(int64_t chunks, int64_t groups, int64_t vectors, int64_t width);

// Attention. Which kernels run, into how many splits a forward's keys are cut, and the scratch of each.
bool gpu_attention_is_hopper(int compute, int head_dim);
int gpu_attention_splits(int64_t tiles, int steps);
// The forward of Hopper: whether pairs of blocks are considered for so many tiles of queries of all heads,
// and whether they pay: where next to nothing is computed that only one block of a pair needs. Work:
// schedule_work of tiles of SM90_ROWS, and of twice as many rows. At head_dim 64 exponentials, not L2, are
// the narrowest place.
bool gpu_attention_considers_pairs(int head_dim, int64_t tiles);
bool gpu_attention_pairs_heads(int heads, int kv_heads); // else tiles are paired
bool gpu_attention_pairs(int64_t work, int64_t work_of_pairs);
size_t gpu_attention_split_bytes(int splits, int64_t rows_heads, int head_dim);
size_t gpu_backward80_bytes(int64_t padded_rows);
struct gpu_backward90 {
    size_t flags, rows, dq; // one behind the other
};
struct gpu_backward90 gpu_backward90_bytes(int64_t sequences, int64_t heads, int64_t padded, int64_t tiles,
                                           int head_dim);

// All of it for a forward and a backward with one mask for all sequences.
struct gpu_attention_shape {
    int64_t sequences;
    int heads, kv_heads, head_dim;
    const struct mask *mask;
    bool in_f32; // attention_f32.cu's: both passes walk the forward's schedule, without scratch
};
struct gpu_attention_bytes {
    size_t schedules, scratch; // kept; the most at a time
};
int gpu_attention_plan(struct gpu_attention_bytes *out, int compute, const struct gpu_attention_shape *s,
                       struct err *e) ERR_CHECK;

#ifdef __cplusplus
}
#endif

#endif
