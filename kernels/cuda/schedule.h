// SPDX-License-Identifier: Apache-2.0
// A mask cut into tiles: for each tile of rows (queries, or keys of the transposed mask) the ranges of column
// tiles that are wholly or partly visible. Everything a kernel needs to skip what is unseen and to mask only
// where a boundary runs through a tile. Host side; plain memory that the caller uploads.
#ifndef ORRERY_KERNELS_CUDA_SCHEDULE_H
#define ORRERY_KERNELS_CUDA_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cuda/sizes.h"
#include "kernels/mask.h"

#ifdef __cplusplus
extern "C" {
#endif

// Column tiles lo <= j < hi, all of one kind.
struct schedule_range {
    int32_t lo, hi;
    int32_t partly; // 0: every row of the tile sees every column, and both tiles lie inside the mask
};

struct schedule_tile {
    int32_t first, count; // its ranges, ascending
    int32_t steps;        // column tiles in all
    int32_t pad;
};

// The intervals of one row.
struct schedule_row {
    int32_t first, end;
};

struct schedule {
    int32_t row_tile, col_tile; // sizes
    int32_t n_tiles, n_ranges;  // of rows; of all tiles
    int32_t capacity;           // of range
    struct schedule_tile *tile; // [n_tiles]
    struct schedule_range *range;
    int32_t *order; // row tiles, those with most steps first, equals by number
};

int schedule_build(struct schedule *out, const struct mask *m, int32_t row_tile, int32_t col_tile,
                   struct err *e) ERR_CHECK;
void schedule_fini(struct schedule *s); // NULL-safe members
// Half steps of all row tiles: one that is partly visible counts for one and a half, since its mask is worked
// out.
int64_t schedule_work(const struct schedule *s);

// The parts of one mask and its schedule within a block of device memory, each 16-byte aligned.
struct schedule_layout {
    size_t tile, range, order, row, interval;
};
// Behind *end, which goes on to their end.
struct schedule_layout schedule_place(size_t *end, const struct schedule *s, const struct mask *m);
size_t schedule_bytes(const struct schedule *s, const struct mask *m);
// What so many sequences' own views take at the front of that block.
size_t schedule_views_bytes(int64_t sequences);
// The block that so many bytes get: a power of two, so that most schedules of a job fit into each other's.
size_t schedule_room(size_t bytes);

// Keys see queries: the rows of `out` are m's keys. Work and memory follow the number of intervals of both.
int mask_transpose(struct mask *out, const struct mask *m, struct err *e) ERR_CHECK;

// The rows of m one by one: row[q] = its intervals.
void schedule_rows(const struct mask *m, struct schedule_row *row);

#ifdef __cplusplus
}
#endif

#endif
