// SPDX-License-Identifier: Apache-2.0
// The tasks `kernels-bench` and `comm-bench`: CSV on rank 0's stdout, a line per shape of the config's model,
// each with time, rate, and its share of a ceiling that was measured in the same run: the copy rate for what
// moves bytes, the best product for what multiplies. Medians; works on any device.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/mask.h"
#include "kernels/ops.h"
#include "trainer/modality.h"
#include "trainer/optim.h"
#include "trainer/params.h"
#include "trainer/task.h"

enum { ROUNDS = 7, NOISE = 1 << 20 };
#define ROUND_SECONDS 0.02
#define PRODUCT_ELEMS ((size_t)3 * 2048 * 2048) // of bench_beside

struct bench {
    struct rank *rank;
    struct device *device;
    struct modality_set set;
    struct arena arena;
    struct mask mask;
    struct token_map map;
    int64_t rows, width, hidden, heads, kv_heads, head_dim;
    double copy_rate, product_rate; // bytes and operations per second, measured first
    double seconds;                 // of the last time_op
    uint16_t *noise;                // [NOISE]
};

typedef int op_fn(struct device *d, const void *args, struct err *e);
#define OP(name, doc)                                                                                        \
    __attribute__((unused)) static int run_##name(struct device *d, const void *args, struct err *e) {       \
        return d->ops->name(d, args, e);                                                                     \
    }
#include "kernels/ops.def"
#undef OP

// As bf16 or as fp32 between 0.25 and 1, some bf16 negative: a GPU that multiplies zeros is faster than with
// data.
static int make_noise(struct bench *b, struct err *e) {
    b->noise = malloc(NOISE * sizeof *b->noise);
    if (!b->noise) return err_set(e, ERR_MEMORY, "no memory for made-up data");
    uint32_t x = 1;
    for (int i = 0; i < NOISE; i++) {
        x = x * 1664525u + 1013904223u;
        b->noise[i] = (uint16_t)(0x3e80 + (x >> 24) + (i % 2 ? 0 : x >> 8 & 0x8000));
    }
    return 0;
}

