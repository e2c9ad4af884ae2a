// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/sizes.h"

#include "kernels/cuda/schedule.h"

static size_t align_256(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

static int64_t blocks_of(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}

int gpu_supports(int compute, enum device_precision precision, int64_t head_dim, struct err *e) {
    if (compute < GPU_LEAST_COMPUTE)
        return err_set(e, ERR_CONFIG,
                       "this GPU has compute capability %d.%d, needed is %d.%d or later: use device=cpu",
                       compute / 10, compute % 10, GPU_LEAST_COMPUTE / 10, GPU_LEAST_COMPUTE % 10);
    if (precision != DEVICE_BF16) {
        if (head_dim <= 256) return 0;
        return err_set(e, ERR_CONFIG,
                       "model.head_dim %lld is not supported on a GPU; supported in fp32 and tf32: up to 256",
                       (long long)head_dim);
    }
    if (head_dim == 32 || head_dim == 64 || head_dim == 128) return 0;
    return err_set(
        e, ERR_CONFIG,
        "model.head_dim %lld is not supported on a GPU; supported in bf16: 32, 64, 128 (any up to 256, "
        "slowly, with cuda.precision=fp32), or device=cpu",
        (long long)head_dim);
}

// All stages' partial sums: a geometric series.
size_t gpu_col_sum_bytes(int64_t rows, int64_t cols) {
    size_t elems = 0;
    for (int64_t left = blocks_of(rows, GPU_SUM_ROWS); left > 1; left = blocks_of(left, GPU_SUM_ROWS))
        elems += (size_t)(left * cols);
    return elems * sizeof(float);
}

int64_t gpu_squares_blocks(int64_t n) {
    return blocks_of(n, GPU_SQUARES);
}

size_t gpu_squares_bytes(int64_t blocks, int64_t parts) {
    return (size_t)(blocks + parts) * GPU_SQUARES_BYTES;
}

size_t gpu_loss_bytes(int64_t frames, int64_t elems) {
    return (size_t)(frames * blocks_of(elems, GPU_LOSS_ELEMS)) * sizeof(double);
}

size_t gpu_rope_backward_bytes(int64_t rows, int64_t heads) {
    return align_256((size_t)(rows * heads) * sizeof(float)) + gpu_col_sum_bytes(rows, heads);
}

size_t gpu_mod_sums_bytes(int64_t chunks, int64_t groups, int64_t vectors, int64_t width) {
    int64_t n = vectors * width;
    return align_256((size_t)((chunks + groups) * n) * sizeof(float)) + gpu_col_sum_bytes(groups, n);
}

// ---- attention

bool gpu_attention_is_hopper(int compute, int head_dim) {
    return compute == 90 && (head_dim == 64 || head_dim == 128);
}

// How many blocks share the keys of a query tile: a function of shapes alone.
int gpu_attention_splits(int64_t tiles, int steps) {
    enum { WANTED = 256, STEPS = 8, MOST = 64 };
    if (tiles >= WANTED / 2 || tiles == 0) return 1;
    int64_t n = (WANTED + tiles - 1) / tiles, most = steps / STEPS;
    n = n < most ? n : most;
    return n < 1 ? 1 : n > MOST ? MOST : (int)n;
}

bool gpu_attention_considers_pairs(int head_dim, int64_t tiles) {
    return head_dim == 128 && tiles >= 256;
}

bool gpu_attention_pairs_heads(int heads, int kv_heads) {
    return heads / kv_heads % 2 == 0;
}

bool gpu_attention_pairs(int64_t work, int64_t work_of_pairs) {
    return 200 * work_of_pairs <= 101 * work;
}

size_t gpu_attention_split_bytes(int splits, int64_t rows_heads, int head_dim) {
    return splits > 1 ? (size_t)(splits * rows_heads * (head_dim + 1)) * sizeof(float) : 0;
}

size_t gpu_backward80_bytes(int64_t padded_rows) {
    return (size_t)(2 * padded_rows + 4) * sizeof(float);
}

struct gpu_backward90 gpu_backward90_bytes(int64_t sequences, int64_t heads, int64_t padded, int64_t tiles,
                                           int head_dim) {
    size_t all = (size_t)(sequences * heads * tiles);
    return (struct gpu_backward90){.flags = align_256((1 + all) * sizeof(uint32_t)),
                                   .rows =
                                       align_256((size_t)(2 * sequences * heads * padded) * sizeof(float)),
                                   .dq = all * SM90_QUERIES * (size_t)head_dim * sizeof(float)};
}

struct tiled {
    int64_t tiles;
    int steps; // the most of a tile
};

// Adds the schedule of these tiles to what is kept.
static int add_schedule(struct gpu_attention_bytes *out, const struct gpu_attention_shape *s, int row_tile,
                        int col_tile, bool turned, struct tiled *t, struct err *e) {
    struct mask other = {0};
    struct schedule made = {0};
    int rc = turned ? mask_transpose(&other, s->mask, e) : 0;
    const struct mask *rows = turned ? &other : s->mask;
    if (!rc) rc = schedule_build(&made, rows, row_tile, col_tile, e);
    if (!rc) {
        out->schedules += schedule_room(schedule_views_bytes(s->sequences) + schedule_bytes(&made, rows));
        t->tiles = made.n_tiles;
        t->steps = made.n_tiles > 0 ? made.tile[made.order[0]].steps : 0;
    }
    schedule_fini(&made);
    mask_fini(&other);
    return rc;
}

static void need(struct gpu_attention_bytes *out, size_t scratch) {
    if (scratch > out->scratch) out->scratch = scratch;
}

static int plan_forward(struct gpu_attention_bytes *out, bool hopper, const struct gpu_attention_shape *s,
                        struct err *e) {
    struct tiled t;
    int64_t units = s->sequences * s->heads;
    int rc = 0;
    if (hopper) {
        rc = add_schedule(out, s, SM90_ROWS, SM90_KEYS, false, &t, e);
        need(out, sizeof(uint32_t));
        bool whole = !rc && gpu_attention_splits(t.tiles * units, 2 * t.steps) == 1;
        if (whole && gpu_attention_considers_pairs(s->head_dim, t.tiles * units) &&
            !gpu_attention_pairs_heads(s->heads, s->kv_heads))
            rc = add_schedule(out, s, 2 * SM90_ROWS, SM90_KEYS, false, &t, e);
        if (rc || whole) return rc;
    }
    rc = add_schedule(out, s, SM80_ROWS, SM80_COLUMNS, false, &t, e);
    if (!rc)
        need(out, gpu_attention_split_bytes(gpu_attention_splits(t.tiles * units, t.steps),
                                            units * s->mask->queries, s->head_dim));
    return rc;
}

static int plan_backward(struct gpu_attention_bytes *out, bool hopper, const struct gpu_attention_shape *s,
                         struct err *e) {
    struct tiled t;
    int64_t padded = blocks_of(s->mask->queries, SM80_ROWS) * SM80_ROWS;
    int rows = hopper ? SM90_QUERIES : SM80_ROWS, cols = hopper ? SM90_KEYS : SM80_BACKWARD_COLUMNS;
    int turned_rows = hopper ? SM90_KEYS : SM80_ROWS, turned_cols = hopper ? SM90_QUERIES : cols;
    int rc = add_schedule(out, s, turned_rows, turned_cols, true, &t, e);
    if (!rc) rc = add_schedule(out, s, rows, cols, false, &t, e);
    if (rc) return rc;
    struct gpu_backward90 b = gpu_backward90_bytes(s->sequences, s->heads, padded, t.tiles, s->head_dim);
    need(out, hopper ? b.flags + b.rows + b.dq : gpu_backward80_bytes(s->sequences * s->heads * padded));
    return 0;
}

int gpu_attention_plan(struct gpu_attention_bytes *out, int compute, const struct gpu_attention_shape *s,
                       struct err *e) {
    bool hopper = gpu_attention_is_hopper(compute, s->head_dim);
    struct tiled t;
    *out = (struct gpu_attention_bytes){0};
    if (s->in_f32) return add_schedule(out, s, SM80_ROWS, SM80_COLUMNS, false, &t, e);
    int rc = plan_forward(out, hopper, s, e);
    return rc ? rc : plan_backward(out, hopper, s, e);
}
