// SPDX-License-Identifier: Apache-2.0
// The attention kernels alone on a GPU: first against a float64 reference on the device (small and odd
// shapes, twice for the bits), then timed. CSV on stdout: pass, mask, tokens, heads, head_dim, ms, TFLOP/s
// (visible pairs only). `check` or `time` as argument: that part only. Built by attention.sh, also as a
// library whose functions at the end let peers.py call the kernels between PyTorch's. Exit 1: numbers are
// wrong; 2: a shape faulted or hung.
#include "tests/bench/gpu/standalone.h" // first: it gives the C headers their linkage

#include <cuda_bf16.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "tests/lib/mask_make.h"

typedef __nv_bfloat16 bf16;

static void must(int rc, const struct err *e) {
    if (rc == 0) return;
    fprintf(stderr, "%s\n", e->text);
    exit(3);
}
static void cuda(cudaError_t rc) {
    struct err e = {};
    must(cuda_check(rc, "bench", &e), &e);
}

static __global__ void fill(bf16 *x, int64_t n, float scale, unsigned seed) {
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        unsigned h = (unsigned)i * 2654435761u + seed, sum = 0; // nearly normal: four bytes
        h ^= h >> 16, h *= 0x85ebca6bu, h ^= h >> 13, h *= 0xc2b2ae35u, h ^= h >> 16;
        for (int b = 0; b < 4; b++) sum += h >> (8 * b) & 255;
        x[i] = __float2bfloat16(((float)sum - 510) / 148 * scale);
    }
}

struct shape {
    const char *mask;
    int tokens, frame, heads, kv_heads, dim, batch;
};

struct problem {
    struct shape s;
    struct mask mask;
    struct op_attention_args f;
    struct op_attention_backward_args b;
    unsigned char *seen; // device, [tokens][tokens]; checks only
};

static struct tensor rows(int64_t n, int64_t columns, float scale, unsigned seed) {
    bf16 *p = NULL;
    cuda(cudaMalloc((void **)&p, (size_t)(n * columns) * sizeof *p));
    if (scale > 0) {
        fill<<<1024, 256>>>(p, n * columns, scale, seed);
    } else {
        cuda(cudaMemset(p, 0xff, (size_t)(n * columns) * sizeof *p));
    }
    struct tensor t = tensor_2d(p, n, columns);
    t.dtype = DTYPE_BF16;
    return t;
}

static void open_problem(struct problem *p, struct shape s, unsigned seed) {
    struct err e = {};
    memset(p, 0, sizeof *p);
    p->s = s;
    int frames = (s.tokens + s.frame - 1) / s.frame;
    if (strcmp(s.mask, "full") == 0)
        p->mask = mask_make_full(s.tokens, s.tokens);
    else
        must(mask_block_causal(&p->mask, frames, s.frame, strcmp(s.mask, "window") ? 0 : 8, frames, &e), &e);
    p->s.tokens = (int)p->mask.queries;
    int64_t n = (int64_t)s.batch * p->s.tokens, q = (int64_t)s.heads * s.dim, k = (int64_t)s.kv_heads * s.dim;
    struct tensor lse = tensor_2d(NULL, n, s.heads);
    cuda(cudaMalloc(&lse.data, (size_t)(n * s.heads) * sizeof(float)));
    p->f.q = rows(n, q, 1 / sqrtf((float)s.dim), seed), p->f.k = rows(n, k, 1, seed + 1);
    p->f.v = rows(n, k, 1, seed + 2), p->f.o = rows(n, q, 0, 0), p->f.lse = lse;
    p->f.sequences = s.batch, p->f.heads = s.heads, p->f.kv_heads = s.kv_heads, p->f.head_dim = s.dim;
    p->f.mask = &p->mask;
    p->b.q = p->f.q, p->b.k = p->f.k, p->b.v = p->f.v, p->b.o = p->f.o, p->b.lse = lse;
    p->b.d_o = rows(n, q, 1, seed + 3), p->b.dq = rows(n, q, 0, 0), p->b.dk = rows(n, k, 0, 0),
    p->b.dv = rows(n, k, 0, 0);
    p->b.sequences = s.batch, p->b.heads = s.heads, p->b.kv_heads = s.kv_heads, p->b.head_dim = s.dim;
    p->b.mask = &p->mask;
}