static int take(struct bench *b, struct tensor *out, enum dtype dtype, int64_t rows, int64_t cols,
                struct err *e) {
    void *at = NULL;
    size_t bytes = (size_t)(rows * cols) * dtype_bytes(dtype);
    int rc = arena_take(&b->arena, &at, bytes, e);
    for (size_t done = 0, n = NOISE * sizeof *b->noise; !rc && done < bytes; done += n)
        rc = b->device->vtable->copy_in(b->device, (char *)at + done, b->noise,
                                        bytes - done < n ? bytes - done : n, e);
    *out = tensor_2d(at, rows, cols);
    out->dtype = dtype;
    return rc;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int time_calls(struct bench *b, op_fn *run, const void *args, int calls, double *seconds,
                      struct err *e) {
    double begun = clock_seconds();
    int rc = 0;
    for (int i = 0; !rc && i < calls; i++) rc = run(b->device, args, e);
    if (!rc) rc = b->device->vtable->sync(b->device, e);
    *seconds = (clock_seconds() - begun) / calls;
    return rc;
}

// The median of rounds of so many calls that a round is long against the clock and a launch.
static int time_op(struct bench *b, op_fn *run, const void *args, struct err *e) {
    double samples[ROUNDS], one = 0;
    int rc = time_calls(b, run, args, 1, &one, e);
    if (!rc) rc = time_calls(b, run, args, 2, &one, e);
    int calls = one > 0 && one < ROUND_SECONDS ? (int)(ROUND_SECONDS / one) + 1 : 1;
    if (calls > 10000) calls = 10000;
    for (int i = 0; !rc && i < ROUNDS; i++) rc = time_calls(b, run, args, calls, &samples[i], e);
    if (rc) return rc;
    qsort(samples, ROUNDS, sizeof *samples, by_value);
    b->seconds = samples[ROUNDS / 2];
    return 0;
}

// One line; `flops` 0: what counts are the bytes. `times`: what a call does so often counts once.
static int row_of(struct bench *b, const char *name, const char *shape, op_fn *run, const void *args,
                  int times, double flops, double bytes, struct err *e) {
    int rc = time_op(b, run, args, e);
    if (rc) return rc;
    b->seconds /= times;
    double rate = (flops > 0 ? flops : bytes) / b->seconds,
           ceiling = flops > 0 ? b->product_rate : b->copy_rate;
    printf("%s,%s,%.4f,%.3f,%s,%.3f\n", name, shape, 1e3 * b->seconds, rate * (flops > 0 ? 1e-12 : 1e-9),
           flops > 0 ? "TFLOP/s" : "GB/s", ceiling > 0 ? rate / ceiling : 1.0);
    fflush(stdout); // what was measured stays if the next op hangs
    return 0;
}

static int row(struct bench *b, const char *name, const char *shape, op_fn *run, const void *args,
               double flops, double bytes, struct err *e) {
    return row_of(b, name, shape, run, args, 1, flops, bytes, e);
}

// ---- the ceilings

static int bench_copy(struct bench *b, struct err *e) {
    int64_t elems = b->device->host_memory ? 4 << 20 : 256 << 20;
    size_t mark = arena_mark(&b->arena);
    struct op_cast_args a = {0};
    int rc = take(b, &a.x, DTYPE_F32, elems / 1024, 1024, e);
    if (!rc) rc = take(b, &a.y, DTYPE_F32, elems / 1024, 1024, e);
    if (!rc) rc = row(b, "copy", "the ceiling of bytes", run_cast, &a, 0, 8.0 * (double)elems, e);
    if (!rc) b->copy_rate = 8.0 * (double)elems / b->seconds;
    arena_rewind(&b->arena, mark);
    return rc;
}

static int bench_gemm(struct bench *b, const char *name, int64_t m, int64_t n, int64_t k, struct err *e) {
    char shape[64];
    size_t mark = arena_mark(&b->arena);
    struct op_gemm_args a = {.trans_b = true};
    int rc = take(b, &a.a, b->device->compute, m, k, e);
    if (!rc) rc = take(b, &a.b, b->device->compute, n, k, e);
    if (!rc) rc = take(b, &a.c, b->device->compute, m, n, e);
    snprintf(shape, sizeof shape, "%lldx%lldx%lld", (long long)m, (long long)n, (long long)k);
    double flops = 2.0 * (double)m * (double)n * (double)k;
    if (!rc) rc = row(b, name, shape, run_gemm, &a, flops, 0, e);
    if (!rc && flops / b->seconds > b->product_rate) b->product_rate = flops / b->seconds;
    arena_rewind(&b->arena, mark);
    return rc;
}

// ---- the ops of a block

static int bench_norm(struct bench *b, const char *shape, struct err *e) {
    int64_t n = b->rows, d = b->width, g = b->map.frames * b->map.modalities;
    double low = (double)dtype_bytes(b->device->compute), elems = (double)(n * d);
    struct op_norm_mod_args a = {.map = &b->map};
    struct op_norm_mod_backward_args w = {.map = &b->map};
    struct tensor rstd = tensor_none();
    int rc = take(b, &a.x, DTYPE_F32, n, d, e);
    if (!rc) rc = take(b, &a.y, b->device->compute, n, d, e);
    if (!rc) rc = take(b, &rstd, DTYPE_F32, 1, n, e);
    if (!rc) rc = take(b, &a.c, DTYPE_F32, g, 6 * d, e);
    if (!rc) rc = take(b, &a.mod, DTYPE_F32, 6, d, e);
    a.rstd = tensor_1d(rstd.data, n);
    if (!rc) rc = row(b, "norm_mod", shape, run_norm_mod, &a, 0, elems * (4 + low), e);
    w.x = a.x, w.dy = a.y, w.rstd = a.rstd, w.c = a.c, w.mod = a.mod;
    if (!rc) rc = take(b, &w.dx, DTYPE_F32, n, d, e);
    if (!rc) rc = take(b, &w.dc, DTYPE_F32, g, 6 * d, e);
    if (!rc) rc = take(b, &w.dmod, DTYPE_F32, 6, d, e);
    if (!rc) rc = row(b, "norm_mod_backward", shape, run_norm_mod_backward, &w, 0, elems * (12 + low), e);
    struct op_gated_add_args add = {.x = a.x, .y = a.y, .out = w.dx, .c = a.c, .mod = a.mod, .map = &b->map};
    if (!rc) rc = row(b, "gated_add", shape, run_gated_add, &add, 0, elems * (8 + low), e);
    struct op_gated_add_backward_args back = {
        .y = a.y, .dx = a.x, .c = a.c, .mod = a.mod, .dc = w.dc, .dmod = w.dmod, .map = &b->map};
    if (!rc) rc = take(b, &back.dy, b->device->compute, n, d, e);
    return rc ? rc
              : row(b, "gated_add_backward", shape, run_gated_add_backward, &back, 0, elems * (4 + 2 * low),
                    e);
}

static int bench_rope(struct bench *b, const char *shape, struct err *e) {
    enum dtype low = b->device->compute;
    int64_t n = b->rows, q = b->heads * b->head_dim, k = b->kv_heads * b->head_dim, s = b->mask.queries;
    double elems = (double)(n * (q + k)), bytes = (double)dtype_bytes(low);
    struct tensor qkv, dqkv, of_q, of_k, dq, dk, rstd, cosines, sines, gamma, dgamma;
    const struct {
        struct tensor *t;
        enum dtype dtype;
        int64_t rows, cols;
    } wanted[] = {
        {&qkv, low, n, q + 2 * k},
        {&dqkv, low, n, q + 2 * k},
        {&of_q, low, n, q},
        {&of_k, low, n, k},
        {&dq, low, n, q},
        {&dk, low, n, k},
        {&rstd, DTYPE_F32, n, b->heads + b->kv_heads},
        {&cosines, DTYPE_F32, s, b->head_dim / 2},
        {&sines, DTYPE_F32, s, b->head_dim / 2},
        {&gamma, DTYPE_F32, 1, b->heads},
        {&dgamma, DTYPE_F32, 1, b->heads},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof wanted / sizeof *wanted; i++)
        rc = take(b, wanted[i].t, wanted[i].dtype, wanted[i].rows, wanted[i].cols, e);
    if (rc) return rc;
    gamma = tensor_1d(gamma.data, b->heads), dgamma = tensor_1d(dgamma.data, b->heads);
    int heads = (int)b->heads, kv_heads = (int)b->kv_heads, head_dim = (int)b->head_dim;
    struct op_qk_rope_args a = {qkv,   of_q,  of_k,     rstd,     cosines, sines,
                                gamma, heads, kv_heads, head_dim, 0,       s};
    struct op_qk_rope_backward_args w = {qkv,  rstd,   dq,    dk,       cosines,  sines, gamma,
                                         dqkv, dgamma, heads, kv_heads, head_dim, 0,     s};
    rc = row(b, "qk_rope", shape, run_qk_rope, &a, 0, 2 * bytes * elems, e);
    return rc ? rc : row(b, "qk_rope_backward", shape, run_qk_rope_backward, &w, 0, 3 * bytes * elems, e);
}

static int bench_swiglu(struct bench *b, const char *shape, struct err *e) {
    double low = (double)dtype_bytes(b->device->compute), elems = (double)(b->rows * b->hidden);
    struct op_swiglu_args a = {0};
    struct op_swiglu_backward_args w = {0};
    int rc = take(b, &a.x, b->device->compute, b->rows, 2 * b->hidden, e);
    if (!rc) rc = take(b, &a.y, b->device->compute, b->rows, b->hidden, e);
    if (!rc) rc = take(b, &w.dx, b->device->compute, b->rows, 2 * b->hidden, e);
    if (!rc) rc = row(b, "swiglu", shape, run_swiglu, &a, 0, 3 * low * elems, e);
    w.x = a.x, w.dy = a.y;
    return rc ? rc : row(b, "swiglu_backward", shape, run_swiglu_backward, &w, 0, 5 * low * elems, e);
}

static int bench_attention(struct bench *b, const char *shape, struct err *e) {
    int64_t n = b->rows, d = b->width, sequences = n / b->mask.queries;
    enum dtype low = b->device->compute;
    double flops = 4.0 * (double)sequences * (double)mask_pairs(&b->mask) * (double)d;
    struct op_attention_args a = {
        .sequences = sequences, .heads = (int)b->heads, .kv_heads = (int)b->kv_heads};
    struct op_attention_backward_args w = {
        .sequences = sequences, .heads = (int)b->heads, .kv_heads = (int)b->kv_heads};
    a.head_dim = w.head_dim = (int)b->head_dim;
    a.mask = w.mask = &b->mask;
    struct tensor *const ins[] = {&a.q, &a.k, &a.v, &a.o, &w.d_o, &w.dq, &w.dk, &w.dv};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof ins / sizeof *ins; i++) {
        bool keys = ins[i] == &a.k || ins[i] == &a.v || ins[i] == &w.dk || ins[i] == &w.dv;
        rc = take(b, ins[i], low, n, keys ? b->kv_heads * b->head_dim : d, e);
    }
    if (!rc) rc = take(b, &a.lse, DTYPE_F32, n, b->heads, e);
    if (!rc) rc = row(b, "attention", shape, run_attention, &a, flops, 0, e);
    w.q = a.q, w.k = a.k, w.v = a.v, w.o = a.o, w.lse = a.lse;
    return rc ? rc : row(b, "attention_backward", shape, run_attention_backward, &w, 2.5 * flops, 0, e);
}

