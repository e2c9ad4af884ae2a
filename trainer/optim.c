// SPDX-License-Identifier: Apache-2.0
#include "trainer/optim.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/ops.h"

// Muon's matrices of one shape that are updated together; `at` counts from the start of the rank's segment.
struct batch {
    int64_t rows, cols;
    const int64_t *at; // [count]
    int count;
};

struct batches {
    struct batch *list;
    int n;
    int64_t *at; // all batches', one behind the other
};

struct optim {
    const struct config *config;
    const struct params *params;
    struct device *device;
    int size, rank, lo, hi; // own tensors
    int64_t *offset;        // [size + 1]
    int64_t *v_at;          // [hi - lo]: where a tensor's second moment starts, -1 none
    int64_t v_elems;
    struct op_adamw_part *part;    // [parts]: own tensors that AdamW updates
    struct op_squares_part *whole; // [hi - lo]: all own tensors
    int parts;
    struct batches batches;
    float *state; // work | m | v | average: so the work is aligned the same on any number of ranks
    float *m, *v, *average, *work;
    int64_t work_elems;
};

static bool uses_muon(const struct config *c, const struct param *p) {
    return c->optim_kind == CONFIG_optim_kind_muon && p->group == PARAM_MATRIX;
}

// Multiplications, roughly: Newton-Schulz costs five times rows cols min + small; elementwise work a few per
// number.
static double cost_of(const struct config *c, const struct param *p) {
    double cost = 8 * (double)p->elems;
    if (!uses_muon(c, p)) return cost;
    for (int k = 0; k < p->parts; k++) {
        double rows = (double)p->part_rows[k], cols = (double)p->shape[1], least = fmin(rows, cols);
        cost += 5 * (2 * rows * cols * least + least * least * least);
    }
    return cost;
}

void optim_split(const struct config *c, const struct params *p, int size, int64_t *offset) {
    double total = 0, upto = 0;
    int r = 1;
    for (int i = 0; i < p->n; i++) total += cost_of(c, &p->list[i]);
    offset[0] = 0;
    for (int i = 0; i < p->n && r < size; i++) {
        double cost = cost_of(c, &p->list[i]);
        // A border goes before the tensor in whose first half it falls.
        while (r < size && upto + cost / 2 >= total * r / size) offset[r++] = p->list[i].offset;
        upto += cost;
    }
    while (r <= size) offset[r++] = p->elems;
}

static void own_range(const struct params *p, const int64_t *offset, int rank, int *lo, int *hi) {
    *lo = 0;
    while (*lo < p->n && p->list[*lo].offset < offset[rank]) (*lo)++;
    *hi = *lo;
    while (*hi < p->n && p->list[*hi].offset < offset[rank + 1]) (*hi)++;
}

// A matrix of Muon's that waits for its batch.
struct matrix {
    int64_t rows, cols, at;
    bool placed;
};

static int list_matrices(struct matrix *list, const struct config *c, const struct params *p, int64_t first,
                         int lo, int hi) {
    int n = 0;
    for (int i = lo; i < hi; i++) {
        const struct param *t = &p->list[i];
        int64_t at = t->offset - first, cols = t->shape[1];
        if (!uses_muon(c, t)) continue;
        for (int k = 0; k < t->parts; at += t->part_rows[k++] * cols)
            list[n++] = (struct matrix){.rows = t->part_rows[k], .cols = cols, .at = at};
    }
    return n;
}

// The first that waits and the next ones like it, at most `most`.
static void gather(struct batch *out, int64_t *at, struct matrix *list, int n, int most) {
    *out = (struct batch){.rows = list->rows, .cols = list->cols, .at = at};
    for (int i = 0; i < n && out->count < most; i++) {
        if (list[i].placed || list[i].rows != out->rows || list[i].cols != out->cols) continue;
        list[i].placed = true;
        at[out->count++] = list[i].at;
    }
}

static void batches_fini(struct batches *b) {
    free(b->list);
    free(b->at);
    *b = (struct batches){0};
}