static void close_problem(struct problem *p) {
    void *all[] = {p->f.q.data,   p->f.k.data,  p->f.v.data,  p->f.o.data,  p->f.lse.data,
                   p->b.d_o.data, p->b.dq.data, p->b.dk.data, p->b.dv.data, p->seen};
    for (void *x : all) cudaFree(x);
    mask_fini(&p->mask);
}

// ---- the reference, one thread per row, in double

struct reference {
    const bf16 *q, *k, *v, *g;
    const unsigned char *seen;
    int n, heads, group, dim;
    double *lse, *delta, *o, *dq, *dk, *dv;
};

static __device__ double dot(const bf16 *a, const bf16 *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)__bfloat162float(a[i]) * (double)__bfloat162float(b[i]);
    return sum;
}

static __global__ void reference_queries(const struct reference r) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x), h = (int)blockIdx.y, b = (int)blockIdx.z, d = r.dim;
    if (i >= r.n) return;
    int64_t row = ((int64_t)(b * r.n + i) * r.heads + h), kv = (int64_t)r.heads / r.group * d;
    const bf16 *k = r.k + (int64_t)b * r.n * kv + h / r.group * d, *v = r.v + (k - r.k), *g = r.g + row * d;
    double top = -INFINITY, sum = 0;
    for (int j = 0; j < r.n; j++)
        if (r.seen[(int64_t)i * r.n + j]) top = fmax(top, dot(r.q + row * d, k + j * kv, d));
    for (int c = 0; c < d; c++) r.o[row * d + c] = r.dq[row * d + c] = 0;
    for (int j = 0; j < r.n; j++) {
        if (!r.seen[(int64_t)i * r.n + j]) continue;
        double w = exp(dot(r.q + row * d, k + j * kv, d) - top);
        sum += w;
        for (int c = 0; c < d; c++) r.o[row * d + c] += w * (double)__bfloat162float(v[j * kv + c]);
    }
    double delta = 0, lse = r.lse[row] = top + log(sum);
    for (int c = 0; c < d; c++) delta += (r.o[row * d + c] /= sum) * (double)__bfloat162float(g[c]);
    r.delta[row] = delta;
    for (int j = 0; j < r.n; j++) {
        if (!r.seen[(int64_t)i * r.n + j]) continue;
        double ds = exp(dot(r.q + row * d, k + j * kv, d) - lse) * (dot(g, v + j * kv, d) - delta);
        for (int c = 0; c < d; c++) r.dq[row * d + c] += ds * (double)__bfloat162float(k[j * kv + c]);
    }
}

static __global__ void reference_keys(const struct reference r) {
    int j = (int)(blockIdx.x * blockDim.x + threadIdx.x), hk = (int)blockIdx.y, b = (int)blockIdx.z,
        d = r.dim;
    if (j >= r.n) return;
    int64_t at = ((int64_t)(b * r.n + j) * (r.heads / r.group) + hk) * d;
    for (int c = 0; c < d; c++) r.dk[at + c] = r.dv[at + c] = 0;
    for (int i = 0; i < r.n; i++) {
        if (!r.seen[(int64_t)i * r.n + j]) continue;
        for (int h = hk * r.group; h < (hk + 1) * r.group; h++) {
            int64_t row = (int64_t)(b * r.n + i) * r.heads + h;
            double p = exp(dot(r.q + row * d, r.k + at, d) - r.lse[row]);
            double ds = p * (dot(r.g + row * d, r.v + at, d) - r.delta[row]);
            for (int c = 0; c < d; c++) {
                r.dv[at + c] += p * (double)__bfloat162float(r.g[row * d + c]);
                r.dk[at + c] += ds * (double)__bfloat162float(r.q[row * d + c]);
            }
        }
    }
}

static void upload_seen(struct problem *p) {
    int64_t n = p->s.tokens;
    std::vector<unsigned char> seen((size_t)(n * n));
    for (int32_t r = 0; r < p->mask.n_runs; r++) {
        struct mask_run run = p->mask.runs[r];
        for (int32_t i = run.first; i < run.first + run.count; i++)
            for (int32_t q = run.q_lo; q < run.q_hi; q++)
                memset(&seen[(size_t)(q * n + p->mask.intervals[i].lo)], 1,
                       (size_t)(p->mask.intervals[i].hi - p->mask.intervals[i].lo));
    }
    cuda(cudaMalloc((void **)&p->seen, seen.size()));
    cuda(cudaMemcpy(p->seen, seen.data(), seen.size(), cudaMemcpyHostToDevice));
}

