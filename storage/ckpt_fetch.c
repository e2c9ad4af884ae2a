// SPDX-License-Identifier: Apache-2.0
// Reading boxes: which chunks of which files are needed, many ranged GETs under way at once, every chunk
// checked against its CRC32C, and the wanted runs of elements copied out.
#include "storage/ckpt_fetch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/ckpt_cut.h"
#include "storage/hash.h"

#define PIECE_BYTES ((int64_t)8 << 20) // of one GET, unless one chunk is larger
#define UNDER_WAY   16

// ---- runs: the stretches of memory that a box and a wanted box share

struct dims {
    int64_t n[CKPT_DIMS];                    // elements shared
    int64_t from[CKPT_DIMS], to[CKPT_DIMS];  // first shared element, in the box and in the wanted box
    int64_t box[CKPT_DIMS], want[CKPT_DIMS]; // extents
};

// False when they share nothing. Dimensions are padded in front with ones.
static bool intersect(const struct ckpt_box *b, const struct ckpt_tensor *w, struct dims *d) {
    int pad = CKPT_DIMS - b->rank;
    memset(d, 0, sizeof *d);
    for (int i = 0; i < pad; i++) {
        d->n[i] = d->box[i] = d->want[i] = 1;
        d->from[i] = d->to[i] = 0;
    }
    for (int i = 0; i < b->rank; i++) {
        int64_t lo = b->offset[i] > w->offset[i] ? b->offset[i] : w->offset[i];
        int64_t box_end = b->offset[i] + b->extent[i], want_end = w->offset[i] + w->extent[i];
        int64_t hi = box_end < want_end ? box_end : want_end;
        if (lo >= hi) return false;
        d->n[pad + i] = hi - lo;
        d->from[pad + i] = lo - b->offset[i];
        d->to[pad + i] = lo - w->offset[i];
        d->box[pad + i] = b->extent[i];
        d->want[pad + i] = w->extent[i];
    }
    return true;
}

// Joins the last dimension to the one before while it is whole on both sides: longer runs, fewer of them.
static void join_whole(struct dims *d) {
    const int last = CKPT_DIMS - 1;
    for (int turn = 0; turn < last; turn++) {
        if (d->n[last] != d->box[last] || d->n[last] != d->want[last]) return;
        int64_t k = d->n[last];
        for (int i = last; i > 0; i--) {
            d->n[i] = d->n[i - 1];
            d->from[i] = d->from[i - 1];
            d->to[i] = d->to[i - 1];
            d->box[i] = d->box[i - 1];
            d->want[i] = d->want[i - 1];
        }
        d->n[last] *= k;
        d->from[last] *= k;
        d->to[last] *= k;
        d->box[last] *= k;
        d->want[last] *= k;
        d->n[0] = d->box[0] = d->want[0] = 1;
        d->from[0] = d->to[0] = 0;
    }
}

static int64_t place(const int64_t *extent, const int64_t *first, int64_t i, int64_t j, int64_t k) {
    int64_t at = first[0] + i;
    at = at * extent[1] + first[1] + j;
    at = at * extent[2] + first[2] + k;
    return 4 * (at * extent[3] + first[3]);
}

// Calls each(arg, byte in the box, byte in the wanted box, bytes) in the order of the box.
typedef void run_fn(void *arg, int64_t from, int64_t to, int64_t bytes);
static void each_run(const struct dims *d, run_fn *each, void *arg) {
    for (int64_t i = 0; i < d->n[0]; i++)
        for (int64_t j = 0; j < d->n[1]; j++)
            for (int64_t k = 0; k < d->n[2]; k++)
                each(arg, place(d->box, d->from, i, j, k), place(d->want, d->to, i, j, k), 4 * d->n[3]);
}

// ---- spans: ranges of boxes, whole chunks; pieces: spans that lie side by side in a file, for one GET

struct span {
    const struct ckpt_box *box;
    struct dims dims;
    char *into;     // NULL: verify only
    int64_t lo, hi; // of the box
    const char *data;
};

struct piece {
    size_t first, n; // spans
    int64_t lo, hi;  // of the file's data
    char *data;
    struct store *store; // that it is read from
    struct store_request *request;
};

struct plan {
    struct span *spans;
    size_t n, cap;
    struct piece *pieces;
    size_t n_pieces;
};

static int add_span(struct plan *p, const struct span *span, struct err *e) {
    if (p->n == p->cap) {
        size_t want = p->cap ? 2 * p->cap : 64;
        struct span *grown = realloc(p->spans, want * sizeof *grown);
        if (!grown) return err_set(e, ERR_MEMORY, "no memory to plan %zu reads", want);
        p->spans = grown;
        p->cap = want;
    }
    p->spans[p->n++] = *span;
    return 0;
}

struct marking {
    unsigned char *needed;
    const struct ckpt_box *box;
};

