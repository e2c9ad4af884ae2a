// SPDX-License-Identifier: Apache-2.0
// Times every op at the shapes of the demo's training step and adds them up to one step; then attention at
// longer shapes. `bench_kernels [THREADS] [PART OF AN OP OR SHAPE]`. Medians; never a test.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/lib/mask_make.h"

typedef int bench_run_fn(struct device *d, const void *args, struct err *e);
#define OP(name, doc)                                                                                        \
    __attribute__((unused)) static int run_##name(struct device *d, const void *args, struct err *e) {       \
        return d->ops->name(d, args, e);                                                                     \
    }
#include "kernels/ops.def"
#undef OP

// The demo: 3 sequences of 10 frames of 19 tokens make one logical shard, 4 of them a step.
enum {
    B = 3,
    F = 10,
    P = 19,
    N = B * F * P,
    D = 96,
    H = 3,
    HD = 32,
    HIDDEN = 256,
    LAYERS = 3,
    M = 4,
    G = B * F * M
};
enum { VIDEO = 16, SHARDS = 4, ROWS = B * F * VIDEO, VALUE = 128, SEEN = 512, EMBED = VALUE + 2 * SEEN };

struct bench {
    struct device *device;
    const char *filter;
    double step_seconds, step_flops;
};

// One thread is timed by its processor time, so that a busy machine shows less.
static double now(const struct bench *b) {
    struct timespec t;
    clock_gettime(b->device->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Seconds of one call: the median over batches of calls that take about two milliseconds each.
static double seconds_of(struct bench *b, bench_run_fn *run, const void *args) {
    enum { BATCHES = 25 };
    double samples[BATCHES];
    struct err e = {0};
    double start = now(b);
    int calls = 0;
    while (calls < 2 || (now(b) - start < 2e-3 && calls < 100000)) {
        if (run(b->device, args, &e) != 0) {
            fprintf(stderr, "%s\n", e.text);
            return 0;
        }
        calls++;
    }
    int batch = calls / 2 > 0 ? calls / 2 : 1;
    for (int i = 0; i < BATCHES; i++) {
        start = now(b);
        for (int c = 0; c < batch; c++) {
            if (run(b->device, args, &e) != 0) return 0;
        }
        samples[i] = (now(b) - start) / batch;
        if (now(b) - start > 0.2 && i >= 6) {
            qsort(samples, (size_t)i + 1, sizeof *samples, by_value);
            return samples[(i + 1) / 2];
        }
    }
    qsort(samples, BATCHES, sizeof *samples, by_value);
    return samples[BATCHES / 2];
}

// One row: `calls` in a training step, flops and bytes of one call.
static void row(struct bench *b, const char *op, const char *shape, double calls, double flops, double bytes,
                bench_run_fn *run, const void *args) {
    if (b->filter != NULL && strstr(op, b->filter) == NULL && strstr(shape, b->filter) == NULL) return;
    double s = seconds_of(b, run, args);
    b->step_seconds += s * calls;
    b->step_flops += flops * calls;
    printf("%-20s %-26s %5.0f %10.2f %9.3f", op, shape, calls, s * 1e6, s * calls * 1e3);
    if (flops > 0) {
        printf(" %8.1f GFLOP/s\n", flops / s * 1e-9);
    } else {
        printf(" %8.1f GB/s\n", bytes / s * 1e-9);
    }
}

static float *numbers(int64_t n) {
    float *x = aligned_alloc(64, (size_t)(n * 4 + 63) / 64 * 64);
    if (x == NULL) abort();
    for (int64_t i = 0; i < n; i++) x[i] = (float)((i * 7919) % 1999) / 1000.0f - 1.0f;
    return x;
}

static struct tensor rows_of(int64_t rows, int64_t cols) {
    return tensor_2d(numbers(rows * cols), rows, cols);
}

static void gemm(struct bench *b, const char *what, double calls, int64_t m, int64_t n, int64_t k, bool ta,
                 bool tb, bool acc) {
    struct op_gemm_args a = {.trans_a = ta, .trans_b = tb, .accumulate = acc};
    a.a = ta ? rows_of(k, m) : rows_of(m, k);
    a.b = tb ? rows_of(n, k) : rows_of(k, n);
    a.c = rows_of(m, n);
    char shape[64];
    snprintf(shape, sizeof shape, "%s %ldx%ldx%ld %c%c", what, (long)m, (long)n, (long)k, ta ? 't' : 'n',
             tb ? 't' : 'n');
    row(b, "gemm", shape, calls, 2.0 * (double)(m * n * k), 0, run_gemm, &a);
    free(a.a.data);
    free(a.b.data);
    free(a.c.data);
}

// y = x W^T; dx = dy W; dW += dy^T x.
static void linear(struct bench *b, const char *what, double calls, int64_t rows, int64_t in, int64_t out,
                   bool wants_dx) {
    gemm(b, what, calls, rows, out, in, false, true, false);
    if (wants_dx) gemm(b, what, calls, rows, in, out, false, false, false);
    gemm(b, what, calls, out, in, rows, true, false, true);
}

static void bench_linear(struct bench *b) {
    double layer = LAYERS * SHARDS;
    linear(b, "qkv", layer, N, D, 3 * D, true);
    linear(b, "o", layer, N, D, D, true);
    linear(b, "up", layer, N, D, 2 * HIDDEN, true);
    linear(b, "down", layer, N, HIDDEN, D, true);
    linear(b, "embed", SHARDS, ROWS, EMBED, D, false);
    linear(b, "head", SHARDS, ROWS, D, VALUE, true);
    linear(b, "cond1", SHARDS, G, 24 + M, 64, false);
    linear(b, "cond2", SHARDS, G, 64, 6 * D, true);
    linear(b, "touch", 3 * SHARDS, B * F, 8, D, false);
}

static void bench_tokens(struct bench *b, const struct token_map *map) {
    double layer = LAYERS * SHARDS, bytes = 4.0 * N * D;
    struct tensor x = rows_of(N, D), y = rows_of(N, D), z = rows_of(N, D), c = rows_of(G, 6 * D),
                  mod = rows_of(6, D);
    struct tensor dc = rows_of(G, 6 * D), dmod = rows_of(6, D), rstd = tensor_1d(numbers(N), N);
    struct op_norm_mod_args norm = {.x = x, .y = y, .rstd = rstd, .c = c, .mod = mod, .map = map};
    row(b, "norm_mod", "570x96", 2 * layer, 0, 2 * bytes, run_norm_mod, &norm);
    struct op_norm_mod_backward_args normb = {x, rstd, y, c, mod, z, dc, dmod, 0, map};
    row(b, "norm_mod_backward", "570x96", 2 * layer, 0, 4 * bytes, run_norm_mod_backward, &normb);
    struct op_gated_add_args gate = {x, y, z, c, mod, 0, map};
    row(b, "gated_add", "570x96", 2 * layer, 0, 3 * bytes, run_gated_add, &gate);
    struct op_gated_add_backward_args gateb = {y, x, c, mod, z, dc, dmod, 0, map};
    row(b, "gated_add_backward", "570x96", 2 * layer, 0, 3 * bytes, run_gated_add_backward, &gateb);
    struct tensor up = rows_of(N, 2 * HIDDEN), act = rows_of(N, HIDDEN), dup = rows_of(N, 2 * HIDDEN);
    struct op_swiglu_args swiglu = {up, act};
    row(b, "swiglu", "570x512", layer, 0, 4.0 * N * HIDDEN * 3, run_swiglu, &swiglu);
    struct op_swiglu_backward_args swiglub = {up, act, dup};
    row(b, "swiglu_backward", "570x512", layer, 0, 4.0 * N * HIDDEN * 5, run_swiglu_backward, &swiglub);
    struct op_silu_args silu = {rows_of(G, 64), rows_of(G, 64)};
    row(b, "silu", "120x64", SHARDS, 0, 4.0 * G * 64 * 2, run_silu, &silu);
    struct op_silu_backward_args silub = {rows_of(G, 64), rows_of(G, 64), rows_of(G, 64)};
    row(b, "silu_backward", "120x64", SHARDS, 0, 4.0 * G * 64 * 3, run_silu_backward, &silub);
    struct op_col_sum_args sum = {rows_of(ROWS, VALUE), tensor_1d(numbers(VALUE), VALUE), true};
    row(b, "col_sum", "480x128", SHARDS, 0, 4.0 * ROWS * VALUE, run_col_sum, &sum);
    struct op_qk_rope_args rope = {rows_of(N, 3 * D),
                                   y,
                                   z,
                                   rows_of(N, 2 * H),
                                   rows_of(F * P, HD / 2),
                                   rows_of(F * P, HD / 2),
                                   tensor_1d(numbers(H), H),
                                   H,
                                   H,
                                   HD,
                                   0,
                                   F * P};
    row(b, "qk_rope", "570x6x32", layer, 0, 4 * bytes, run_qk_rope, &rope);
    struct op_qk_rope_backward_args ropeb = {rope.qkv,
                                             rope.rstd,
                                             y,
                                             z,
                                             rope.cos,
                                             rope.sin,
                                             rope.gamma,
                                             rows_of(N, 3 * D),
                                             tensor_1d(numbers(H), H),
                                             H,
                                             H,
                                             HD,
                                             0,
                                             F * P};
    row(b, "qk_rope_backward", "570x6x32", layer, 0, 6 * bytes, run_qk_rope_backward, &ropeb);
}

static void attention(struct bench *b, const char *shape, double calls, int64_t sequences, int heads, int hd,
                      const struct mask *m) {
    int64_t rows = sequences * m->queries, keys = sequences * m->keys, width = (int64_t)heads * hd;
    struct tensor qkv = rows_of(keys, 3 * width);
    struct tensor q = tensor_rows(qkv.data, rows, width, 3 * width),
                  k = tensor_rows(tensor_f32(&qkv) + width, keys, width, 3 * width);
    struct tensor v = tensor_rows(tensor_f32(&qkv) + 2 * width, keys, width, 3 * width);
    struct op_attention_args a = {
        .q = q, .k = k, .v = v, .o = rows_of(rows, width), .lse = rows_of(rows, heads)};
    a.sequences = sequences;
    a.heads = a.kv_heads = heads;
    a.head_dim = hd;
    a.mask = m;
    double flops = 4.0 * (double)mask_pairs(m) * (double)sequences * heads * hd;
    row(b, "attention", shape, calls, flops, 0, run_attention, &a);
    struct op_attention_backward_args w = {
        .q = q, .k = k, .v = v, .o = a.o, .lse = a.lse, .d_o = rows_of(rows, width)};
    w.dq = rows_of(rows, width);
    w.dk = rows_of(keys, width);
    w.dv = rows_of(keys, width);
    w.sequences = sequences;
    w.heads = w.kv_heads = heads;
    w.head_dim = hd;
    w.mask = m;
    row(b, "attention_backward", shape, calls, 2.5 * flops, 0, run_attention_backward, &w);
    struct tensor all[] = {qkv, a.o, a.lse, w.d_o, w.dq, w.dk, w.dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i].data);
}

static void bench_frames(struct bench *b, const struct token_map *map) {
    struct patch_grid grid = {32, 32, 2, 8, 4};
    int64_t elems = 32 * 32 * 2;
    struct tensor x = rows_of(B * F, elems), z = rows_of(B * F, elems),
                  tau = tensor_1d(numbers(B * F), B * F);
    uint64_t sample[B] = {1, 2, 3};
    float active[B * F];
    for (int i = 0; i < B * F; i++) active[i] = 1;
    struct op_noise_args noise = {
        .x = tensor_2d(x.data, B, F * elems), .z = tensor_2d(z.data, B, F * elems), .tau = tau};
    noise.tau_stride = 1;
    noise.frames = F;
    noise.sample = sample;
    row(b, "noise", "3x20480", 2 * SHARDS, 0, 4.0 * 2 * B * F * (double)elems, run_noise, &noise);
    struct op_patchify_args patch = {z, x, tau, rows_of(ROWS, EMBED), 1, F, 2, grid};
    row(b, "patchify", "480x1152", SHARDS, 0, 4.0 * ROWS * EMBED, run_patchify, &patch);
    struct op_unpatchify_args back = {rows_of(ROWS, VALUE), z, grid};
    row(b, "unpatchify", "480x128", 0, 0, 8.0 * ROWS * VALUE, run_unpatchify, &back);
    struct op_assemble_args put = {
        .x = rows_of(N, D), .slot = rows_of(P, D), .act = rows_of(B * F, D), .map = map};
    struct op_assemble_backward_args take = {
        .dx = put.x, .dslot = rows_of(P, D), .dact = rows_of(B * F, D), .map = map};
    for (int m = 0; m < M; m++) {
        put.e[m] = rows_of(B * F * (m == 3 ? VIDEO : 1), D);
        take.de[m] = rows_of(B * F * (m == 3 ? VIDEO : 1), D);
    }
    row(b, "assemble", "570x96", SHARDS, 0, 8.0 * N * D, run_assemble, &put);
    row(b, "assemble_backward", "570x96", SHARDS, 0, 8.0 * N * D, run_assemble_backward, &take);
    struct op_gather_args gather = {put.x, put.e[3], 3, map};
    row(b, "gather", "480x96", SHARDS, 0, 8.0 * ROWS * D, run_gather, &gather);
    struct op_scatter_args scatter = {put.x, put.e[3], 3, map};
    row(b, "scatter", "480x96", SHARDS, 0, 8.0 * ROWS * D, run_scatter, &scatter);
    struct op_cond_features_args cond = {rows_of(B * F, M), tau, rows_of(G, 24 + M), 0};
    row(b, "cond_features", "120x28", SHARDS, 0, 4.0 * G * 28, run_cond_features, &cond);
    double loss_sum = 0;
    const float scale = 1;
    struct op_loss_args loss = {rows_of(ROWS, VALUE), x,      tau, 1,    active,
                                rows_of(ROWS, VALUE), &scale, 0,   grid, &loss_sum};
    row(b, "loss", "480x128", SHARDS, 0, 12.0 * ROWS * VALUE, run_loss, &loss);
}

static const struct op_update numbers_now = {
    .rate = 1e-6f, .step_size = 1e-5f, .v_scale = 2, .rest = 0.01f, .step = 10, .grad_scale = 1};

static void bench_muon(struct bench *b, double calls, int64_t rows, int64_t cols) {
    const int64_t at = 0, n = rows * cols;
    struct op_muon_args a = {.w = tensor_1d(numbers(n), n),
                             .g = tensor_1d(numbers(n), n),
                             .m = tensor_1d(numbers(n), n),
                             .rows = rows,
                             .cols = cols,
                             .at = &at,
                             .count = 1,
                             .now = &numbers_now};
    int64_t work = op_muon_work_elems(rows, cols, 1), r = rows < cols ? rows : cols,
            c = rows < cols ? cols : rows;
    a.work = tensor_1d(numbers(work), work);
    a.momentum = 0.95f;
    char shape[64];
    snprintf(shape, sizeof shape, "%ldx%ld", (long)rows, (long)cols);
    row(b, "muon", shape, calls, 5.0 * (4.0 * (double)(r * r * c) + 2.0 * (double)(r * r * r)), 0, run_muon,
        &a);
}

static void bench_optim(struct bench *b) {
    enum { REST = 170000, ALL = 501000 };
    struct op_adamw_part whole = {.n = REST};
    struct op_adamw_args adamw = {
        .part = &whole, .parts = 1, .beta1 = .9f, .beta2 = .95f, .eps = 1e-8f, .now = &numbers_now};
    adamw.w = tensor_1d(numbers(REST), REST);
    adamw.g = tensor_1d(numbers(REST), REST);
    adamw.m = tensor_1d(numbers(REST), REST);
    adamw.v = tensor_1d(calloc(REST, 4), REST);
    row(b, "adamw", "170000", 1, 0, 28.0 * REST, run_adamw, &adamw);
    bench_muon(b, 4 * LAYERS, D, D);
    bench_muon(b, 2 * LAYERS, HIDDEN, D);
    bench_muon(b, LAYERS, D, HIDDEN);
    struct op_ema_args ema = {tensor_1d(numbers(ALL), ALL), tensor_1d(numbers(ALL), ALL), &numbers_now};
    row(b, "ema", "501000", 1, 0, 12.0 * ALL, run_ema, &ema);
    double sum;
    int64_t bad;
    struct op_squares_part all = {0, ALL};
    struct op_sum_squares_args squares = {ema.w, &all, 1, &sum, &bad};
    row(b, "sum_squares", "501000", 1, 0, 4.0 * ALL, run_sum_squares, &squares);
}

static int bench_attention(struct bench *b, bool demo, struct err *e) {
    struct mask m;
    if (demo) {
        int rc = mask_block_causal(&m, F, P, 0, F, e);
        if (rc != 0) return rc;
        attention(b, "3x190 3x32 blocks", LAYERS * SHARDS, B, H, HD, &m);
        mask_fini(&m);
        return 0;
    }
    static const int head_dims[] = {64, 128};
    static const int64_t lengths[] = {2048, 8192};
    for (int i = 0; i < 4; i++) {
        int64_t s = lengths[i / 2];
        int hd = head_dims[i % 2], heads = 256 / hd;
        char shape[64];
        m = mask_make_full(s, s);
        snprintf(shape, sizeof shape, "1x%ld %dx%d full", (long)s, heads, hd);
        attention(b, shape, 0, 1, heads, hd, &m);
        mask_fini(&m);
        int rc = mask_block_causal(&m, s / 256, 256, 0, s / 256, e);
        if (rc != 0) return rc;
        snprintf(shape, sizeof shape, "1x%ld %dx%d blocks of 256", (long)s, heads, hd);
        attention(b, shape, 0, 1, heads, hd, &m);
        mask_fini(&m);
    }
    return 0;
}

int main(int argc, char **argv) {
    struct err e = {0};
    struct bench b = {.filter = argc > 2 ? argv[2] : NULL};
    if (device_open_cpu(&b.device, argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1, &e) != 0) {
        fprintf(stderr, "%s\n", e.text);
        return err_exit_code(e.code);
    }
    struct device_info info;
    device_describe(b.device, &info);
    printf("%s, %d thread(s)\n", info.model, info.threads);
    printf("%-20s %-26s %5s %10s %9s\n", "op", "shape", "calls", "us/call", "ms/step");
    int32_t slots[P] = {0, 1, 2};
    for (int t = 3; t < P; t++) slots[t] = 3;
    struct token_map map = {B * F, P, M, slots};
    bench_linear(&b);
    bench_tokens(&b, &map);
    bench_frames(&b, &map);
    bench_optim(&b);
    int rc = bench_attention(&b, true, &e);
    printf("one step of the demo: %.1f ms in kernels, %.2f GFLOP, %.1f GFLOP/s\n", b.step_seconds * 1e3,
           b.step_flops * 1e-9, b.step_flops / b.step_seconds * 1e-9);
    if (rc == 0) rc = bench_attention(&b, false, &e);
    if (rc != 0) fprintf(stderr, "%s\n", e.text);
    device_close(b.device);
    return rc == 0 ? 0 : err_exit_code(e.code);
}
