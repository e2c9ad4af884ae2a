// SPDX-License-Identifier: Apache-2.0
// From frames to tokens and back: copies and one scale, a thread per pack of the output; the sums of
// assemble's backward in eight threads each, in a fixed order. Frames, noise levels, the stream and the
// slots' table are fp32, rows for products and what they give T. Bytes: each input and output once.
#include "kernels/cuda/kernel.cuh"

bool cuda_slots(const struct token_map *map, struct slot_table *out) {
    *out = slot_table{};
    if (!map || map->frames < 0 || map->per_frame < 1 || map->modalities < 1 ||
        map->modalities > OPS_MODALITIES_MAX || !map->slot_modality)
        return false;
    out->per_frame = map->per_frame;
    out->modalities = map->modalities;
    int32_t t = 0;
    for (int m = 0; m < map->modalities; m++) {
        out->first[m] = t;
        while (t < map->per_frame && map->slot_modality[t] == m) t++;
    }
    out->first[map->modalities] = t;
    return t == map->per_frame;
}

static bool grid_is_valid(const struct patch_grid *g) {
    return g->height > 0 && g->width > 0 && g->channels > 0 && g->patch > 0 && g->margin >= 0 &&
           g->height % g->patch == 0 && g->width % g->patch == 0;
}
static int64_t grid_tokens(const struct patch_grid *g) {
    return (int64_t)(g->height / g->patch) * (g->width / g->patch);
}
static int64_t grid_frame(const struct patch_grid *g) {
    return (int64_t)g->height * g->width * g->channels;
}

struct patch_shape {
    struct patch_grid grid;
    int64_t rows, tau_stride;
    int tokens, across, slots, value, seen, cols;
    bool even; // eight elements of a row from a multiple of eight on are of one line
    divider packs, by_frames, by_tokens, by_across, by_seen; // a row's; a sequence's, frame's, picture row's
    divider line, wide_line; // elements of a patch's line, and of its surroundings'
};

static patch_shape shape_of(const struct patch_grid *g, int64_t frames, int slots) {
    int side = g->patch + 2 * g->margin;
    patch_shape s = {*g, frames * grid_tokens(g), 0, (int)grid_tokens(g), g->width / g->patch, slots, 0, 0,
                     0};
    s.value = g->patch * g->patch * g->channels;
    s.seen = side * side * g->channels;
    s.cols = s.value + slots * s.seen;
    s.by_tokens = divide_by(s.tokens);
    s.by_across = divide_by(s.across);
    s.by_seen = divide_by(s.seen);
    s.line = divide_by(g->patch * g->channels);
    s.wide_line = divide_by(side * g->channels);
    s.even = s.value % 8 == 0 && s.line.by % 8 == 0 && s.wide_line.by % 8 == 0;
    return s;
}

// A place in a row of patchify: a line of the patch or, beyond it, of its surroundings in an earlier frame.
// Elements `lo` to `hi` of the line lie in the picture; others, and a frame before the first, are zero.
struct patch_place {
    const float *line;
    int along, lo, hi;
    float scale;
    __device__ __forceinline__ float operator[](int k) const {
        return along + k >= lo && along + k < hi ? line[along + k] * scale : 0.0f;
    }
};

struct patch_frame {
    const float *z, *history; // rows of this frame
    int64_t history_ld;
    int top, left, since; // of the token; frames of its sequence before this one
    float scale;          // of z
};

__device__ __forceinline__ patch_place place_of(const patch_shape &s, const patch_frame &f, int col) {
    int slot = col < s.value ? 0 : (int)s.by_seen.of((uint32_t)(col - s.value)) + 1;
    int i = slot == 0 ? col : col - s.value - (slot - 1) * s.seen, margin = slot == 0 ? 0 : s.grid.margin;
    const divider &line = slot == 0 ? s.line : s.wide_line;
    int down = (int)line.of((uint32_t)i), y = f.top - margin + down, width = s.grid.width * s.grid.channels,
        left = (f.left - margin) * s.grid.channels;
    bool in = f.since >= slot && y >= 0 && y < s.grid.height;
    const float *frame = slot == 0 ? f.z : f.history - slot * f.history_ld;
    return patch_place{frame + (int64_t)y * width + left, i - down * (int)line.by, in ? max(-left, 0) : 0,
                       in ? min(width - left, (int)line.by) : 0, slot == 0 ? f.scale : 1.0f};
}