// |got - want| / (|want|, at least 0.001 each); NaN where anything is not finite.
static double error_of(const struct tensor *t, const double *want) {
    int64_t n = tensor_elems(t);
    std::vector<bf16> got((size_t)n);
    std::vector<double> ref((size_t)n);
    cuda(cudaMemcpy(got.data(), t->data, (size_t)n * sizeof(bf16), cudaMemcpyDeviceToHost));
    cuda(cudaMemcpy(ref.data(), want, (size_t)n * sizeof(double), cudaMemcpyDeviceToHost));
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)__bfloat162float(got[(size_t)i]) - ref[(size_t)i];
        difference += d * d;
        norm += ref[(size_t)i] * ref[(size_t)i];
    }
    return sqrt(difference / (norm + 1e-6 * (double)n)); // one key: dq and dk are zero
}

static uint64_t bits_of(const struct tensor *t) {
    std::vector<uint16_t> got((size_t)tensor_elems(t));
    cuda(cudaMemcpy(got.data(), t->data, got.size() * 2, cudaMemcpyDeviceToHost));
    uint64_t h = 1469598103934665603u;
    for (uint16_t v : got) h = (h ^ v) * 1099511628211u;
    return h;
}

static void run(struct bench_device *d, struct problem *p, bool backward) {
    struct err e = {};
    must(backward ? cuda_attention_backward(&d->cuda.base, &p->b, &e)
                  : cuda_attention(&d->cuda.base, &p->f, &e),
         &e);
}

// Runs the reference; its arrays lie in `room`, which the caller frees.
static struct reference reference_of(const struct problem *p, double **room) {
    const struct shape *s = &p->s;
    int64_t q = tensor_elems(&p->f.q), k = tensor_elems(&p->f.k),
            all = (int64_t)s->batch * s->tokens * s->heads;
    cuda(cudaMalloc((void **)room, (size_t)(2 * all + 2 * q + 2 * k) * sizeof **room));
    struct reference r = {};
    r.q = (bf16 *)p->f.q.data, r.k = (bf16 *)p->f.k.data, r.v = (bf16 *)p->f.v.data,
    r.g = (bf16 *)p->b.d_o.data;
    r.seen = p->seen, r.n = s->tokens, r.heads = s->heads, r.group = s->heads / s->kv_heads, r.dim = s->dim;
    r.lse = *room, r.delta = r.lse + all, r.o = r.delta + all, r.dq = r.o + q, r.dk = r.dq + q,
    r.dv = r.dk + k;
    unsigned blocks = (unsigned)(s->tokens + 63) / 64;
    reference_queries<<<dim3(blocks, (unsigned)s->heads, (unsigned)s->batch), 64>>>(r);
    reference_keys<<<dim3(blocks, (unsigned)s->kv_heads, (unsigned)s->batch), 64>>>(r);
    cuda(cudaGetLastError());
    return r;
}

// Prints as it goes: a pass that hangs leaves the line of the one before.
static int check(struct bench_device *d, struct shape s, unsigned seed) {
    struct problem p;
    double *room = NULL;
    open_problem(&p, s, seed);
    upload_seen(&p);
    struct reference r = reference_of(&p, &room);
    run(d, &p, false);
    cuda(cudaDeviceSynchronize());
    double o = error_of(&p.f.o, r.o);
    printf("%s %s n %d heads %d/%d D %d batch %d: o %.2e,", o <= 0.01 ? "good" : "BAD ", s.mask, p.s.tokens,
           s.heads, s.kv_heads, s.dim, s.batch, o);
    fflush(stdout);
    run(d, &p, true);
    cuda(cudaDeviceSynchronize());
    double e[3] = {error_of(&p.b.dq, r.dq), error_of(&p.b.dk, r.dk), error_of(&p.b.dv, r.dv)};
    uint64_t bits[2] = {};
    for (int i = 0; i < 2; i++) {
        bits[i] = bits_of(&p.f.o) ^ 3 * bits_of(&p.b.dq) ^ 5 * bits_of(&p.b.dk) ^ 7 * bits_of(&p.b.dv);
        run(d, &p, false);
        run(d, &p, true);
        cuda(cudaDeviceSynchronize());
    }
    bool good = o <= 0.01 && e[0] <= 0.02 && e[1] <= 0.02 && e[2] <= 0.01 && bits[0] == bits[1];
    printf(" %s dq %.2e dk %.2e dv %.2e, bits %s\n", good ? "good" : "BAD ", e[0], e[1], e[2],
           bits[0] == bits[1] ? "the same" : "DIFFER");
    fflush(stdout);
    cudaFree(room);
    close_problem(&p);
    return good ? 0 : 1;
}