// With the average, and with the bf16 copy where products read one.
static int bench_adamw(struct bench *b, struct err *e) {
    size_t mark = arena_mark(&b->arena);
    int64_t n = b->device->host_memory ? 1 << 20 : 64 << 20;
    bool low = b->device->compute == DTYPE_BF16;
    const struct op_update numbers = op_update(1e-3f, 0.9f, 0.95f, 0.99f, 1);
    struct tensor t[6] = {{0}};
    void *now = NULL;
    int rc = arena_take(&b->arena, &now, sizeof numbers, e);
    if (!rc) rc = b->device->vtable->copy_in(b->device, now, &numbers, sizeof numbers, e);
    for (int i = 0; !rc && i < 5 + low; i++) rc = take(b, &t[i], i < 5 ? DTYPE_F32 : DTYPE_BF16, 1, n, e);
    struct op_adamw_part whole = {.n = n};
    struct op_adamw_args a = {
        .part = &whole, .parts = 1, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .now = now};
    a.w = tensor_1d(t[0].data, n), a.g = tensor_1d(t[1].data, n);
    a.m = tensor_1d(t[2].data, n), a.v = tensor_1d(t[3].data, n);
    a.average = tensor_1d(t[4].data, n);
    if (low) a.low = t[5];
    if (!rc)
        rc = row(b, "adamw", low ? "average, copy" : "average", run_adamw, &a, 0,
                 (low ? 38.0 : 36.0) * (double)n, e);
    arena_rewind(&b->arena, mark);
    return rc;
}

