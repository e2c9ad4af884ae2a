// SPDX-License-Identifier: Apache-2.0
#include "trial.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = 64, PROBES = 48 };

// size bytes at `at`, between guards; `before` is what it held when the run began, `first` what team 0 left.
struct trial_buffer {
    struct trial_buffer *next;
    void *block;
    char *at, *before, *first;
    size_t size;
    enum trial_use use;
    enum dtype dtype;
    int64_t rows, cols, ld; // elements; rows 0: no tensor
    bool host;              // stays the host's
    void *device;           // its double, guards included
};

static size_t size_of(enum dtype dtype) {
    return dtype == DTYPE_BF16 ? 2 : 4;
}

void trial_fail(struct trial *t, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fail_msg("%s (%s, ORRERY_TEST_SEED=%llu, round %d): %s", t->op, t->isa, (unsigned long long)t->seed,
             t->round, text);
    abort();
}

int64_t trial_below(struct trial *t, int64_t n) {
    return rng_next_below(&t->rng, (uint32_t)n);
}
double trial_normal(struct trial *t) {
    return rng_next_normal(&t->rng);
}
double trial_unit(struct trial *t) {
    return (double)rng_next_unit(&t->rng);
}

int64_t trial_size(struct trial *t, int64_t large) {
    if (t->round == 0) return 1;
    if (t->largest > 0 && large > t->largest) large = t->largest;
    if (t->round >= TRIAL_ROUNDS - 2) return 1 + trial_below(t, large);
    return 1 + trial_below(t, large < 21 ? large : 21);
}

bool trial_is_wide(const struct trial *t) {
    return t->round > 0 && t->round % 2 == 0;
}

int64_t trial_width(const struct trial *t, int64_t n) {
    return trial_is_wide(t) ? (n + 7) / 8 * 8 : n;
}

// How much further rows lie apart than they are long.
static int64_t gap_between(struct trial *t) {
    if (trial_below(t, 3) > 0) return 0;
    return trial_is_wide(t) ? 8 * (1 + trial_below(t, 5)) : 1 + trial_below(t, 40);
}

static void *must(void *p) {
    if (p == NULL) fail_msg("no memory");
    return p;
}

static struct trial_buffer *new_buffer(struct trial *t, enum trial_use use, size_t size) {
    struct trial_buffer *b = must(calloc(1, sizeof *b));
    size_t guard = GUARD * sizeof(float);
    b->block = must(malloc(size + 2 * guard));
    memset(b->block, 0xa5, size + 2 * guard);
    b->at = (char *)b->block + guard;
    b->before = must(malloc(size + 1));
    b->first = must(malloc(size + 1));
    b->size = size;
    b->use = use;
    b->next = t->buffers;
    t->buffers = b;
    return b;
}

static double read_at(const void *data, enum dtype dtype, int64_t at) {
    if (dtype == DTYPE_F32) return (double)((const float *)data)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)data)[at] << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

static void write_at(void *data, enum dtype dtype, int64_t at, double value) {
    float x = (float)value;
    uint32_t bits;
    if (dtype == DTYPE_F32) {
        ((float *)data)[at] = x;
        return;
    }
    memcpy(&bits, &x, sizeof bits);
    ((uint16_t *)data)[at] = isnan(x) ? 0x7fff : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static struct tensor new_tensor(struct trial *t, enum trial_use use, enum dtype dtype, int64_t rows,
                                int64_t cols, int64_t ld) {
    struct trial_buffer *b = new_buffer(t, use, (size_t)(rows * ld) * size_of(dtype));
    b->rows = rows;
    b->cols = cols;
    b->ld = ld;
    b->dtype = dtype;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++)
            write_at(b->at, dtype, i * ld + j, use == TRIAL_OUT ? NAN : trial_normal(t));
    }
    memcpy(b->before, b->at, b->size);
    struct tensor x = tensor_rows(b->at, rows, cols, ld);
    x.dtype = dtype;
    return x;
}

struct tensor trial_rows(struct trial *t, enum trial_use use, int64_t rows, int64_t cols) {
    return new_tensor(t, use, DTYPE_F32, rows, cols, cols + gap_between(t));
}

struct tensor trial_low(struct trial *t, enum trial_use use, int64_t rows, int64_t cols) {
    return new_tensor(t, use, t->low, rows, cols, cols + gap_between(t));
}

struct tensor trial_low_aligned(struct trial *t, enum trial_use use, int64_t rows, int64_t cols) {
    int64_t gap = trial_below(t, 3) == 0 ? 8 * (1 + trial_below(t, 5)) : 0;
    if (t->low == DTYPE_F32) return trial_low(t, use, rows, cols);
    return new_tensor(t, use, t->low, rows, cols, (cols + 7) / 8 * 8 + gap);
}