// Eight elements of one line.
__device__ __forceinline__ void load_line(const patch_place &p, float *v) {
    const float *from = p.line + p.along;
    if (p.along >= p.hi || p.along + 8 <= p.lo) {
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = 0;
    } else if (p.along >= p.lo && p.along + 8 <= p.hi && (uintptr_t)from % 16 == 0) {
        load_pack<8>(from, v);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] *= p.scale;
    } else {
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = p[k];
    }
}

template <class T, int V>
static __global__ void patchify_kernel(rows_of<const float> z, rows_of<const float> history, const float *tau,
                                       rows_of<T> rows, const __grid_constant__ patch_shape s) {
    EACH_ITEM(i, (uint32_t)s.rows * s.packs.by) {
        uint32_t row = s.packs.of(i), frame = s.by_tokens.of(row), token = row - frame * s.by_tokens.by,
                 down = s.by_across.of(token);
        int at = (int)(i - row * s.packs.by) * V;
        float t = tau[frame * s.tau_stride], v[V];
        patch_frame f = {z.row(frame),
                         history.row(frame),
                         history.ld,
                         (int)down * s.grid.patch,
                         (int)(token - down * s.by_across.by) * s.grid.patch,
                         (int)(frame - s.by_frames.of(frame) * s.by_frames.by),
                         t / (t * t + (1 - t) * (1 - t))};
        if constexpr (V == 8) {
            if (s.even) {
                load_line(place_of(s, f, at), v);
                store_pack<V>(rows.row(row) + at, v);
                continue;
            }
        }
        for (int k = 0; k < V; k++) v[k] = place_of(s, f, at + k)[0];
        store_pack<V>(rows.row(row) + at, v);
    }
}

template <class T, int V>
static int run_patchify(struct device *d, const struct op_patchify_args *a, struct err *e) {
    patch_shape s = shape_of(&a->grid, a->z.shape[0], a->slots);
    s.tau_stride = a->tau_stride;
    s.by_frames = divide_by(a->frames);
    s.packs = divide_by(s.cols / V);
    CUDA_REQUIRE(cuda_is_few(s.rows * s.cols / V));
    return CUDA_RUN(d, (patchify_kernel<T, V>), cuda_grid(s.rows * (s.cols / V), CUDA_THREADS), CUDA_THREADS,
                    0, cuda_rows<const float>(&a->z), cuda_rows<const float>(&a->history),
                    (const float *)a->tau.data, cuda_rows<T>(&a->rows), s);
}

int cuda_patchify(struct device *d, const struct op_patchify_args *a, struct err *e) {
    const struct patch_grid *g = &a->grid;
    int64_t frames = a->z.shape[0];
    CUDA_REQUIRE(grid_is_valid(g) && a->slots >= 0 && a->frames > 0 && frames % a->frames == 0);
    CUDA_REQUIRE(grid_frame(g) < INT32_MAX && (a->slots + 1) * (grid_frame(g) + 1) < INT32_MAX);
    CUDA_REQUIRE(cuda_is_f32(&a->z, frames, grid_frame(g)) && a->tau.data != NULL);
    CUDA_REQUIRE(a->slots == 0 || cuda_is_f32(&a->history, frames, grid_frame(g)));
    CUDA_REQUIRE(cuda_is_rows(&a->rows, frames * grid_tokens(g), shape_of(g, frames, a->slots).cols));
    if (frames == 0) return 0;
    auto run = CUDA_TYPED(a->rows.dtype, cuda_is_wide(&a->rows), run_patchify);
    return run(d, a, e);
}