// ms are one matrix's.
static int bench_muon(struct bench *b, int64_t rows, int64_t cols, int count, struct err *e) {
    int64_t n = rows * cols, at[OPS_MUON_MOST], r = rows < cols ? rows : cols;
    double flops = 5 * (4 * (double)n * (double)r + 2 * (double)(r * r) * (double)r);
    const struct op_update numbers = op_update(1e-3f, 0.9f, 0.95f, 0.99f, 1);
    size_t mark = arena_mark(&b->arena);
    struct tensor t[4] = {{0}};
    void *now = NULL;
    char shape[64];
    int rc = arena_take(&b->arena, &now, sizeof numbers, e);
    if (!rc) rc = b->device->vtable->copy_in(b->device, now, &numbers, sizeof numbers, e);
    if (!rc) rc = take(b, &t[3], DTYPE_F32, 1, op_muon_work_elems(rows, cols, count), e);
    for (int i = 0; !rc && i < 3; i++) rc = take(b, &t[i], DTYPE_F32, 1, count * n, e);
    for (int i = 0; i < count; i++) at[i] = i * n;
    struct op_muon_args a = {
        .rows = rows, .cols = cols, .at = at, .count = count, .momentum = 0.95f, .now = now};
    a.w = tensor_1d(t[0].data, count * n), a.g = tensor_1d(t[1].data, count * n);
    a.m = tensor_1d(t[2].data, count * n), a.work = tensor_1d(t[3].data, t[3].shape[1]);
    snprintf(shape, sizeof shape, "%lldx%lld batch of %d", (long long)rows, (long long)cols, count);
    if (!rc) rc = row_of(b, "muon", shape, run_muon, &a, count, flops, 0, e);
    arena_rewind(&b->arena, mark);
    return rc;
}

