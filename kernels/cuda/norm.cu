// SPDX-License-Identifier: Apache-2.0
// RMSNorm with adaLN and the gated residual. With h = x r, r = 1 / sqrt(mean x^2 + 1e-6):
//   y = h (1 + k) + s;   dx += r (u - h mean(u h)), u = dy (1 + k);   ds = sum dy, dk = sum dy h over the
//   group out = x + (1 + g) y; dy = (1 + g) dx;                             dg = sum dx y over the group
// The stream x, its gradient dx, c, mod and their gradients are fp32; y and dy are T. Sums are fp32.
// Forward: a warp owns a row and keeps up to 2048 columns in registers. Backward: a block owns a chunk of at
// most CHUNK tokens of one group; a thread owns columns and keeps its share of x, dy, scale and both sums in
// registers, of the first 4096 columns; of further ones it reads them again and adds to scratch at once. The
// sums go to scratch and are added in two more stages, chunks of a group in order (dc), groups in a fixed
// tree (dmod): the order depends on shapes alone. Bytes per element (bf16): norm 4 + 2, backward 4 + 2 + 8;
// gate 4 + 2 + 4, backward 2 + 4 + 2. A lane's access is 16 bytes of fp32 (8 of bf16), so that a warp's is
// one piece: packs of eight would leave gaps between lanes, and L1 would serve each fp32 access in twice the
// rounds.
#include "kernels/cuda/kernel.cuh"

#define NORM_EPS 1e-6f
enum { CHUNK = GPU_CHUNK, WARPS = CUDA_THREADS / CUDA_WARP };

// Elements of an access where rows allow packs of V.
template <int V> constexpr int pack_of = V == CUDA_PACK ? 4 : 1;

// The vectors of one group: columns [part*D, (part+1)*D) of c[group] + mod; c.at NULL: none.
struct mod_view {
    rows_of<const float> c, mod;
    int first; // part 0 of this half: 3 which
};

struct norm_shape {
    int64_t rows; // tokens
    int width;
    struct slot_table slots;
    __device__ __forceinline__ int64_t group_of(int64_t row) const {
        return row / slots.per_frame * slots.modalities + slots.of((int32_t)(row % slots.per_frame));
    }
};

template <int V>
__device__ __forceinline__ void load_mod(const mod_view &m, int64_t group, int part, int width, int at,
                                         float *out) {
    float mod[V];
    load_pack<V>(m.c.row(group) + (int64_t)(m.first + part) * width + at, out);
    load_pack<V>(m.mod.row(m.first + part) + at, mod);
#pragma unroll
    for (int k = 0; k < V; k++) out[k] += mod[k];
}

template <class T, int V>
static __global__ void norm_kernel(rows_of<const float> x, rows_of<T> y, float *rstd,
                                   const __grid_constant__ mod_view m, const __grid_constant__ norm_shape s) {
    enum { KEPT = 16, STEP = CUDA_WARP * V }; // packs of a lane
    int lane = (int)threadIdx.x % CUDA_WARP, first = lane * V, rest = first + KEPT * STEP;
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / CUDA_WARP;
    if (row >= s.rows) return;
    const float *from = x.row(row);
    float sum = 0, kept[KEPT][V], v[V];
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        if (first + j * STEP >= s.width) break;
        load_pack<V>(from + first + j * STEP, kept[j]);
#pragma unroll
        for (int k = 0; k < V; k++) sum = fmaf(kept[j][k], kept[j][k], sum);
    }
    for (int at = rest; at < s.width; at += STEP) {
        load_pack<V>(from + at, v);
#pragma unroll
        for (int k = 0; k < V; k++) sum = fmaf(v[k], v[k], sum);
    }
    float r = rsqrtf(warp_sum(sum) / (float)s.width + NORM_EPS);
    if (lane == 0) rstd[row] = r;
    int64_t group = m.c.at ? s.group_of(row) : 0;
    auto finish = [&](int at, float(&v)[V]) {
        float shift[V], scale[V];
        if (m.c.at) {
            load_mod<V>(m, group, 0, s.width, at, shift);
            load_mod<V>(m, group, 1, s.width, at, scale);
        }
#pragma unroll
        for (int k = 0; k < V; k++) {
            v[k] *= r;
            if (m.c.at) v[k] = fmaf(v[k], scale[k] + 1.0f, shift[k]);
        }
        store_pack<V>(y.row(row) + at, v);
    };
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        if (first + j * STEP >= s.width) break;
        finish(first + j * STEP, kept[j]);
    }
    for (int at = rest; at < s.width; at += STEP) {
        load_pack<V>(from + at, v);
        finish(at, v);
    }
}