template <class T>
static __global__ void unpatchify_kernel(rows_of<const T> rows, rows_of<float> frame, int64_t frames,
                                         patch_shape s) {
    int64_t elems = (int64_t)s.grid.height * s.grid.width * s.grid.channels;
    for (int64_t i = thread_number(); i < frames * elems; i += thread_count()) {
        int64_t f = i / elems;
        int at = (int)(i % elems), channel = at % s.grid.channels, pixel = at / s.grid.channels;
        int y = pixel / s.grid.width, x = pixel % s.grid.width, p = s.grid.patch;
        int token = y / p * s.across + x / p, col = (y % p * p + x % p) * s.grid.channels + channel;
        frame.row(f)[at] = number_of(rows.row(f * s.tokens + token)[col]);
    }
}

template <class T>
static int run_unpatchify(struct device *d, const struct op_unpatchify_args *a, struct err *e) {
    int64_t frames = a->frame.shape[0];
    return CUDA_RUN(d, unpatchify_kernel<T>, cuda_grid(frames * grid_frame(&a->grid), CUDA_THREADS),
                    CUDA_THREADS, 0, cuda_rows<const T>(&a->rows), cuda_rows<float>(&a->frame), frames,
                    shape_of(&a->grid, frames, 0));
}

int cuda_unpatchify(struct device *d, const struct op_unpatchify_args *a, struct err *e) {
    const struct patch_grid *g = &a->grid;
    int64_t frames = a->frame.shape[0];
    CUDA_REQUIRE(grid_is_valid(g) && grid_frame(g) < INT32_MAX &&
                 cuda_is_f32(&a->frame, frames, grid_frame(g)));
    CUDA_REQUIRE(cuda_is_rows(&a->rows, frames * grid_tokens(g), (int64_t)g->patch * g->patch * g->channels));
    if (frames == 0) return 0;
    return a->rows.dtype == DTYPE_BF16 ? run_unpatchify<bf16>(d, a, e) : run_unpatchify<float>(d, a, e);
}

template <class T> struct rows_table { rows_of<T> of[OPS_MODALITIES_MAX]; };
template <class T> static rows_table<T> table_of(const struct tensor *e, int modalities) {
    rows_table<T> t = {};
    for (int m = 0; m < modalities; m++)
        if (e[m].data) t.of[m] = cuda_rows<T>(&e[m]);
    return t;
}

// Row of token (frame, slot) among its modality's rows.
__device__ __forceinline__ int64_t row_of(const slot_table &slots, int m, int64_t frame, int32_t slot) {
    return frame * (slots.first[m + 1] - slots.first[m]) + slot - slots.first[m];
}

template <class T, int V>
static __global__ void assemble_kernel(rows_of<float> x, const __grid_constant__ rows_table<const T> e,
                                       rows_of<const float> slot, rows_of<const T> act,
                                       const __grid_constant__ slot_table slots, uint32_t n, divider packs,
                                       divider per_frame) {
    EACH_ITEM(i, n) {
        uint32_t token = packs.of(i), frame = per_frame.of(token), at = (i - token * packs.by) * V;
        int32_t t = (int32_t)(token - frame * per_frame.by), m;
        float v[V], w[V];
        m = slots.of(t);
        load_pack<V>(e.of[m].row(row_of(slots, m, frame, t)) + at, v);
        load_pack<V>(slot.row(t) + at, w);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] += w[k];
        if (act.at) {
            load_pack<V>(act.row(frame) + at, w);
#pragma unroll
            for (int k = 0; k < V; k++) v[k] += w[k];
        }
        store_pack<V>(x.row(token) + at, v);
    }
}

// The type of the first tensor that is there.
static enum dtype dtype_of(const struct tensor *e, int modalities, enum dtype otherwise) {
    for (int m = 0; m < modalities; m++)
        if (e[m].data) return e[m].dtype;
    return otherwise;
}
static bool rows_fit(const struct tensor *e, const slot_table &slots, int64_t frames, int64_t width,
                     enum dtype dtype, bool optional) {
    for (int m = 0; m < slots.modalities; m++) {
        int64_t n = slots.first[m + 1] - slots.first[m];
        if (n == 0 || (optional && !e[m].data)) continue;
        if (!cuda_is_rows(&e[m], frames * n, width) || e[m].dtype != dtype) return false;
    }
    return true;
}
static bool rows_wide(const struct tensor *e, int modalities) {
    for (int m = 0; m < modalities; m++)
        if (!cuda_is_wide(&e[m])) return false;
    return true;
}