// A GPU takes as many equal ones as fill it. The CPU takes one: that keeps it busy, and more would cost
// memory for nothing.
int optim_batch(const struct device *d, int64_t rows, int64_t cols) {
    return d->host_memory ? 1 : op_muon_most(rows, cols);
}

// Of tensors [lo, hi) of the table; `first`: where the segment starts.
static int batches_init(struct batches *b, const struct config *c, const struct params *p, int64_t first,
                        int lo, int hi, const struct device *d) {
    size_t room = (size_t)(hi - lo) * PARAM_PARTS_MAX + 1;
    struct matrix *list = calloc(room, sizeof *list);
    *b = (struct batches){.list = calloc(room, sizeof *b->list), .at = calloc(room, sizeof *b->at)};
    if (!list || !b->list || !b->at) {
        free(list);
        batches_fini(b);
        return -1;
    }
    int n = list_matrices(list, c, p, first, lo, hi);
    int64_t *at = b->at;
    for (int i = 0; i < n; i++) {
        if (list[i].placed) continue;
        gather(&b->list[b->n], at, list + i, n - i, optim_batch(d, list[i].rows, list[i].cols));
        at += b->list[b->n++].count;
    }
    free(list);
    return 0;
}

struct sizes {
    int64_t m, v, average, work;
};

static struct sizes sizes_of(const struct config *c, const struct params *p, int64_t segment, int lo, int hi,
                             const struct batches *b) {
    struct sizes s = {.m = segment, .average = c->optim_ema > 0 ? segment : 0};
    for (int i = lo; i < hi; i++)
        if (!uses_muon(c, &p->list[i])) s.v += (p->list[i].elems + 15) / 16 * 16;
    for (int i = 0; i < b->n; i++) {
        int64_t work = op_muon_work_elems(b->list[i].rows, b->list[i].cols, b->list[i].count);
        if (work > s.work) s.work = work;
    }
    return s;
}

static int share_of(const struct config *c, const struct params *p, int size, int rank,
                    const struct device *d, struct sizes *out) {
    struct batches b = {0};
    int64_t *offset = malloc(((size_t)size + 1) * sizeof *offset);
    if (!offset) return -1;
    int lo, hi;
    optim_split(c, p, size, offset);
    own_range(p, offset, rank, &lo, &hi);
    int rc = batches_init(&b, c, p, offset[rank], lo, hi, d);
    if (!rc) *out = sizes_of(c, p, offset[rank + 1] - offset[rank], lo, hi, &b);
    batches_fini(&b);
    free(offset);
    return rc;
}

int64_t optim_bytes(const struct config *c, const struct params *p, int size, int rank,
                    const struct device *d) {
    struct sizes s;
    if (share_of(c, p, size, rank, d, &s)) return -1;
    return (s.m + s.v + s.average + s.work) * (int64_t)sizeof(float);
}

int64_t optim_average_bytes(const struct config *c, const struct params *p, int size, int rank) {
    const struct device any = {.host_memory = true};
    struct sizes s;
    return share_of(c, p, size, rank, &any, &s) ? -1 : s.average * (int64_t)sizeof(float);
}

int optim_tensors(const struct config *c, const struct params *p, int size, int rank, int *lo, int *hi) {
    int64_t *offset = calloc((size_t)size + 1, sizeof *offset);
    if (!offset) return -1;
    optim_split(c, p, size, offset);
    own_range(p, offset, rank, lo, hi);
    free(offset);
    return 0;
}

// Where tensor i starts within this rank's segment.
static int64_t own_at(const struct optim *o, int i) {
    return o->params->list[i].offset - o->offset[o->rank];
}