static double milliseconds(struct bench_device *d, struct problem *p, bool backward) {
    cudaEvent_t a, b;
    cuda(cudaEventCreate(&a));
    cuda(cudaEventCreate(&b));
    std::vector<float> all;
    for (int i = 0; i < 3; i++) run(d, p, backward);
    for (int i = 0; i < 11; i++) {
        float ms = 0;
        cuda(cudaEventRecord(a, d->cuda.stream));
        for (int j = 0; j < 3; j++) run(d, p, backward);
        cuda(cudaEventRecord(b, d->cuda.stream));
        cuda(cudaEventSynchronize(b));
        cuda(cudaEventElapsedTime(&ms, a, b));
        all.push_back(ms / 3);
    }
    cudaEventDestroy(a);
    cudaEventDestroy(b);
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
}

static void print_row(const char *pass, const struct problem *p, double ms, double flops) {
    printf("%s,%s,%d,%d,%d,%.4f,%.1f\n", pass, p->s.mask, p->s.tokens, p->s.heads, p->s.dim, ms,
           flops / ms * 1e-9);
    fflush(stdout);
}

static void time_shape(struct bench_device *d, struct shape s) {
    struct problem p;
    open_problem(&p, s, 7);
    double flops = 4.0 * (double)mask_pairs(&p.mask) * s.heads * s.dim * s.batch;
    enum attention_pairs asked = d->cuda.attention_pairs;
    run(d, &p, false);
    print_row("forward", &p, milliseconds(d, &p, false), flops);
    d->cuda.attention_pairs = ATTENTION_PAIRS_NEVER;
    print_row("forward_no_pairs", &p, milliseconds(d, &p, false), flops);
    d->cuda.attention_pairs = asked;
    for (int free_order = 0; free_order < 2; free_order++) {
        d->cuda.attention_free_order = free_order != 0;
        print_row(free_order ? "backward_free" : "backward", &p, milliseconds(d, &p, true), 2.5 * flops);
    }
    d->cuda.attention_free_order = false;
    close_problem(&p);
}

static void open_bench(struct bench_device *d) {
    struct cudaDeviceProp about;
    cuda(cudaGetDeviceProperties(&about, 0));
    d->cuda.compute = about.major * 10 + about.minor;
    if (getenv("ORRERY_ATTENTION_SM80") != NULL) d->cuda.compute = 80; // the kernels for every GPU
    d->cuda.multiprocessors = about.multiProcessorCount;
    struct err e = {};
    must(attention_pairs_asked(&d->cuda.attention_pairs, &e), &e);
    fprintf(stderr, "%s, compute %d, %d multiprocessors\n", about.name, d->cuda.compute,
            d->cuda.multiprocessors);
}

// In a process of its own: a kernel that faults or hangs ends that one alone. 0, 1: wrong, 2: faulted or
// hung.
static int check_alone(struct shape s, unsigned seed) {
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct bench_device d = {};
        alarm(20);
        open_bench(&d);
        int bad = check(&d, s, seed);
        fflush(NULL);
        _exit(bad);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) <= 1) return WEXITSTATUS(status);
    printf("\nBAD  %s n %d D %d: ended by %s %d (signal 14: it hung)\n", s.mask, s.tokens, s.dim,
           WIFSIGNALED(status) ? "signal" : "exit",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return 2;
}