static void mark_run(void *arg, int64_t from, int64_t to, int64_t bytes) {
    struct marking *m = arg;
    (void)to;
    for (size_t c = ckpt_cut_chunk_at(m->box, from); c < m->box->n_crcs; c++) {
        m->needed[c] = 1;
        if (m->box->ends[c] >= from + bytes) return;
    }
}

static int64_t chunk_begin(const struct ckpt_box *b, size_t chunk) {
    return chunk ? b->ends[chunk - 1] : 0;
}

// Neighbouring chunks that are needed go into one span.
static int plan_chunks(struct plan *p, const struct ckpt_box *b, const struct dims *d,
                       const unsigned char *needed, char *into, struct err *e) {
    for (size_t c = 0; c < b->n_crcs;) {
        size_t end = c;
        int64_t lo = chunk_begin(b, c);
        while (end < b->n_crcs && needed[end] && (end == c || b->ends[end] - lo <= PIECE_BYTES)) end++;
        if (end == c) {
            c++;
            continue;
        }
        struct span span = {.box = b, .dims = *d, .into = into, .lo = lo, .hi = b->ends[end - 1]};
        int rc = add_span(p, &span, e);
        if (rc) return rc;
        c = end;
    }
    return 0;
}

static int plan_box(struct plan *p, const struct ckpt_box *b, const struct ckpt_tensor *want, char *into,
                    struct err *e) {
    struct dims d;
    if (!intersect(b, want, &d)) return 0;
    join_whole(&d);
    struct marking m = {calloc(b->n_crcs, 1), b};
    if (!m.needed) return err_set(e, ERR_MEMORY, "no memory to plan a read");
    each_run(&d, mark_run, &m);
    int rc = plan_chunks(p, b, &d, m.needed, into, e);
    free(m.needed);
    return rc;
}

static int by_place(const void *a, const void *b) {
    const struct span *x = a, *y = b;
    if (x->box->file != y->box->file) return x->box->file < y->box->file ? -1 : 1;
    int64_t p = x->box->begin + x->lo, q = y->box->begin + y->lo;
    return (p > q) - (p < q);
}

static int plan_pieces(struct plan *p, struct err *e) {
    p->pieces = calloc(p->n + 1, sizeof *p->pieces);
    if (!p->pieces) return err_set(e, ERR_MEMORY, "no memory to plan %zu reads", p->n);
    if (p->n) qsort(p->spans, p->n, sizeof *p->spans, by_place);
    for (size_t i = 0; i < p->n; i++) {
        const struct span *s = &p->spans[i];
        int64_t lo = s->box->begin + s->lo, hi = s->box->begin + s->hi;
        struct piece *last = p->n_pieces ? &p->pieces[p->n_pieces - 1] : NULL;
        if (last && s->box->file == p->spans[last->first].box->file && lo == last->hi &&
            hi - last->lo <= PIECE_BYTES) {
            last->hi = hi;
            last->n++;
        } else {
            p->pieces[p->n_pieces++] = (struct piece){.first = i, .n = 1, .lo = lo, .hi = hi};
        }
    }
    return 0;
}

// ---- fetching

static void copy_run(void *arg, int64_t from, int64_t to, int64_t bytes) {
    const struct span *p = arg;
    int64_t lo = from > p->lo ? from : p->lo, hi = from + bytes < p->hi ? from + bytes : p->hi;
    if (lo < hi) memcpy(p->into + to + (lo - from), p->data + (lo - p->lo), (size_t)(hi - lo));
}

struct fetch {
    const struct ckpt_sources *from;
    struct store *store;
    const struct ckpt_manifest *m;
    struct plan plan;
};

static const struct ckpt_file *file_of(const struct fetch *f, const struct piece *p) {
    return &f->m->files[f->plan.spans[p->first].box->file];
}

static int start(const struct fetch *f, struct piece *p, struct err *e) {
    const struct ckpt_file *file = file_of(f, p);
    size_t bytes = (size_t)(p->hi - p->lo);
    char key[CKPT_KEY_BYTES];
    p->data = malloc(bytes + sizeof key); // the key lives as long as the request
    if (!p->data) return err_set(e, ERR_MEMORY, "no memory for %zu bytes of a checkpoint", bytes);
    char *kept = p->data + bytes;
    snprintf(kept, sizeof key, "%s/%s", f->m->id, file->name);
    struct store_call call = {.op = STORE_GET,
                              .key = kept,
                              .offset = file->data_begin + p->lo,
                              .length = (int64_t)bytes,
                              .into = p->data,
                              .capacity = bytes};
    const struct ckpt_sources *from = f->from;
    p->store = from->nearby && from->has[f->plan.spans[p->first].box->file] ? from->nearby : f->store;
    return store_start(p->store, &p->request, &call, e);
}