static void place_tensors(struct optim *o) {
    for (int i = o->lo; i < o->hi; i++) {
        const struct param *t = &o->params->list[i];
        bool muon = uses_muon(o->config, t);
        o->whole[i - o->lo] = (struct op_squares_part){own_at(o, i), t->elems};
        o->v_at[i - o->lo] = muon ? -1 : o->v_elems;
        if (muon) continue;
        o->part[o->parts++] = (struct op_adamw_part){
            .at = own_at(o, i),
            .v = o->v_elems,
            .n = t->elems,
            .weight_decay = t->group == PARAM_MATRIX ? (float)o->config->optim_weight_decay : 0};
        o->v_elems += (t->elems + 15) / 16 * 16;
    }
}

static int take_state(struct optim *o, const float *weights, struct err *e) {
    int64_t segment = o->offset[o->rank + 1] - o->offset[o->rank];
    struct sizes s = sizes_of(o->config, o->params, segment, o->lo, o->hi, &o->batches);
    size_t bytes = (size_t)(s.m + s.v + s.average + s.work) * sizeof(float);
    if (bytes == 0) return 0;
    void *block = NULL;
    int rc = o->device->vtable->alloc(o->device, &block, bytes, e);
    if (rc) return rc;
    o->state = o->work = block;
    o->m = o->work + s.work;
    o->v = o->m + s.m;
    o->average = s.average ? o->v + s.v : NULL;
    o->work_elems = s.work;
    rc = o->device->vtable->zero(o->device, block, bytes, e);
    if (rc || !o->average) return rc;
    struct op_ema_args start = {.average = tensor_1d(o->average, segment),
                                .w = tensor_1d((void *)(weights + o->offset[o->rank]), segment)};
    return o->device->ops->ema(o->device, &start, e);
}

int optim_create(struct optim **out, const struct config *c, const struct params *p, struct device *d,
                 int size, int rank, const float *weights, struct err *e) {
    struct optim *o = calloc(1, sizeof *o);
    if (!o) return err_set(e, ERR_MEMORY, "no memory for an optimiser");
    *o = (struct optim){.config = c, .params = p, .device = d, .size = size, .rank = rank};
    int rc = 0;
    o->offset = calloc((size_t)size + 1, sizeof *o->offset);
    o->v_at = calloc((size_t)p->n, sizeof *o->v_at);
    o->part = calloc((size_t)p->n, sizeof *o->part);
    o->whole = calloc((size_t)p->n, sizeof *o->whole);
    if (!o->offset || !o->v_at || !o->part || !o->whole) {
        rc = err_set(e, ERR_MEMORY, "no memory for the optimiser's tables");
        goto out;
    }
    optim_split(c, p, size, o->offset);
    own_range(p, o->offset, rank, &o->lo, &o->hi);
    place_tensors(o);
    if (batches_init(&o->batches, c, p, o->offset[rank], o->lo, o->hi, d)) {
        rc = err_set(e, ERR_MEMORY, "no memory for the optimiser's tables");
        goto out;
    }
    rc = take_state(o, weights, e);
out:
    if (rc)
        optim_destroy(o);
    else
        *out = o;
    return rc;
}

void optim_destroy(struct optim *o) {
    if (!o) return;
    if (o->state) o->device->vtable->release(o->device, o->state);
    free(o->offset);
    free(o->v_at);
    free(o->part);
    free(o->whole);
    batches_fini(&o->batches);
    free(o);
}

const int64_t *optim_offsets(const struct optim *o) {
    return o->offset;
}

void optim_owned(const struct optim *o, int *lo, int *hi) {
    *lo = o->lo;
    *hi = o->hi;
}

int optim_squares(struct optim *o, const float *grads, double *squares, int64_t *nonfinite, struct err *e) {
    struct op_sum_squares_args a = {.x =
                                        tensor_1d((void *)grads, o->offset[o->rank + 1] - o->offset[o->rank]),
                                    .part = o->whole,
                                    .parts = o->hi - o->lo,
                                    .sum = squares,
                                    .nonfinite = nonfinite};
    return o->device->ops->sum_squares(o->device, &a, e);
}

bool optim_clips(const struct optim *o, int i) {
    return !uses_muon(o->config, &o->params->list[i]);
}