// Chunks of a frame: modality after modality, chunk_first[m] .. chunk_first[m + 1] - 1 are m's.
struct chunk_table {
    int32_t first[OPS_MODALITIES_MAX + 1];
    int32_t per_frame;
};

struct chunk_at {
    int64_t row, group; // of its first token
    int tokens;
};

__device__ __forceinline__ chunk_at find_chunk(const chunk_table &chunks, const slot_table &slots,
                                               int64_t number) {
    int64_t frame = number / chunks.per_frame;
    int32_t c = (int32_t)(number % chunks.per_frame);
    int m = 0;
    while (c >= chunks.first[m + 1]) m++;
    int32_t slot = slots.first[m] + (c - chunks.first[m]) * CHUNK;
    int left = slots.first[m + 1] - slot;
    return chunk_at{frame * slots.per_frame + slot, frame * slots.modalities + m,
                    left < CHUNK ? left : (int)CHUNK};
}

template <class T> struct norm_slope {
    rows_of<const float> x;
    const float *rstd;
    rows_of<const T> dy;
    rows_of<float> dx;
    mod_view m;
    norm_shape s;
    chunk_table chunks;
    float *part; // [chunks, 2, width]: ds, dk
};

// V columns of a chunk's tokens, one token after another. u is dy, then dy (1 + scale).
template <class T, int V, bool MOD> struct norm_columns {
    float v[V], u[V], g[V], scale[V], ds[V], dk[V];
    __device__ __forceinline__ void begin(const norm_slope<T> &a, int64_t group, int at) {
        if (MOD) load_mod<V>(a.m, group, 1, a.s.width, at, scale);
#pragma unroll
        for (int k = 0; k < V; k++) ds[k] = dk[k] = 0;
    }
    __device__ __forceinline__ void load(const norm_slope<T> &a, int64_t row, int at) {
        load_pack<V>(a.x.row(row) + at, v);
        load_pack<V>(a.dy.row(row) + at, u);
        load_pack<V>(a.dx.row(row) + at, g);
    }
    // Their share of sum u h.
    __device__ __forceinline__ float add(float r) {
        float dot = 0;
#pragma unroll
        for (int k = 0; k < V; k++) {
            float h = v[k] * r;
            if (MOD) {
                ds[k] += u[k];
                dk[k] = fmaf(u[k], h, dk[k]);
                u[k] *= scale[k] + 1.0f;
            }
            dot = fmaf(u[k], h, dot);
        }
        return dot;
    }
    __device__ __forceinline__ void finish(float *dx, float r, float mean) {
#pragma unroll
        for (int k = 0; k < V; k++) g[k] = fmaf(u[k] - v[k] * r * mean, r, g[k]);
        store_pack<V>(dx, g);
    }
    __device__ __forceinline__ void load_sums(const float *from, int width) {
        load_pack<V>(from, ds);
        load_pack<V>(from + width, dk);
    }
    __device__ __forceinline__ void store_sums(float *to, int width) const {
        store_pack<V>(to, ds);
        store_pack<V>(to + width, dk);
    }
};