static int check(const struct fetch *f, const struct span *s, struct err *e) {
    const struct ckpt_box *b = s->box;
    const struct ckpt_file *file = &f->m->files[b->file];
    int64_t at = s->lo;
    for (size_t c = ckpt_cut_chunk_at(b, s->lo); at < s->hi; at = b->ends[c++]) {
        uint32_t crc = hash_crc32c(0, s->data + (at - s->lo), (size_t)(b->ends[c] - at));
        int64_t first = file->data_begin + b->begin;
        if (crc != b->crcs[c])
            return err_set(e, ERR_DATA,
                           "%s/%s/%s: tensor '%s', bytes %" PRId64 " .. %" PRId64
                           " of the file: CRC32C is %08" PRIx32 ", the manifest says %08" PRIx32,
                           store_url(f->store), f->m->id, file->name, b->name, first + at, first + b->ends[c],
                           crc, b->crcs[c]);
    }
    return 0;
}

static int use_span(const struct fetch *f, const struct piece *p, struct span *s, struct err *e) {
    s->data = p->data + (s->box->begin + s->lo - p->lo);
    int rc = check(f, s, e);
    if (!rc && s->into) each_run(&s->dims, copy_run, s);
    return rc;
}

static int use_piece(const struct fetch *f, const struct piece *p, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < p->n && !rc; i++) rc = use_span(f, p, &f->plan.spans[p->first + i], e);
    return rc;
}

static int read_again(const struct fetch *f, struct piece *p, struct err *e) {
    size_t bytes = (size_t)(p->hi - p->lo);
    int rc = -ERR_DATA;
    for (int reads = 1; rc == -ERR_DATA && reads < STORE_READS_MAX; reads++) {
        err_clear(e);
        rc = store_get_range(f->store, p->data + bytes, file_of(f, p)->data_begin + p->lo, bytes, p->data, e);
        if (!rc) rc = use_piece(f, p, e);
    }
    return rc;
}

static int check_length(const struct fetch *f, const struct piece *p, size_t got, struct err *e) {
    if ((int64_t)got == p->hi - p->lo) return 0;
    return err_set(e, ERR_DATA, "%s/%s/%s: ends before tensor '%s' does", store_url(f->store), f->m->id,
                   file_of(f, p)->name, f->plan.spans[p->first].box->name);
}

// Waits for a piece that was started, whatever has failed before: its request writes into its memory.
static int finish(const struct fetch *f, struct piece *p, bool use, struct err *e) {
    struct store_result got;
    int rc = 0;
    if (p->request) {
        struct err late = {ERR_OK};
        rc = store_wait(p->store, p->request, &got, use ? e : &late);
        p->request = NULL;
        bool nearby = p->store != f->store;
        if (!rc && use) rc = check_length(f, p, got.bytes, e);
        bool whole = !rc;
        if (!rc && use) rc = use_piece(f, p, e);
        if (rc && use && (nearby || (whole && rc == -ERR_DATA))) rc = read_again(f, p, e);
    }
    free(p->data);
    p->data = NULL;
    return rc;
}

static int run(const struct fetch *f, struct err *e) {
    size_t started = 0, done = 0, n = f->plan.n_pieces;
    int rc = 0;
    while (done < n) {
        while (!rc && started < n && started - done < UNDER_WAY) rc = start(f, &f->plan.pieces[started++], e);
        if (done == started) break;
        int one = finish(f, &f->plan.pieces[done++], !rc, e);
        if (!rc) rc = one;
        if (f->from->heard) f->from->heard(f->from->arg);
    }
    return rc;
}

int ckpt_fetch_flaw(const struct ckpt_manifest *m, int rc, struct err *e) {
    if (rc != -ERR_DATA && rc != -ERR_MISSING) return rc;
    struct err why = *e;
    err_clear(e);
    return err_set(e, ERR_DATA,
                   "checkpoint %s %s ('orrery ckpt remove RUN --step %" PRId64
                   "' makes the run go on from the one before): %s",
                   m->id, rc == -ERR_DATA ? "is damaged" : "lacks a file that its manifest names",
                   m->state.step, why.text);
}

int ckpt_fetch(const struct ckpt_sources *from, const struct ckpt_manifest *m,
               const struct ckpt_tensor *wants, void *const *into, size_t n, int64_t *fetched,
               struct err *e) {
    struct fetch f = {.from = from, .store = from->store, .m = m};
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const struct ckpt_group *g = ckpt_manifest_find(m, wants[i].name);
        for (size_t b = 0; g && b < g->n && !rc; b++)
            rc = plan_box(&f.plan, &m->boxes[g->first + b], &wants[i], into ? into[i] : NULL, e);
    }
    if (!rc) rc = plan_pieces(&f.plan, e);
    if (!rc) rc = run(&f, e);
    for (size_t i = 0; i < f.plan.n_pieces; i++) *fetched += f.plan.pieces[i].hi - f.plan.pieces[i].lo;
    free(f.plan.spans);
    free(f.plan.pieces);
    return ckpt_fetch_flaw(m, rc, e);
}