static int check_all(void) {
    const struct shape checks[] = {
        {"full", 1, 1, 1, 1, 128, 1},       {"full", 129, 129, 2, 2, 64, 2},
        {"full", 1000, 1000, 8, 4, 128, 2}, {"causal", 777, 1, 4, 4, 128, 2},
        {"causal", 640, 1, 4, 1, 64, 1},    {"block", 1500, 100, 8, 8, 128, 2},
        {"block", 1024, 128, 8, 4, 64, 2},  {"window", 1530, 90, 8, 8, 128, 2},
        {"block", 600, 60, 2, 2, 32, 1},    {"causal", 2176, 1, 4, 4, 128, 2}, // two waves of key tiles
        {"block", 1500, 100, 4, 4, 128, 1}, // few tiles: the forward of sm_80, keys shared out
        {"block", 8192, 256, 2, 2, 128, 1}, // as long as what is timed
    };
    unsigned seed = (unsigned)time(NULL);
    int worst = 0;
    printf("seed %u\n", seed);
    for (const struct shape &s : checks) {
        int rc = check_alone(s, seed);
        if (rc > worst) worst = rc;
    }
    return worst;
}

static void time_all(struct bench_device *d) {
    printf("pass,mask,tokens,heads,head_dim,ms,tflops\n");
    for (int dim = 128; dim >= 64; dim -= 64) {
        for (int tokens = 8192; tokens <= 32768; tokens *= 2) {
            time_shape(d, {"full", tokens, tokens, 2048 / dim, 2048 / dim, dim, 32768 / tokens});
            time_shape(d, {"causal", tokens, 1, 2048 / dim, 2048 / dim, dim, 32768 / tokens});
            time_shape(d, {"block", tokens, 256, 2048 / dim, 2048 / dim, dim, 32768 / tokens});
            time_shape(d, {"block", tokens, 200, 2048 / dim, 2048 / dim, dim, 32768 / tokens});
        }
    }
}

int main(int argc, char **argv) {
    struct bench_device d = {};
    const char *part = argc > 1 ? argv[1] : "";
    int worst = strcmp(part, "time") == 0 ? 0 : check_all();
    if (worst > 0 || strcmp(part, "check") == 0) return worst;
    open_bench(&d);
    if (argc > 3) { // time MASK TOKENS: for a profiler
        int n = (int)strtol(argv[3], NULL, 10);
        int frame = strcmp(argv[2], "block") == 0 ? 256 : strcmp(argv[2], "causal") == 0 ? 1 : n;
        time_shape(&d, {argv[2], n, frame, 16, 16, 128, 32768 / n});
    } else {
        time_all(&d);
    }
    cuda_attention_close(&d.cuda.base);
    return 0;
}

// ---- as a library: one problem at a time, on the default stream

extern "C" {
struct bench_session {
    struct bench_device device;
    struct problem problem;
};
#pragma GCC visibility push(default)
struct bench_session *bench_open(const char *mask, int tokens, int frame, int heads, int dim, int batch);
double bench_flops(const struct bench_session *s);
// 0 forward, 1 backward, 2 backward in free order, 3 forward without pairs of blocks.
int bench_run(struct bench_session *s, int pass);
void bench_close(struct bench_session *s);
#pragma GCC visibility pop
}

struct bench_session *bench_open(const char *mask, int tokens, int frame, int heads, int dim, int batch) {
    struct bench_session *s = (struct bench_session *)calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    open_bench(&s->device);
    open_problem(&s->problem, {mask, tokens, frame, heads, heads, dim, batch}, 7);
    return s;
}

double bench_flops(const struct bench_session *s) {
    const struct shape *p = &s->problem.s;
    return 4.0 * (double)mask_pairs(&s->problem.mask) * p->heads * p->dim * p->batch;
}

int bench_run(struct bench_session *s, int pass) {
    struct err e = {};
    struct device *d = &s->device.cuda.base;
    enum attention_pairs asked = s->device.cuda.attention_pairs;
    s->device.cuda.attention_free_order = pass == 2;
    if (pass == 3) s->device.cuda.attention_pairs = ATTENTION_PAIRS_NEVER;
    int rc = pass == 1 || pass == 2 ? cuda_attention_backward(d, &s->problem.b, &e)
                                    : cuda_attention(d, &s->problem.f, &e);
    s->device.cuda.attention_pairs = asked;
    if (rc != 0) fprintf(stderr, "%s\n", e.text);
    return rc;
}

void bench_close(struct bench_session *s) {
    if (s == NULL) return;
    close_problem(&s->problem);
    cuda_attention_close(&s->device.cuda.base);
    cudaFree(s->device.scratch);
    free(s);
}