template <class T, int V>
static int run_assemble(struct device *d, const struct op_assemble_args *a, struct err *e) {
    slot_table slots;
    if (!cuda_slots(a->map, &slots)) return err_set(e, ERR_BUG, "assemble: the token map is none");
    int64_t packs = a->x.shape[1] / V, n = a->x.shape[0] * packs;
    CUDA_REQUIRE(cuda_is_few(n));
    return CUDA_RUN(d, (assemble_kernel<T, V>), cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<float>(&a->x), table_of<const T>(a->e, slots.modalities),
                    cuda_rows<const float>(&a->slot), cuda_rows<const T>(&a->act), slots, (uint32_t)n,
                    divide_by(packs), divide_by(slots.per_frame));
}

int cuda_assemble(struct device *d, const struct op_assemble_args *a, struct err *e) {
    slot_table slots;
    int64_t frames = a->map->frames, width = a->x.shape[1];
    CUDA_REQUIRE(cuda_slots(a->map, &slots) && width < INT32_MAX);
    enum dtype dtype = dtype_of(a->e, slots.modalities, DTYPE_F32);
    CUDA_REQUIRE(cuda_is_f32(&a->x, frames * slots.per_frame, width) &&
                 cuda_is_f32(&a->slot, slots.per_frame, width));
    CUDA_REQUIRE(a->act.data == NULL || (cuda_is_rows(&a->act, frames, width) && a->act.dtype == dtype));
    CUDA_REQUIRE(rows_fit(a->e, slots, frames, width, dtype, false));
    if (frames == 0) return 0;
    bool wide = cuda_is_wide(&a->x, &a->slot, &a->act) && rows_wide(a->e, slots.modalities);
    auto run = CUDA_TYPED(dtype, wide, run_assemble);
    return run(d, a, e);
}

template <class T, int V>
static __global__ void spread_kernel(rows_of<const float> dx, const __grid_constant__ rows_table<T> de,
                                     const __grid_constant__ slot_table slots, uint32_t n, divider packs,
                                     divider per_frame) {
    EACH_ITEM(i, n) {
        uint32_t token = packs.of(i), frame = per_frame.of(token), at = (i - token * packs.by) * V;
        int32_t t = (int32_t)(token - frame * per_frame.by);
        int m = slots.of(t);
        float v[V];
        if (!de.of[m].at) continue;
        load_pack<V>(dx.row(token) + at, v);
        store_pack<V>(de.of[m].row(row_of(slots, m, frame, t)) + at, v);
    }
}

// Sums of rows of dx: `count` of them, `step` apart, from group * apart on.
struct folding {
    int32_t count;
    int64_t apart, step;
    divider blocks; // of packs, to a group
    uint32_t packs;
    bool accumulate;
};

enum { FOLD_PACKS = 32, FOLD_LANES = 8 };

// Block (FOLD_PACKS, FOLD_LANES): a thread adds every eighth row of its pack, then eight threads' sums are
// added in order. One thread a pack would leave a GPU idle: there are some ten thousand packs.
template <class T, int V>
static __global__ void fold_kernel(rows_of<const float> dx, rows_of<T> out,
                                   const __grid_constant__ folding f) {
    __shared__ float part[FOLD_LANES][FOLD_PACKS][V];
    uint32_t group = f.blocks.of(blockIdx.x),
             pack = (blockIdx.x - group * f.blocks.by) * FOLD_PACKS + threadIdx.x;
    float sum[V] = {}, v[V];
    for (int32_t i = (int32_t)threadIdx.y; pack < f.packs && i < f.count; i += FOLD_LANES) {
        load_pack<V>(dx.row(group * f.apart + i * f.step) + pack * V, v);
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += v[k];
    }
#pragma unroll
    for (int k = 0; k < V; k++) part[threadIdx.y][threadIdx.x][k] = sum[k];
    __syncthreads();
    if (threadIdx.y != 0 || pack >= f.packs) return;
    for (int lane = 1; lane < FOLD_LANES; lane++) {
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += part[lane][threadIdx.x][k];
    }
    if (f.accumulate) {
        load_pack<V>(out.row(group) + pack * V, v);
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += v[k];
    }
    store_pack<V>(out.row(group) + pack * V, sum);
}