struct tensor trial_dense(struct trial *t, enum trial_use use, int64_t rows, int64_t cols) {
    return new_tensor(t, use, DTYPE_F32, rows, cols, cols);
}

struct tensor trial_low_dense(struct trial *t, enum trial_use use, int64_t rows, int64_t cols) {
    return new_tensor(t, use, t->low, rows, cols, cols);
}

struct tensor trial_vector(struct trial *t, enum trial_use use, int64_t n) {
    struct tensor x = new_tensor(t, use, DTYPE_F32, 1, n, n);
    return tensor_1d(x.data, n);
}

void *trial_device_out(struct trial *t, const void *initial, size_t bytes) {
    struct trial_buffer *b = new_buffer(t, TRIAL_INOUT, bytes);
    memcpy(b->at, initial, bytes);
    memcpy(b->before, initial, bytes);
    return b->at;
}

void *trial_device_in(struct trial *t, const void *data, size_t bytes) {
    struct trial_buffer *b = new_buffer(t, TRIAL_IN, bytes);
    memcpy(b->at, data, bytes);
    memcpy(b->before, data, bytes);
    return b->at;
}

void *trial_alloc(struct trial *t, size_t bytes) {
    struct trial_buffer *b = new_buffer(t, TRIAL_IN, bytes);
    b->host = true;
    memset(b->at, 0, bytes);
    memset(b->before, 0, bytes);
    return b->at;
}

void trial_refilled(struct trial *t) {
    for (struct trial_buffer *b = t->buffers; b != NULL; b = b->next) memcpy(b->before, b->at, b->size);
}

static struct trial_buffer *find(struct trial *t, const void *at) {
    for (struct trial_buffer *b = t->buffers; b != NULL; b = b->next) {
        if (b->at == at) return b;
    }
    fail_msg("not a tensor of the trial");
    return NULL;
}

static int64_t rows_of(struct tensor x) {
    return x.rank == 1 ? 1 : x.shape[0];
}
static int64_t cols_of(struct tensor x) {
    return x.rank == 1 ? x.shape[0] : x.shape[1];
}
static int64_t ld_of(struct tensor x) {
    return x.rank == 1 ? x.shape[0] : x.stride[0];
}

double trial_get(struct tensor x, int64_t i) {
    int64_t cols = cols_of(x);
    return read_at(x.data, x.dtype, i / cols * ld_of(x) + i % cols);
}
void trial_put(struct tensor x, int64_t i, double value) {
    int64_t cols = cols_of(x);
    write_at(x.data, x.dtype, i / cols * ld_of(x) + i % cols, value);
}
static double tolerance(struct tensor x, double tol) {
    return x.dtype == DTYPE_BF16 && tol < 6e-3 ? 6e-3 : tol;
}