// Of the largest, the SwiGLU's: weights, gradients, momenta and work.
static size_t muon_bytes(const struct bench *b) {
    int count = optim_batch(b->device, b->hidden, b->width);
    int64_t elems = 3 * count * b->hidden * b->width + op_muon_work_elems(b->hidden, b->width, count);
    return (size_t)(elems + 4096) * sizeof(float);
}

// A block's matrices, each alone and in a batch as large as the optimiser takes on a GPU.
static int bench_muons(struct bench *b, struct err *e) {
    const int64_t shape[][2] = {{b->width, b->width}, {b->hidden, b->width}, {b->width, b->hidden}};
    int rc = 0;
    for (int i = 0; !rc && i < 3; i++) {
        int most = optim_batch(b->device, shape[i][0], shape[i][1]);
        rc = bench_muon(b, shape[i][0], shape[i][1], 1, e);
        if (!rc && most > 1) rc = bench_muon(b, shape[i][0], shape[i][1], most, e);
    }
    return rc;
}

// ---- the tasks

static int open_bench(struct bench *b, struct err *e) {
    const struct config *c = b->rank->config;
    int rc = modality_set_init(&b->set, c, NULL, 0, e);
    if (rc) return rc;
    int64_t micro = c->train_batch / c->comm_shards > 0 ? c->train_batch / c->comm_shards : 1;
    b->device = b->rank->device;
    b->width = c->model_width;
    b->hidden = params_hidden(c);
    b->head_dim = c->model_head_dim;
    b->heads = params_heads(c);
    b->kv_heads = params_kv_heads(c);
    b->map = (struct token_map){.frames = micro * c->data_frames,
                                .per_frame = (int32_t)b->set.tokens_per_frame,
                                .modalities = b->set.n,
                                .slot_modality = b->set.slot_modality};
    b->rows = b->map.frames * b->map.per_frame;
    rc = mask_block_causal(&b->mask, c->data_frames, b->map.per_frame, c->model_window, c->data_frames, e);
    if (rc) return rc;
    size_t block = (size_t)b->rows * (size_t)(12 * b->width + 6 * b->hidden) * sizeof(float);
    size_t groups = (size_t)(b->map.frames * b->map.modalities) * 12 * (size_t)b->width * sizeof(float);
    size_t large = b->device->host_memory ? (size_t)64 << 20 : (size_t)3 << 30, muon = muon_bytes(b);
    if (muon > large) large = muon;
    rc = make_noise(b, e);
    return rc ? rc : arena_init(&b->arena, b->device, block + groups + large, e);
}

static void close_bench(struct bench *b) {
    mask_fini(&b->mask);
    arena_fini(&b->arena);
    free(b->noise);
}