// KEPT packs of a thread stay in registers. The sums of further columns lie in `part`, each thread's own.
template <class T, int V, int KEPT, bool MOD>
static __global__ void __launch_bounds__(CUDA_THREADS, KEPT *V <= 8 ? 3 : 2)
    norm_backward_kernel(const __grid_constant__ norm_slope<T> a) {
    __shared__ float sums[2][WARPS];
    chunk_at c = find_chunk(a.chunks, a.s.slots, blockIdx.x);
    int width = a.s.width, step = (int)blockDim.x * V, first = (int)threadIdx.x * V,
        far = first + KEPT * step;
    float *to = MOD ? a.part + (int64_t)blockIdx.x * 2 * width : nullptr;
    norm_columns<T, V, MOD> kept[KEPT], other;
#pragma unroll
    for (int j = 0; j < KEPT; j++)
        if (first + j * step < width) kept[j].begin(a, c.group, first + j * step);
    for (int at = far; MOD && at < width; at += step) {
        other.begin(a, c.group, at);
        other.store_sums(to + at, width);
    }
    for (int t = 0; t < c.tokens; t++) {
        int64_t row = c.row + t;
        float r = a.rstd[row], dot = 0;
#pragma unroll
        for (int j = 0; j < KEPT; j++)
            if (first + j * step < width) kept[j].load(a, row, first + j * step);
#pragma unroll
        for (int j = 0; j < KEPT; j++)
            if (first + j * step < width) dot += kept[j].add(r);
        for (int at = far; at < width; at += step) {
            other.begin(a, c.group, at);
            other.load(a, row, at);
            if (MOD) other.load_sums(to + at, width);
            dot += other.add(r);
            if (MOD) other.store_sums(to + at, width);
        }
        // The other half of `sums` is free: whoever wrote it has passed the barrier of the token between.
        float mean = block_sum(dot, sums[t % 2]) / (float)width;
#pragma unroll
        for (int j = 0; j < KEPT; j++)
            if (first + j * step < width) kept[j].finish(a.dx.row(row) + first + j * step, r, mean);
        for (int at = far; at < width; at += step) {
            other.begin(a, c.group, at);
            other.load(a, row, at);
            other.add(r);
            other.finish(a.dx.row(row) + at, r, mean);
        }
    }
#pragma unroll
    for (int j = 0; j < KEPT; j++)
        if (MOD && first + j * step < width) kept[j].store_sums(to + first + j * step, width);
}

// dc[group] += its chunks in order; their sum takes the place of the first chunk's. `parts` vectors a chunk.
static __global__ void group_sum_kernel(float *part, float *group_sums, rows_of<float> dc, int first,
                                        int width, const __grid_constant__ slot_table slots,
                                        const __grid_constant__ chunk_table chunks, uint32_t items,
                                        divider n) {
    EACH_ITEM(i, items) {
        uint32_t group = n.of(i), col = i - group * n.by, frame = group / (uint32_t)slots.modalities;
        uint32_t m = group - frame * (uint32_t)slots.modalities;
        float sum = 0;
        for (int32_t c = chunks.first[m]; c < chunks.first[m + 1]; c++)
            sum += part[((int64_t)frame * chunks.per_frame + c) * n.by + col];
        group_sums[i] = sum;
        dc.row(group)[(int64_t)first * width + col] += sum;
    }
}

static chunk_table chunks_of(const slot_table &slots) {
    chunk_table c = {};
    for (int m = 0; m < slots.modalities; m++)
        c.first[m + 1] = c.first[m] + (int32_t)cuda_blocks(slots.first[m + 1] - slots.first[m], CHUNK);
    c.per_frame = c.first[slots.modalities];
    return c;
}

static bool mod_fits(const struct tensor *c, const struct tensor *mod, const struct token_map *map,
                     int64_t width) {
    if (c->data == NULL) return mod->data == NULL;
    return cuda_is_f32(c, map->frames * map->modalities, 6 * width) && cuda_is_f32(mod, 6, width);
}

static mod_view view_of(const struct tensor *c, const struct tensor *mod, int which) {
    return mod_view{cuda_rows<const float>(c), cuda_rows<const float>(mod), 3 * which};
}

// Threads of a block whose threads own packs of a row.
static int row_threads(int64_t width, int pack) {
    int64_t threads = cuda_blocks(cuda_blocks(width, pack), CUDA_WARP) * CUDA_WARP;
    return threads < CUDA_THREADS ? (int)threads : (int)CUDA_THREADS;
}

