// SPDX-License-Identifier: Apache-2.0
// Attention of the GPU, host side: what is supported and which kernels run; and the small kernels around
// them.
//   rows:    delta = sum o dO, and lse in units of log2, once per backward (reads o, dO; order fixed).
//   combine: o = sum over splits of exp(lse_i - lse) o_i, in the order of the splits.
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/attention_sm90.cuh"
#include "kernels/cuda/divider.cuh"

// ---- arguments

static int check_rows(const char *name, const struct tensor *t, int64_t rows, int64_t columns,
                      struct err *e) {
    if (t->dtype != DTYPE_BF16)
        return err_set(e, ERR_CONFIG,
                       "attention: %s is fp32; on a GPU q, k, v, o and their gradients are bf16", name);
    if (t->data == NULL || t->rank != 2 || t->shape[0] != rows || t->shape[1] != columns ||
        t->stride[0] < columns) {
        return err_set(e, ERR_BUG, "attention: %s is not [%lld, %lld]", name, (long long)rows,
                       (long long)columns);
    }
    if ((uintptr_t)t->data % 16 != 0 || t->stride[0] % 8 != 0)
        return err_set(e, ERR_BUG, "attention: rows of %s are not 16-byte aligned", name);
    return 0;
}

static int check_masks(const struct mask *const *masks, int64_t sequences, struct err *e) {
    for (int64_t b = 0; b < sequences; b++) {
        if (masks[b] == NULL || masks[b]->queries != masks[0]->queries || masks[b]->keys != masks[0]->keys)
            return err_set(e, ERR_BUG, "attention: the masks of a batch differ in shape");
    }
    return 0;
}

static struct attention_rows rows_of(const struct tensor *t) {
    struct attention_rows r = {(bf16 *)t->data, t->stride[0]};
    return r;
}

// One pointer per sequence, from either way of giving masks. The caller frees it.
static int list_masks(const struct mask *one, const struct mask *const *many, int64_t sequences,
                      const struct mask ***out, struct err *e) {
    *out = (const struct mask **)calloc((size_t)sequences, sizeof **out);
    if (*out == NULL) return err_set(e, ERR_MEMORY, "attention: no memory");
    for (int64_t b = 0; b < sequences; b++) (*out)[b] = many != NULL ? many[b] : one;
    return check_masks(*out, sequences, e);
}

int attention_views(struct cuda_device *d, const struct mask *one, const struct mask *const *many,
                    int sequences, const struct mask_view **out, struct err *e) {
    const struct attention_schedule *c = NULL;
    const struct mask **masks = NULL;
    int rc = list_masks(one, many, sequences, &masks, e);
    if (rc == 0) rc = attention_schedule(d, masks, sequences, {SM80_ROWS, SM80_COLUMNS, false}, &c, e);
    if (rc == 0) *out = c->view;
    free(masks);
    return rc;
}

static int check_heads(const struct cuda_device *d, int64_t sequences, int heads, int kv_heads, int head_dim,
                       struct err *e) {
    if (heads <= 0 || kv_heads <= 0 || heads % kv_heads != 0 || sequences < 0 || sequences > 1 << 20)
        return err_set(e, ERR_BUG, "attention: %d heads on %d, %lld sequences", heads, kv_heads,
                       (long long)sequences);
    return gpu_supports(d->compute, DEVICE_BF16, head_dim, e);
}

// ---- tensor maps: how the copy engine of sm_90 sees q, k, v and their like

int attention_encoder(attention_encode_fn **out, struct err *e) {
#ifdef __CUDACC__
    void *f = NULL;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    cudaError_t rc =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found);
#else
    cudaError_t rc = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &f, cudaEnableDefault, &found);
#endif
    *out = (attention_encode_fn *)f;
    if (rc == cudaSuccess && found != cudaDriverEntryPointSuccess)
        return err_set(e, ERR_DEVICE,
                       "attention: the driver has no cuTensorMapEncodeTiled; CUDA 12 or later is needed");
    return cuda_check(rc, "attention: cuTensorMapEncodeTiled", e);
#else
    *out = cuTensorMapEncodeTiled;
    return 0;
#endif
}