static int run_group(struct bench *b, int (*group)(struct bench *, const char *, struct err *), int64_t cols,
                     struct err *e) {
    char shape[64];
    size_t mark = arena_mark(&b->arena);
    snprintf(shape, sizeof shape, "%lldx%lld", (long long)b->rows, (long long)cols);
    int rc = group(b, shape, e);
    arena_rewind(&b->arena, mark);
    return rc;
}

static int bench_kernels(struct bench *b, struct err *e) {
    int64_t big = b->device->host_memory ? 512 : 8192, d = b->width;
    int rc = bench_copy(b, e);
    if (!rc) rc = bench_gemm(b, "product", big, big, big, e);
    if (!rc) rc = bench_gemm(b, "gemm qkv", b->rows, d + 2 * b->kv_heads * b->head_dim, d, e);
    if (!rc) rc = bench_gemm(b, "gemm out", b->rows, d, d, e);
    if (!rc) rc = bench_gemm(b, "gemm up", b->rows, 2 * b->hidden, d, e);
    if (!rc) rc = bench_gemm(b, "gemm down", b->rows, d, b->hidden, e);
    if (!rc) rc = run_group(b, bench_norm, d, e);
    if (!rc) rc = run_group(b, bench_rope, d + b->kv_heads * b->head_dim, e);
    if (!rc) rc = run_group(b, bench_swiglu, b->hidden, e);
    if (!rc) rc = run_group(b, bench_attention, d, e);
    if (!rc) rc = bench_adamw(b, e);
    return rc ? rc : bench_muons(b, e);
}

static void print_head(void) {
    printf("what,shape,ms,rate,unit,share\n");
}

int task_kernels_bench(struct rank *r, struct err *e) {
    struct bench b = {.rank = r};
    int rc = open_bench(&b, e);
    print_head();
    if (!rc) rc = bench_kernels(&b, e);
    close_bench(&b);
    return rc;
}

// The median of all ranks starting together.
static int time_collective(struct bench *b, bool reduce, float *buffer, const int64_t *offset,
                           double *seconds, struct err *e) {
    double samples[ROUNDS] = {0};
    struct coll *c = b->rank->coll;
    int rc = 0;
    const char *name = reduce ? "reduce_scatter" : "all_gather";
    for (int i = -1; !rc && i < ROUNDS; i++) {
        struct coll_op *op = NULL;
        rc = coll_barrier(c, "bench", e);
        double begun = clock_seconds();
        if (!rc && reduce) rc = coll_reduce_scatter(c, &op, name, buffer, offset, e);
        if (!rc && !reduce) rc = coll_all_gather(c, &op, name, buffer, offset, e);
        if (!rc) rc = coll_wait(c, op, e);
        if (i >= 0) samples[i] = clock_seconds() - begun;
    }
    qsort(samples, ROUNDS, sizeof *samples, by_value);
    *seconds = samples[ROUNDS / 2];
    return rc;
}

// Bytes that leave and enter a rank per second: (n - 1) / n of the buffer, whatever the algorithm.
static int bench_collective(struct bench *b, bool reduce, float *buffer, const int64_t *offset,
                            struct err *e) {
    double seconds = 0;
    struct coll *c = b->rank->coll;
    int size = coll_size(c), rc = time_collective(b, reduce, buffer, offset, &seconds, e);
    if (rc || b->rank->number) return rc;
    const char *name = reduce ? "reduce_scatter" : "all_gather";
    double bytes = 4.0 * (double)offset[size] * (size - 1) / size;
    printf("%s,%lld MiB on %d ranks (%s),%.4f,%.3f,GB/s,\n", name, (long long)(offset[size] * 4 >> 20), size,
           coll_name(c), 1e3 * seconds, 1e-9 * bytes / seconds);
    return 0;
}