// The sums of `parts` vectors per chunk: to dc, and over all groups to dmod. Scratch layout: part | groups |
// columns.
struct mod_sums {
    float *part, *groups;
    void *columns;
};

static int take_sums(struct device *d, mod_sums *out, int64_t chunks, int64_t groups, int64_t vectors,
                     int64_t width, struct err *e) {
    int64_t n = vectors * width;
    size_t bytes = (size_t)((chunks + groups) * n) * sizeof(float), align = 256;
    void *base = NULL;
    int rc = cuda_scratch(d, &base, gpu_mod_sums_bytes(chunks, groups, vectors, width), e);
    out->part = (float *)base;
    out->groups = out->part + chunks * n;
    out->columns = (char *)base + (bytes + align - 1) / align * align;
    return rc;
}

static int finish_sums(struct device *d, const mod_sums *m, const struct tensor *dc,
                       const struct tensor *dmod, int first, int parts, const norm_shape &s,
                       const chunk_table &chunks, struct err *e) {
    int64_t groups = s.rows / s.slots.per_frame * s.slots.modalities, n = (int64_t)parts * s.width;
    CUDA_REQUIRE(cuda_is_few(groups * n));
    int rc = CUDA_RUN(d, group_sum_kernel, cuda_grid(groups * n, CUDA_THREADS), CUDA_THREADS, 0, m->part,
                      m->groups, cuda_rows<float>(dc), first, s.width, s.slots, chunks,
                      (uint32_t)(groups * n), divide_by(n));
    if (rc) return rc;
    // [parts, width] of dmod are rows that may lie apart.
    for (int p = 0; !rc && p < parts; p++)
        rc = cuda_col_sum_f32(d, m->groups + (int64_t)p * s.width, n, groups, s.width,
                              cuda_rows<float>(dmod).at + (first + p) * dmod->stride[0], true, m->columns, e);
    return rc;
}

template <class T, int V>
static int run_norm(struct device *d, const struct op_norm_mod_args *a, struct err *e) {
    norm_shape s = {a->x.shape[0], (int)a->x.shape[1], {}};
    if (!cuda_slots(a->map, &s.slots)) return err_set(e, ERR_BUG, "norm_mod: the token map is none");
    return CUDA_RUN(d, (norm_kernel<T, pack_of<V>>), cuda_blocks(s.rows, WARPS), CUDA_THREADS, 0,
                    cuda_rows<const float>(&a->x), cuda_rows<T>(&a->y), tensor_f32(&a->rstd),
                    view_of(&a->c, &a->mod, a->which), s);
}

int cuda_norm_mod(struct device *d, const struct op_norm_mod_args *a, struct err *e) {
    int64_t width = a->x.shape[1], tokens = a->map->frames * a->map->per_frame;
    CUDA_REQUIRE((a->which == 0 || a->which == 1) && width < INT32_MAX / 6);
    CUDA_REQUIRE(cuda_is_f32(&a->x, tokens, width) && cuda_is_rows(&a->y, tokens, width));
    CUDA_REQUIRE(cuda_is_vector(&a->rstd, tokens) && mod_fits(&a->c, &a->mod, a->map, width));
    if (tokens == 0) return 0;
    auto run = CUDA_TYPED(a->y.dtype, cuda_is_wide(&a->x, &a->y, &a->c, &a->mod), run_norm);
    return run(d, a, e);
}

template <class T, int V, int KEPT>
static int launch_norm_backward(struct device *d, const norm_slope<T> &a, int64_t blocks, struct err *e) {
    int threads = row_threads(a.s.width, KEPT * V);
    return a.part ? CUDA_RUN(d, (norm_backward_kernel<T, V, KEPT, true>), blocks, threads, 0, a)
                  : CUDA_RUN(d, (norm_backward_kernel<T, V, KEPT, false>), blocks, threads, 0, a);
}