struct op_rounding optim_rounding(const struct config *c) {
    return (struct op_rounding){.stochastic = c->optim_stochastic_rounding,
                                .key = rng_key((uint64_t)c->run_seed, RNG_ROUNDING, 0)};
}

struct op_update optim_numbers(const struct config *c, double rate, int64_t step) {
    // Early on the average follows faster, so that the starting weights are soon forgotten.
    double decay = fmin(c->optim_ema, (double)step / (double)(step + 9));
    return op_update((float)rate, (float)c->optim_beta1, (float)c->optim_beta2, (float)decay, step);
}

// What an update works on: pointers to this rank's segment.
struct update {
    float *weights;
    uint16_t *low; // or NULL
    const float *grads;
    const struct op_update *now;
};

static struct tensor low_of(const struct update *u, int64_t n) {
    struct tensor low = tensor_1d(u->low, n);
    low.dtype = DTYPE_BF16;
    return low;
}

static int update_muon(struct optim *o, const struct update *u, struct err *e) {
    const struct config *c = o->config;
    int64_t n = o->offset[o->rank + 1] - o->offset[o->rank];
    struct op_muon_args a = {.w = tensor_1d(u->weights, n),
                             .g = tensor_1d((void *)u->grads, n),
                             .m = tensor_1d(o->m, n),
                             .average = tensor_1d(o->average, n),
                             .low = low_of(u, n),
                             .work = tensor_1d(o->work, o->work_elems),
                             .momentum = (float)c->optim_momentum,
                             .weight_decay = (float)c->optim_weight_decay,
                             .rounding = optim_rounding(c),
                             .first = o->offset[o->rank],
                             .now = u->now};
    int rc = 0;
    for (int i = 0; !rc && i < o->batches.n; i++) {
        const struct batch *b = &o->batches.list[i];
        a.rows = b->rows, a.cols = b->cols, a.at = b->at, a.count = b->count;
        rc = o->device->ops->muon(o->device, &a, e);
    }
    return rc;
}

static int update_adamw(struct optim *o, const struct update *u, struct err *e) {
    const struct config *c = o->config;
    int64_t n = o->offset[o->rank + 1] - o->offset[o->rank];
    if (o->parts == 0) return 0;
    struct op_adamw_args a = {.w = tensor_1d(u->weights, n),
                              .g = tensor_1d((void *)u->grads, n),
                              .m = tensor_1d(o->m, n),
                              .v = tensor_1d(o->v, o->v_elems),
                              .average = tensor_1d(o->average, n),
                              .low = low_of(u, n),
                              .part = o->part,
                              .parts = o->parts,
                              .beta1 = (float)c->optim_beta1,
                              .beta2 = (float)c->optim_beta2,
                              .eps = (float)c->optim_eps,
                              .rounding = optim_rounding(c),
                              .first = o->offset[o->rank],
                              .now = u->now};
    return o->device->ops->adamw(o->device, &a, e);
}

int optim_update(struct optim *o, float *weights, void *low, const float *grads, const struct op_update *now,
                 struct err *e) {
    int64_t first = o->offset[o->rank];
    struct update u = {
        .weights = weights + first, .low = low ? (uint16_t *)low + first : NULL, .grads = grads, .now = now};
    int rc = update_adamw(o, &u, e);
    return rc ? rc : update_muon(o, &u, e);
}

float *optim_state_of(struct optim *o, int i, enum optim_state which) {
    if (i < o->lo || i >= o->hi) return NULL;
    switch (which) {
    case OPTIM_M: return o->m + own_at(o, i);
    case OPTIM_V: return o->v_at[i - o->lo] < 0 ? NULL : o->v + o->v_at[i - o->lo];
    case OPTIM_AVERAGE: return o->average ? o->average + own_at(o, i) : NULL;
    default: return NULL;
    }
}

const char *optim_state_name(enum optim_state which) {
    static const char *const names[OPTIM_STATES] = {
        [OPTIM_M] = "optim.m", [OPTIM_V] = "optim.v", [OPTIM_AVERAGE] = "ema"};
    return names[which];
}