int attention_map(attention_encode_fn *encode, CUtensorMap *out, struct attention_rows r, int columns,
                  int rows, int sequences, int across, int box, struct err *e) {
    const cuuint64_t dim[3] = {(cuuint64_t)columns, (cuuint64_t)rows, (cuuint64_t)sequences};
    const cuuint64_t stride[2] = {(cuuint64_t)r.stride * 2, (cuuint64_t)r.stride * 2 * (cuuint64_t)rows};
    const cuuint32_t boxes[3] = {(cuuint32_t)across, (cuuint32_t)box, 1}, steps[3] = {1, 1, 1};
    CUresult rc = encode(out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, r.data, dim, stride, boxes, steps,
                         CU_TENSOR_MAP_INTERLEAVE_NONE, attention_swizzle(across),
                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (rc == CUDA_SUCCESS) return 0;
    return err_set(e, ERR_DEVICE,
                   "attention: no tensor map of [%d, %d, %d] rows %lld apart (CUDA driver error %d)",
                   sequences, rows, columns, (long long)r.stride, (int)rc);
}

// ---- forward

static __global__ void combine(const struct attention_task t, int head_dim) {
    int64_t rows = (int64_t)t.sequences * t.queries * t.heads;
    int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    float top = -INFINITY, sum = 0;
    for (int s = 0; s < t.splits; s++) top = fmaxf(top, t.weight[s * rows + row]);
    float base = top == -INFINITY ? 0 : top;
    for (int s = 0; s < t.splits; s++) sum += exp2_fast((t.weight[s * rows + row] - base) * ATTENTION_LOG2E);
    int64_t token = row / t.heads, h = row % t.heads;
    if (threadIdx.x == 0)
        t.lse[token * t.lse_stride + h] = sum > 0 ? top + ATTENTION_LN2 * __log2f(sum) : -INFINITY;
    float inverse = sum > 0 ? 1 / sum : 0;
    for (int c = (int)threadIdx.x; c < head_dim; c += (int)blockDim.x) {
        float o = 0;
        for (int s = 0; s < t.splits; s++)
            o += exp2_fast((t.weight[s * rows + row] - base) * ATTENTION_LOG2E) *
                 t.part[(s * rows + row) * head_dim + c];
        t.o.data[token * t.o.stride + h * head_dim + c] = __float2bfloat16(o * inverse);
    }
}

static int forward_with_splits(struct cuda_device *d, struct attention_task *t, int head_dim, struct err *e) {
    int64_t rows = (int64_t)t->sequences * t->queries * t->heads;
    if (t->splits > 1) {
        int rc = cuda_scratch(&d->base, (void **)&t->part,
                              gpu_attention_split_bytes(t->splits, rows, head_dim), e);
        if (rc != 0) return rc;
        t->weight = t->part + t->splits * rows * head_dim;
    }
    int rc = cuda_check(attention_forward_sm80(t, head_dim, d->stream), "attention", e);
    if (rc != 0 || t->splits == 1) return rc;
    dim3 grid((unsigned)((rows + 7) / 8)), block(32, 8);
    return cuda_check(LAUNCH(combine, grid, block, 0, d->stream, *t, head_dim), "attention", e);
}

static bool is_hopper(const struct cuda_device *d, int head_dim) {
    return gpu_attention_is_hopper(d->compute, head_dim);
}

static int at_least_one(int64_t n) {
    return n < 1 ? 1 : (int)n;
}

static int forward_hopper(struct cuda_device *d, const struct attention_task *t, int head_dim,
                          enum sm90_pairs pairs, struct err *e) {
    enum { L2_SHARE = 24 << 20 }; // bytes of k and v that may stay
    struct sm90_forward f = {};
    attention_encode_fn *encode = NULL;
    int rc = attention_encoder(&encode, e), q = t->heads * head_dim, k = t->kv_heads * head_dim;
    if (rc == 0) rc = attention_map(encode, &f.q, t->q, q, t->queries, t->sequences, 64, SM90_ROWS, e);
    if (rc == 0) rc = attention_map(encode, &f.k, t->k, k, t->keys, t->sequences, 64, SM90_KEYS, e);
    if (rc == 0) rc = attention_map(encode, &f.v, t->v, k, t->keys, t->sequences, 64, SM90_KEYS, e);
    if (rc == 0) rc = attention_map(encode, &f.o, t->o, q, t->queries, t->sequences, 64, SM90_ROWS / 2, e);
    if (rc == 0) rc = cuda_scratch(&d->base, (void **)&f.next, sizeof *f.next, e);
    if (rc == 0) rc = cuda_check(cudaMemsetAsync(f.next, 0, sizeof *f.next, d->stream), "attention", e);
    if (rc != 0) return rc;
    f.t = *t;
    int64_t fit = L2_SHARE / ((int64_t)t->keys * head_dim * 4), units = (int64_t)t->sequences * t->kv_heads;
    f.per_section = at_least_one(fit < units ? fit : units);
    bool alone = pairs == SM90_ALONE;
    f.items = t->tiles * t->heads * t->sequences / (pairs == SM90_PAIRS_OF_HEADS ? 2 : 1);
    f.pairs = pairs;
    int most = alone ? d->multiprocessors : at_least_one(d->multiprocessors / 2);
    int walkers = f.items < most ? f.items : most;
    return cuda_check(attention_forward_sm90(&f, head_dim, alone ? walkers : 2 * walkers, d->stream),
                      "attention", e);
}

int attention_pairs_asked(enum attention_pairs *out, struct err *e) {
    const char *text = getenv("ORRERY_ATTENTION_PAIRS");
    *out = ATTENTION_PAIRS_WHERE_THEY_PAY;
    if (text == NULL || text[0] == '\0') return 0;
    bool always = strcmp(text, "always") == 0;
    *out = always ? ATTENTION_PAIRS_ALWAYS : ATTENTION_PAIRS_NEVER;
    if (always || strcmp(text, "never") == 0) return 0;
    return err_set(e, ERR_USAGE, "ORRERY_ATTENTION_PAIRS=%s: always or never", text);
}

// Whether blocks are to be in pairs; the schedule is replaced where their tiles are others. Two heads on one
// kv head cost nothing, neighbouring tiles the keys that only one of them sees.
static int choose_pairs(struct cuda_device *d, const struct mask *const *masks,
                        const struct attention_task *t, int head_dim, const struct attention_schedule **c,
                        enum sm90_pairs *pairs, struct err *e) {
    const struct attention_schedule *both = NULL;
    bool consider = gpu_attention_considers_pairs(head_dim, (int64_t)(*c)->tiles * t->heads * t->sequences);
    *pairs = SM90_ALONE;
    if (d->attention_pairs == ATTENTION_PAIRS_NEVER) return 0;
    if (d->attention_pairs == ATTENTION_PAIRS_WHERE_THEY_PAY && !consider) return 0;
    if (gpu_attention_pairs_heads(t->heads, t->kv_heads)) {
        *pairs = SM90_PAIRS_OF_HEADS;
        return 0;
    }
    int rc = attention_schedule(d, masks, t->sequences, {2 * SM90_ROWS, SM90_KEYS, false}, &both, e);
    if (rc != 0) return rc;
    if (d->attention_pairs != ATTENTION_PAIRS_ALWAYS && !gpu_attention_pairs((*c)->work, both->work))
        return 0;
    *pairs = SM90_PAIRS_OF_TILES;
    *c = both;
    return 0;
}

static int forward_run(struct cuda_device *d, struct attention_task *t, int head_dim,
                       const struct mask *const *masks, struct err *e) {
    const struct attention_schedule *c = NULL;
    t->splits = 1;
    if (is_hopper(d, head_dim) && t->keys > 0) {
        enum sm90_pairs pairs = SM90_ALONE;
        int rc = attention_schedule(d, masks, t->sequences, {SM90_ROWS, SM90_KEYS, false}, &c, e);
        if (rc != 0) return rc;
        if (gpu_attention_splits((int64_t)c->tiles * t->heads * t->sequences, 2 * c->steps) == 1) {
            rc = choose_pairs(d, masks, t, head_dim, &c, &pairs, e);
            t->view = c->view;
            t->tiles = c->tiles;
            return rc != 0 ? rc : forward_hopper(d, t, head_dim, pairs, e);
        }
    }
    int rc = attention_schedule(d, masks, t->sequences, {SM80_ROWS, SM80_COLUMNS, false}, &c, e);
    if (rc != 0) return rc;
    t->view = c->view;
    t->tiles = c->tiles;
    t->splits = gpu_attention_splits((int64_t)c->tiles * t->heads * t->sequences, c->steps);
    return forward_with_splits(d, t, head_dim, e);
}

int cuda_attention(struct device *device, const struct op_attention_args *a, struct err *e) {
    struct cuda_device *d = cuda_of(device);
    int rc = check_heads(d, a->sequences, a->heads, a->kv_heads, a->head_dim, e);
    if (rc != 0 || a->sequences == 0) return rc;
    const struct mask **masks = NULL;
    rc = list_masks(a->mask, a->masks, a->sequences, &masks, e);
    if (rc == 0) {
        int64_t queries = masks[0]->queries, keys = masks[0]->keys;
        int64_t q_rows = a->sequences * queries, k_rows = a->sequences * keys;
        int64_t q_columns = (int64_t)a->heads * a->head_dim, k_columns = (int64_t)a->kv_heads * a->head_dim;
        rc = check_rows("q", &a->q, q_rows, q_columns, e);
        if (rc == 0) rc = check_rows("k", &a->k, k_rows, k_columns, e);
        if (rc == 0) rc = check_rows("v", &a->v, k_rows, k_columns, e);
        if (rc == 0) rc = check_rows("o", &a->o, q_rows, q_columns, e);
        struct attention_task t = {};
        t.q = rows_of(&a->q), t.k = rows_of(&a->k), t.v = rows_of(&a->v), t.o = rows_of(&a->o);
        t.lse = (float *)a->lse.data, t.lse_stride = a->lse.stride[0];
        t.sequences = (int)a->sequences, t.heads = a->heads, t.kv_heads = a->kv_heads;
        t.queries = (int)queries, t.keys = (int)keys;
        if (rc == 0 && queries > 0) rc = forward_run(d, &t, a->head_dim, masks, e);
    }
    free(masks);
    return rc;
}

// ---- backward

enum { PREPARE_THREADS = 256 }; // 16, 32 or 64 queries; `padded` is a multiple of 64

// For each query of each head what the passes need beside tensors: the log-sum-exp in base 2, and delta, the
// sum of o dO. head_dim / 8 threads read a row, 16 bytes of both tensors each; a block has queries of one
// head.
template <int D>
static __global__ void rows_prepare(const __grid_constant__ struct attention_task t, divider blocks) {
    enum { LANES = D / 8, PER_BLOCK = PREPARE_THREADS / LANES };
    unsigned b = blocks.of(blockIdx.x), h = blockIdx.y, lane = threadIdx.x % LANES,
             q = (blockIdx.x - b * blocks.by) * PER_BLOCK + threadIdx.x / LANES;
    float sum = 0, lse2 = INFINITY;
    if (q < (unsigned)t.queries) {
        int64_t row = (int64_t)b * t.queries + q;
        unsigned at = h * D + 8 * lane;
        uint4 o = *(const uint4 *)(t.o.data + row * t.o.stride + at),
              g = *(const uint4 *)(t.d_o.data + row * t.d_o.stride + at);
        const unsigned x[4] = {o.x, o.y, o.z, o.w}, y[4] = {g.x, g.y, g.z, g.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum = fmaf(__uint_as_float(x[i] << 16), __uint_as_float(y[i] << 16), sum);
            sum = fmaf(__uint_as_float(x[i] & 0xffff0000u), __uint_as_float(y[i] & 0xffff0000u), sum);
        }
        float lse = t.lse[row * t.lse_stride + h];
        lse2 = lse == -INFINITY ? INFINITY : lse * ATTENTION_LOG2E;
    }
#pragma unroll
    for (int by = LANES / 2; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
    if (lane != 0) return;
    float *to = t.lse2 + ((int64_t)b * t.heads + h) * t.padded * 2 + row_at((int)q);
    to[0] = lse2;
    to[64] = sum;
}

template <int D>
static int prepare_rows(struct cuda_device *d, const struct attention_task *t, struct err *e) {
    int64_t blocks = t->padded / (PREPARE_THREADS / (D / 8));
    dim3 grid((unsigned)(t->sequences * blocks), (unsigned)t->heads);
    return cuda_check(
        LAUNCH(rows_prepare<D>, grid, dim3(PREPARE_THREADS), 0, d->stream, *t, divide_by(blocks)),
        "attention_backward", e);
}

static int prepare(struct cuda_device *d, const struct attention_task *t, int head_dim, struct err *e) {
    return head_dim == 32   ? prepare_rows<32>(d, t, e)
           : head_dim == 64 ? prepare_rows<64>(d, t, e)
                            : prepare_rows<128>(d, t, e);
}

// Scratch: the queue's head and the flags (cleared), lse2 and delta, dq in fp32.
static int backward_room(struct cuda_device *d, struct sm90_backward *f, int head_dim, struct err *e) {
    struct attention_task *t = &f->t;
    struct gpu_backward90 b = gpu_backward90_bytes(t->sequences, t->heads, t->padded, t->tiles, head_dim);
    unsigned char *block = NULL;
    int rc = cuda_scratch(&d->base, (void **)&block, b.flags + b.rows + b.dq, e);
    if (rc != 0) return rc;
    f->next = (uint32_t *)block;
    f->flag = f->next + 1;
    t->lse2 = (float *)(block + b.flags);
    f->dq = (float *)(block + b.flags + b.rows);
    rc = cuda_check(cudaMemsetAsync(block, 0, b.flags, d->stream), "attention_backward", e);
    if (rc == 0 && f->free_order)
        rc = cuda_check(cudaMemsetAsync(f->dq, 0, b.dq, d->stream), "attention_backward", e);
    return rc;
}

static int backward_maps(struct sm90_backward *f, int head_dim, struct err *e) {
    const struct attention_task *t = &f->t;
    attention_encode_fn *encode = NULL;
    int rc = attention_encoder(&encode, e), q = t->heads * head_dim, k = t->kv_heads * head_dim;
    if (rc == 0) rc = attention_map(encode, &f->q, t->q, q, t->queries, t->sequences, 64, SM90_QUERIES, e);
    if (rc == 0)
        rc = attention_map(encode, &f->d_o, t->d_o, q, t->queries, t->sequences, 64, SM90_QUERIES, e);
    if (rc == 0) rc = attention_map(encode, &f->k, t->k, k, t->keys, t->sequences, 64, SM90_KEYS, e);
    if (rc == 0) rc = attention_map(encode, &f->v, t->v, k, t->keys, t->sequences, 64, SM90_KEYS, e);
    if (rc == 0) rc = attention_map(encode, &f->dk, t->dk, k, t->keys, t->sequences, 64, SM90_KEYS / 2, e);
    if (rc == 0) rc = attention_map(encode, &f->dv, t->dv, k, t->keys, t->sequences, 64, SM90_KEYS / 2, e);
    if (rc == 0 && head_dim == 64)
        rc = attention_map(encode, &f->k_halves, t->k, k, t->keys, t->sequences, 32, SM90_KEYS, e);
    return rc;
}

static int backward_hopper(struct cuda_device *d, const struct attention_task *task, int head_dim,
                           const struct mask *const *masks, struct err *e) {
    const struct attention_schedule *c = NULL, *turned = NULL;
    struct sm90_backward f = {};
    f.t = *task;
    f.free_order = d->attention_free_order;
    int rc = backward_maps(&f, head_dim, e);
    if (rc == 0) rc = attention_schedule(d, masks, task->sequences, {SM90_QUERIES, SM90_KEYS, false}, &c, e);
    if (rc != 0) return rc;
    f.t.view = c->view;
    f.t.tiles = c->tiles;
    rc = attention_schedule(d, masks, task->sequences, {SM90_KEYS, SM90_QUERIES, true}, &turned, e);
    if (rc != 0) return rc;
    f.turned = turned->view;
    f.key_tiles = turned->tiles;
    // As many key tiles of a head in a row as keep a GPU busy; a function of shapes alone, as the order is.
    f.units = f.t.sequences * f.t.kv_heads;
    f.group = f.t.heads / f.t.kv_heads;
    int wave = (128 + f.units - 1) / f.units;
    f.wave = wave < SM90_WAVE ? SM90_WAVE : wave;
    f.items = f.key_tiles * f.units;
    rc = backward_room(d, &f, head_dim, e);
    if (rc == 0) rc = prepare(d, &f.t, head_dim, e);
    int blocks = f.items < d->multiprocessors ? f.items : d->multiprocessors;
    return rc != 0 ? rc
                   : cuda_check(attention_backward_sm90(&f, head_dim, blocks, d->stream),
                                "attention_backward", e);
}

static int backward_run(struct cuda_device *d, struct attention_task *t, int head_dim,
                        const struct mask *const *masks, struct err *e) {
    const struct attention_schedule *c = NULL, *turned = NULL;
    struct attention_tiles tiles = {SM80_ROWS, SM80_BACKWARD_COLUMNS, false};
    t->padded = (t->queries + SM80_ROWS - 1) / SM80_ROWS * SM80_ROWS;
    int64_t rows = (int64_t)t->sequences * t->heads * t->padded;
    if (is_hopper(d, head_dim) && t->keys > 0 && rows > 0) return backward_hopper(d, t, head_dim, masks, e);
    int rc = cuda_scratch(&d->base, (void **)&t->lse2, gpu_backward80_bytes(rows), e);
    if (rc == 0) rc = attention_schedule(d, masks, t->sequences, tiles, &c, e);
    if (rc != 0) return rc;
    t->view = c->view;
    t->tiles = c->tiles;
    tiles.turned = true;
    rc = attention_schedule(d, masks, t->sequences, tiles, &turned, e);
    if (rc == 0 && rows > 0) rc = prepare(d, t, head_dim, e);
    if (rc != 0) return rc;
    return cuda_check(attention_backward_sm80(t, turned->view, turned->tiles, head_dim, d->stream),
                      "attention_backward", e);
}

static int check_backward(const struct op_attention_backward_args *a, int64_t q_rows, int64_t k_rows,
                          struct err *e) {
    int64_t q = (int64_t)a->heads * a->head_dim, k = (int64_t)a->kv_heads * a->head_dim;
    int rc = check_rows("q", &a->q, q_rows, q, e);
    if (rc == 0) rc = check_rows("k", &a->k, k_rows, k, e);
    if (rc == 0) rc = check_rows("v", &a->v, k_rows, k, e);
    if (rc == 0) rc = check_rows("o", &a->o, q_rows, q, e);
    if (rc == 0) rc = check_rows("d_o", &a->d_o, q_rows, q, e);
    if (rc == 0) rc = check_rows("dq", &a->dq, q_rows, q, e);
    if (rc == 0) rc = check_rows("dk", &a->dk, k_rows, k, e);
    return rc == 0 ? check_rows("dv", &a->dv, k_rows, k, e) : rc;
}

int cuda_attention_backward(struct device *device, const struct op_attention_backward_args *a,
                            struct err *e) {
    struct cuda_device *d = cuda_of(device);
    int rc = check_heads(d, a->sequences, a->heads, a->kv_heads, a->head_dim, e);
    if (rc != 0 || a->sequences == 0) return rc;
    const struct mask **masks = NULL;
    rc = list_masks(a->mask, a->masks, a->sequences, &masks, e);
    if (rc == 0) {
        struct attention_task t = {};
        t.queries = (int)masks[0]->queries, t.keys = (int)masks[0]->keys;
        rc = check_backward(a, a->sequences * t.queries, a->sequences * t.keys, e);
        t.q = rows_of(&a->q), t.k = rows_of(&a->k), t.v = rows_of(&a->v), t.o = rows_of(&a->o);
        t.d_o = rows_of(&a->d_o), t.dq = rows_of(&a->dq), t.dk = rows_of(&a->dk), t.dv = rows_of(&a->dv);
        t.lse = (float *)a->lse.data, t.lse_stride = a->lse.stride[0];
        t.sequences = (int)a->sequences, t.heads = a->heads, t.kv_heads = a->kv_heads;
        if (rc == 0) rc = backward_run(d, &t, a->head_dim, masks, e);
    }
    free(masks);
    return rc;
}