template <class T, int V>
static int fold(struct device *d, rows_of<const float> dx, rows_of<T> out, int64_t groups, folding f,
                struct err *e) {
    int64_t blocks = cuda_blocks(f.packs, FOLD_PACKS);
    f.blocks = divide_by(blocks);
    CUDA_REQUIRE(cuda_is_few(groups * blocks));
    dim3 grid((unsigned)(groups * blocks)), block(FOLD_PACKS, FOLD_LANES);
    return cuda_check(LAUNCH((fold_kernel<T, V>), grid, block, 0, cuda_of(d)->stream, dx, out, f),
                      "assemble_backward", e);
}

template <class T, int V>
static int run_assemble_backward(struct device *d, const struct op_assemble_backward_args *a, struct err *e) {
    slot_table slots;
    if (!cuda_slots(a->map, &slots)) return err_set(e, ERR_BUG, "assemble_backward: the token map is none");
    int64_t frames = a->map->frames, tokens = a->dx.shape[0], packs = a->dx.shape[1] / V;
    rows_of<const float> dx = cuda_rows<const float>(&a->dx);
    CUDA_REQUIRE(cuda_is_few(tokens * packs));
    int rc = CUDA_RUN(d, (spread_kernel<T, V>), cuda_grid(tokens * packs, CUDA_THREADS), CUDA_THREADS, 0, dx,
                      table_of<T>(a->de, slots.modalities), slots, (uint32_t)(tokens * packs),
                      divide_by(packs), divide_by(slots.per_frame));
    folding of_frame = {slots.per_frame, slots.per_frame, 1, {}, (uint32_t)packs, false},
            of_slot = {(int32_t)frames, 1, slots.per_frame, {}, (uint32_t)packs, true};
    if (!rc && a->dact.data) rc = fold<T, V>(d, dx, cuda_rows<T>(&a->dact), frames, of_frame, e);
    if (!rc && a->dslot.data)
        rc = fold<float, V>(d, dx, cuda_rows<float>(&a->dslot), slots.per_frame, of_slot, e);
    return rc;
}

int cuda_assemble_backward(struct device *d, const struct op_assemble_backward_args *a, struct err *e) {
    slot_table slots;
    int64_t frames = a->map->frames, width = a->dx.shape[1];
    CUDA_REQUIRE(cuda_slots(a->map, &slots) && width < INT32_MAX);
    enum dtype dtype = dtype_of(a->de, slots.modalities, a->dact.data ? a->dact.dtype : DTYPE_F32);
    CUDA_REQUIRE(cuda_is_f32(&a->dx, frames * slots.per_frame, width));
    CUDA_REQUIRE(a->dslot.data == NULL || cuda_is_f32(&a->dslot, slots.per_frame, width));
    CUDA_REQUIRE(a->dact.data == NULL || (cuda_is_rows(&a->dact, frames, width) && a->dact.dtype == dtype));
    CUDA_REQUIRE(rows_fit(a->de, slots, frames, width, dtype, true));
    if (frames == 0) return 0;
    bool wide = cuda_is_wide(&a->dx, &a->dslot, &a->dact) && rows_wide(a->de, slots.modalities);
    auto run = CUDA_TYPED(dtype, wide, run_assemble_backward);
    return run(d, a, e);
}