template <class T, int V>
static int run_norm_backward(struct device *d, const struct op_norm_mod_backward_args *a, struct err *e) {
    enum { PACK = pack_of<V>, FEW = PACK == 1 ? 4 : 2, MANY = 4 }; // of the registers that blocks leave
    norm_shape s = {a->x.shape[0], (int)a->x.shape[1], {}};
    if (!cuda_slots(a->map, &s.slots)) return err_set(e, ERR_BUG, "norm_mod_backward: the token map is none");
    chunk_table chunks = chunks_of(s.slots);
    int64_t n = a->map->frames * chunks.per_frame, groups = a->map->frames * s.slots.modalities;
    mod_sums sums = {};
    int rc = a->c.data ? take_sums(d, &sums, n, groups, 2, s.width, e) : 0;
    if (rc) return rc;
    norm_slope<T> of = {cuda_rows<const float>(&a->x),
                        (const float *)a->rstd.data,
                        cuda_rows<const T>(&a->dy),
                        cuda_rows<float>(&a->dx),
                        view_of(&a->c, &a->mod, a->which),
                        s,
                        chunks,
                        sums.part};
    rc = s.width <= CUDA_THREADS * FEW * PACK ? launch_norm_backward<T, PACK, FEW>(d, of, n, e)
                                              : launch_norm_backward<T, PACK, MANY>(d, of, n, e);
    if (rc || !a->c.data) return rc;
    return finish_sums(d, &sums, &a->dc, &a->dmod, 3 * a->which, 2, s, chunks, e);
}

int cuda_norm_mod_backward(struct device *d, const struct op_norm_mod_backward_args *a, struct err *e) {
    int64_t width = a->x.shape[1], tokens = a->map->frames * a->map->per_frame;
    CUDA_REQUIRE((a->which == 0 || a->which == 1) && width <= 16384);
    CUDA_REQUIRE(cuda_is_f32(&a->x, tokens, width) && cuda_is_rows(&a->dy, tokens, width));
    CUDA_REQUIRE(cuda_is_f32(&a->dx, tokens, width) && cuda_is_vector(&a->rstd, tokens));
    CUDA_REQUIRE(mod_fits(&a->c, &a->mod, a->map, width));
    CUDA_REQUIRE(a->c.data == NULL || (a->dc.data && mod_fits(&a->dc, &a->dmod, a->map, width)));
    if (tokens == 0) return 0;
    auto run =
        CUDA_TYPED(a->dy.dtype, cuda_is_wide(&a->x, &a->dy, &a->dx, &a->c, &a->mod), run_norm_backward);
    return run(d, a, e);
}

template <class T, int V>
static __global__ void gate_kernel(rows_of<const float> x, rows_of<const T> y, rows_of<float> out,
                                   const __grid_constant__ mod_view m, const __grid_constant__ norm_shape s) {
    int64_t packs = s.width / V;
    for (int64_t i = thread_number(); i < s.rows * packs; i += thread_count()) {
        int64_t row = i / packs;
        int at = (int)(i % packs) * V;
        float v[V], w[V], g[V];
        load_pack<V>(x.row(row) + at, v);
        load_pack<V>(y.row(row) + at, w);
        load_mod<V>(m, s.group_of(row), 2, s.width, at, g);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = fmaf(g[k] + 1.0f, w[k], v[k]);
        store_pack<V>(out.row(row) + at, v);
    }
}

template <class T, int V>
static int run_gate(struct device *d, const struct op_gated_add_args *a, struct err *e) {
    norm_shape s = {a->x.shape[0], (int)a->x.shape[1], {}};
    if (!cuda_slots(a->map, &s.slots)) return err_set(e, ERR_BUG, "gated_add: the token map is none");
    return CUDA_RUN(d, (gate_kernel<T, V>), cuda_grid(s.rows * s.width / V, CUDA_THREADS), CUDA_THREADS, 0,
                    cuda_rows<const float>(&a->x), cuda_rows<const T>(&a->y), cuda_rows<float>(&a->out),
                    view_of(&a->c, &a->mod, a->which), s);
}