double *trial_double(struct trial *t, struct tensor x) {
    int64_t n = tensor_elems(&x);
    struct tensor before = x;
    before.data = find(t, x.data)->before;
    double *out = trial_alloc(t, (size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) out[i] = trial_get(before, i);
    return out;
}

static size_t block_bytes(const struct trial_buffer *b) {
    return b->size + 2 * GUARD * sizeof(float);
}

// Words of the arguments that point into a buffer point into its double from now on.
static void exchange_pointers(const struct trial *t, void *args, size_t bytes) {
    for (size_t at = 0; at + sizeof(char *) <= bytes; at += sizeof(char *)) {
        char *p;
        memcpy(&p, (char *)args + at, sizeof p);
        for (const struct trial_buffer *b = t->buffers; b != NULL; b = b->next) {
            if (b->host || p < b->at || p >= b->at + b->size + (b->size == 0)) continue;
            char *moved = (char *)b->device + (p - (char *)b->block);
            memcpy((char *)args + at, &moved, sizeof moved);
            break;
        }
    }
}

void trial_before(struct trial *t, int team, void *args, size_t bytes) {
    struct device *d = t->device[team];
    struct err e = {0};
    for (struct trial_buffer *b = t->buffers; b != NULL; b = b->next) {
        if (b->use != TRIAL_IN) memcpy(b->at, b->before, b->size);
        if (d->host_memory || b->host) continue;
        if ((b->device == NULL && d->vtable->alloc(d, &b->device, block_bytes(b), &e)) ||
            d->vtable->copy_in(d, b->device, b->block, block_bytes(b), &e))
            trial_fail(t, "%s", e.text);
    }
    if (!d->host_memory) exchange_pointers(t, args, bytes);
}

static bool guards_hold(const struct trial_buffer *b) {
    const unsigned char *low = b->block, *high = (unsigned char *)b->at + b->size;
    for (size_t i = 0; i < GUARD * sizeof(float); i++) {
        if (low[i] != 0xa5 || high[i] != 0xa5) return false;
    }
    return true;
}

static bool gaps_hold(const struct trial_buffer *b) {
    size_t gap = (size_t)(b->ld - b->cols) * size_of(b->dtype);
    for (int64_t i = 0; i < b->rows && gap > 0; i++) {
        size_t at = (size_t)(i * b->ld + b->cols) * size_of(b->dtype);
        if (memcmp(b->at + at, b->before + at, gap) != 0) return false;
    }
    return true;
}

static void fetch(struct trial *t, struct device *d) {
    struct err e = {0};
    for (struct trial_buffer *b = t->buffers; b != NULL; b = b->next) {
        if (!b->host && d->vtable->copy_out(d, b->block, b->device, block_bytes(b), &e))
            trial_fail(t, "%s", e.text);
    }
}

void trial_after(struct trial *t, int team) {
    if (!t->device[team]->host_memory) fetch(t, t->device[team]);
    for (struct trial_buffer *b = t->buffers; b != NULL; b = b->next) {
        if (!guards_hold(b)) trial_fail(t, "wrote outside a buffer of %zu bytes", b->size);
        if (b->use == TRIAL_IN) continue;
        if (!gaps_hold(b))
            trial_fail(t, "wrote between the rows of a [%lld, %lld]", (long long)b->rows, (long long)b->cols);
        if (team == 0) {
            memcpy(b->first, b->at, b->size);
        } else if (memcmp(b->first, b->at, b->size) != 0) {
            trial_fail(t, "run %d (%d threads) gives other bits than the first, in a [%lld, %lld]", team + 1,
                       t->device[team]->threads, (long long)b->rows, (long long)b->cols);
        }
    }
}

static void inputs_hold(struct trial *t) {
    for (struct trial_buffer *b = t->buffers; b != NULL; b = b->next) {
        if (b->use == TRIAL_IN && b->rows > 0 && memcmp(b->at, b->before, b->size) != 0) {
            trial_fail(t, "changed an input [%lld, %lld]", (long long)b->rows, (long long)b->cols);
        }
    }
}

void trial_compare(struct trial *t, const char *name, struct tensor got, const double *want, double tol) {
    int64_t n = tensor_elems(&got);
    double mean = 0;
    tol = tolerance(got, tol);
    for (int64_t i = 0; i < n; i++) mean += fabs(want[i]) / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double g = trial_get(got, i);
        if (!(fabs(g - want[i]) <= tol * (fabs(want[i]) + mean)) && !(isinf(want[i]) && g == want[i])) {
            trial_fail(t, "%s[%lld of %lld x %lld] is %.9g, not %.9g", name, (long long)i,
                       (long long)rows_of(got), (long long)cols_of(got), g, want[i]);
        }
    }
}

void trial_gradient(struct trial *t, const char *name, struct tensor got, bool accumulated, double *at,
                    trial_loss_fn *loss, void *arg, double tol) {
    int64_t n = tensor_elems(&got), probes = n < PROBES ? n : PROBES, where[PROBES];
    double slope[PROBES], mean = 0;
    struct tensor before = got;
    before.data = find(t, got.data)->before;
    tol = tolerance(got, tol);
    for (int64_t p = 0; p < probes; p++) {
        int64_t i = n == probes ? p : trial_below(t, n);
        double x = at[i], h = 1e-5 * (1 + fabs(x));
        at[i] = x + h;
        double up = loss(arg);
        at[i] = x - h;
        slope[p] = (up - loss(arg)) / (2 * h);
        at[i] = x;
        where[p] = i;
        mean += fabs(slope[p]) / (double)probes;
    }
    for (int64_t p = 0; p < probes; p++) {
        int64_t i = where[p];
        double base = accumulated ? trial_get(before, i) : 0, g = trial_get(got, i) - base;
        if (!(fabs(g - slope[p]) <= tol * (fabs(slope[p]) + mean + fabs(base)) + 1e-9)) {
            trial_fail(t, "%s[%lld of %lld x %lld] is %.9g, differences say %.9g", name, (long long)i,
                       (long long)rows_of(got), (long long)cols_of(got), g, slope[p]);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(trial_get(got, i)))
            trial_fail(t, "%s[%lld] is %g", name, (long long)i, trial_get(got, i));
    }
}

void trial_begin(struct trial *t, int round) {
    t->round = round;
    t->buffers = NULL;
    uint32_t op = 0;
    for (const char *c = t->op; *c != '\0'; c++) op = op * 31 + (unsigned char)*c;
    rng_stream_init(&t->rng, rng_key(t->seed, RNG_TEST, op), (uint32_t)round, 0);
}

void trial_end(struct trial *t) {
    inputs_hold(t);
    while (t->buffers != NULL) {
        struct trial_buffer *b = t->buffers;
        t->buffers = b->next;
        if (b->device != NULL) t->device[0]->vtable->release(t->device[0], b->device);
        free(b->block);
        free(b->before);
        free(b->first);
        free(b);
    }
}