// Rows of one modality: out of the sequence, or into it.
template <class T, int V>
static __global__ void move_kernel(rows_of<const T> from, rows_of<T> to, bool out, uint32_t n, int32_t first,
                                   int32_t per_frame, divider packs, divider count) {
    EACH_ITEM(i, n) {
        uint32_t row = packs.of(i), at = (i - row * packs.by) * V, frame = count.of(row);
        int64_t token = (int64_t)frame * per_frame + first + row - frame * count.by;
        float v[V];
        load_pack<V>(from.row(out ? token : row) + at, v);
        store_pack<V>(to.row(out ? row : token) + at, v);
    }
}

struct move {
    const struct tensor *from, *to;
    bool out;
    int64_t frames;
    int32_t first, count, per_frame;
};

template <class T, int V> static int run_move(struct device *d, const struct move *a, struct err *e) {
    int64_t packs = a->from->shape[1] / V, n = a->frames * a->count * packs;
    CUDA_REQUIRE(cuda_is_few(n));
    return CUDA_RUN(d, (move_kernel<T, V>), cuda_grid(n, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const T>(a->from), cuda_rows<T>(a->to), a->out, (uint32_t)n, a->first,
                    a->per_frame, divide_by(packs), divide_by(a->count));
}

static int move(struct device *d, const struct token_map *map, int modality, const struct tensor *x,
                const struct tensor *rows, bool out, struct err *e) {
    slot_table slots;
    CUDA_REQUIRE(cuda_slots(map, &slots) && modality >= 0 && modality < slots.modalities);
    struct move m = {out ? x : rows, out ? rows : x,        out,
                     map->frames,    slots.first[modality], slots.first[modality + 1] - slots.first[modality],
                     slots.per_frame};
    CUDA_REQUIRE(cuda_is_rows(x, map->frames * slots.per_frame, x->shape[1]) && x->dtype == rows->dtype);
    if (m.frames == 0 || m.count == 0) return 0;
    CUDA_REQUIRE(cuda_is_rows(rows, map->frames * m.count, x->shape[1]));
    auto run = CUDA_TYPED(x->dtype, cuda_is_wide(x, rows), run_move);
    return run(d, &m, e);
}

int cuda_gather(struct device *d, const struct op_gather_args *a, struct err *e) {
    return move(d, a->map, a->modality, &a->x, &a->rows, true, e);
}
int cuda_scatter(struct device *d, const struct op_scatter_args *a, struct err *e) {
    return move(d, a->map, a->modality, &a->x, &a->rows, false, e);
}

// cos, then sin, of pi tau {0.5, 1, 2, 4}.
__device__ __forceinline__ void tau_features(float tau, float *out) {
    for (int i = 0; i < 4; i++) sincospif(tau * 0.5f * (float)(1 << i), &out[4 + i], &out[i]);
}

static __global__ void cond_kernel(rows_of<const float> tau, const float *history, rows_of<float> out,
                                   int64_t groups, int modalities, int action) {
    for (int64_t g = thread_number(); g < groups; g += thread_count()) {
        int64_t frame = g / modalities;
        int m = (int)(g % modalities);
        float *to = out.row(g);
        tau_features(tau.row(frame)[m], to);
        tau_features(action >= 0 ? tau.row(frame)[action] : 0.0f, to + 8);
        tau_features(history[frame], to + 16);
        for (int i = 0; i < modalities; i++) to[24 + i] = i == m ? 1.0f : 0.0f;
    }
}

int cuda_cond_features(struct device *d, const struct op_cond_features_args *a, struct err *e) {
    int64_t frames = a->tau.shape[0], modalities = a->tau.shape[1], groups = frames * modalities;
    CUDA_REQUIRE(cuda_is_f32(&a->tau, frames, modalities) && cuda_is_vector(&a->tau_history, frames));
    CUDA_REQUIRE(cuda_is_f32(&a->out, groups, 24 + modalities) && a->action < modalities);
    if (groups == 0) return 0;
    return CUDA_RUN(d, cond_kernel, cuda_grid(groups, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const float>(&a->tau), (const float *)a->tau_history.data,
                    cuda_rows<float>(&a->out), groups, (int)modalities, a->action);
}