int cuda_gated_add(struct device *d, const struct op_gated_add_args *a, struct err *e) {
    int64_t width = a->x.shape[1], tokens = a->map->frames * a->map->per_frame;
    CUDA_REQUIRE((a->which == 0 || a->which == 1) && width < INT32_MAX / 6);
    CUDA_REQUIRE(cuda_is_f32(&a->x, tokens, width) && cuda_is_rows(&a->y, tokens, width));
    CUDA_REQUIRE(cuda_is_f32(&a->out, tokens, width));
    CUDA_REQUIRE(a->c.data != NULL && mod_fits(&a->c, &a->mod, a->map, width));
    if (tokens == 0) return 0;
    auto run = CUDA_TYPED(a->y.dtype, cuda_is_wide(&a->x, &a->y, &a->out, &a->c, &a->mod), run_gate);
    return run(d, a, e);
}

// A thread owns columns and walks the chunk's tokens in order. part [chunks, width].
template <class T, int V>
static __global__ void gate_backward_kernel(rows_of<const T> y, rows_of<const float> dx, rows_of<T> dy,
                                            const __grid_constant__ mod_view m,
                                            const __grid_constant__ norm_shape s,
                                            const __grid_constant__ chunk_table chunks, float *part) {
    chunk_at c = find_chunk(chunks, s.slots, blockIdx.x);
    for (int at = (int)threadIdx.x * V; at < s.width; at += (int)blockDim.x * V) {
        float gate[V], dg[V], u[V], w[V];
        load_mod<V>(m, c.group, 2, s.width, at, gate);
#pragma unroll
        for (int k = 0; k < V; k++) dg[k] = 0;
        for (int t = 0; t < c.tokens; t++) {
            load_pack<V>(dx.row(c.row + t) + at, u);
            load_pack<V>(y.row(c.row + t) + at, w);
#pragma unroll
            for (int k = 0; k < V; k++) {
                dg[k] = fmaf(u[k], w[k], dg[k]);
                u[k] *= gate[k] + 1.0f;
            }
            store_pack<V>(dy.row(c.row + t) + at, u);
        }
        store_pack<V>(part + (int64_t)blockIdx.x * s.width + at, dg);
    }
}

template <class T, int V>
static int run_gate_backward(struct device *d, const struct op_gated_add_backward_args *a, struct err *e) {
    norm_shape s = {a->y.shape[0], (int)a->y.shape[1], {}};
    if (!cuda_slots(a->map, &s.slots))
        return err_set(e, ERR_BUG, "gated_add_backward: the token map is none");
    chunk_table chunks = chunks_of(s.slots);
    int64_t n = a->map->frames * chunks.per_frame;
    mod_sums sums = {};
    int rc = take_sums(d, &sums, n, a->map->frames * s.slots.modalities, 1, s.width, e);
    if (!rc)
        rc = CUDA_RUN(d, (gate_backward_kernel<T, V>), n, row_threads(s.width, V), 0,
                      cuda_rows<const T>(&a->y), cuda_rows<const float>(&a->dx), cuda_rows<T>(&a->dy),
                      view_of(&a->c, &a->mod, a->which), s, chunks, sums.part);
    return rc ? rc : finish_sums(d, &sums, &a->dc, &a->dmod, 3 * a->which + 2, 1, s, chunks, e);
}

int cuda_gated_add_backward(struct device *d, const struct op_gated_add_backward_args *a, struct err *e) {
    int64_t width = a->y.shape[1], tokens = a->map->frames * a->map->per_frame;
    CUDA_REQUIRE((a->which == 0 || a->which == 1) && width < INT32_MAX / 6);
    CUDA_REQUIRE(cuda_is_rows(&a->y, tokens, width) && cuda_is_f32(&a->dx, tokens, width));
    CUDA_REQUIRE(cuda_is_rows(&a->dy, tokens, width) && a->dy.dtype == a->y.dtype);
    CUDA_REQUIRE(a->c.data != NULL && a->dc.data != NULL && mod_fits(&a->c, &a->mod, a->map, width));
    CUDA_REQUIRE(mod_fits(&a->dc, &a->dmod, a->map, width));
    if (tokens == 0) return 0;
    auto run = CUDA_TYPED(a->y.dtype, cuda_is_wide(&a->y, &a->dx, &a->dy, &a->c, &a->mod), run_gate_backward);
    return run(d, a, e);
}