// Products with a look at the collective between them, as a backward pass has; then what is left to wait for.
static int wait_after(struct bench *b, const struct op_gemm_args *product, int calls, float *buffer,
                      const int64_t *offset, double *waited, struct err *e) {
    struct coll *c = b->rank->coll;
    struct coll_op *op = NULL;
    int rc = coll_barrier(c, "bench", e);
    if (!rc) rc = coll_reduce_scatter(c, &op, "reduce_scatter beside", buffer, offset, e);
    for (int i = 0; !rc && i < calls; i++) {
        rc = b->device->ops->gemm(b->device, product, e);
        if (!rc) rc = coll_progress(c, e);
    }
    if (!rc) rc = b->device->vtable->sync(b->device, e);
    double begun = clock_seconds();
    if (rc)
        coll_drop(c, op);
    else
        rc = coll_wait(c, op, e);
    *waited = clock_seconds() - begun;
    return rc;
}

// All ranks take rank 0's number of products, which last about as long as the collective alone.
static int count_products(struct bench *b, const struct op_gemm_args *product, double alone, int64_t *calls,
                          struct err *e) {
    int rc = time_op(b, run_gemm, product, e);
    *calls = b->rank->number || rc ? 0 : 1 + (int64_t)(alone / b->seconds);
    return rc ? rc : coll_max_i64(b->rank->coll, "bench", calls, 1, e);
}

// The share that is still waited for: 1 where nothing goes on beside the computation.
static int bench_beside(struct bench *b, float *buffer, const int64_t *offset, struct err *e) {
    double samples[ROUNDS], alone = 0;
    int64_t calls = 0, edge = b->device->host_memory ? 96 : 2048;
    struct op_gemm_args a = {.trans_b = true};
    int rc = take(b, &a.a, b->device->compute, edge, edge, e);
    if (!rc) rc = take(b, &a.b, b->device->compute, edge, edge, e);
    if (!rc) rc = take(b, &a.c, b->device->compute, edge, edge, e);
    if (!rc) rc = time_collective(b, true, buffer, offset, &alone, e);
    if (!rc) rc = count_products(b, &a, alone, &calls, e);
    for (int i = 0; !rc && i < ROUNDS; i++)
        rc = wait_after(b, &a, (int)calls, buffer, offset, &samples[i], e);
    if (rc || b->rank->number) return rc;
    qsort(samples, ROUNDS, sizeof *samples, by_value);
    printf("reduce_scatter,waited for after %lld products,%.4f,,,%.3f\n", (long long)calls,
           1e3 * samples[ROUNDS / 2], samples[ROUNDS / 2] / alone);
    return 0;
}

static int bench_sizes(struct bench *b, float *buffer, int64_t *offset, int64_t most, struct err *e) {
    int size = coll_size(b->rank->coll), rc = 0;
    for (int64_t elems = 1 << 18; !rc && elems <= most; elems *= 8) {
        for (int r = 0; r <= size; r++) offset[r] = elems * r / size;
        rc = bench_collective(b, true, buffer, offset, e);
        if (!rc) rc = bench_collective(b, false, buffer, offset, e);
    }
    return rc || size == 1 ? rc : bench_beside(b, buffer, offset, e);
}

int task_comm_bench(struct rank *r, struct err *e) {
    struct bench b = {.rank = r, .device = r->device};
    int64_t most = r->device->host_memory ? 1 << 24 : 1 << 27;
    int64_t *offset = calloc((size_t)r->world + 1, sizeof *offset);
    if (!offset) return err_set(e, ERR_MEMORY, "no memory for a bench of %d ranks", r->world);
    struct tensor buffer;
    int rc = arena_init(&b.arena, r->device, ((size_t)most + PRODUCT_ELEMS) * sizeof(float), e);
    if (!rc) rc = make_noise(&b, e);
    if (!rc) rc = take(&b, &buffer, DTYPE_F32, 1, most, e);
    if (!r->number) print_head();
    if (!rc) rc = bench_sizes(&b, buffer.data, offset, most, e);
    free(offset);
    free(b.noise);
    arena_fini(&b.arena);
    return rc;
}
