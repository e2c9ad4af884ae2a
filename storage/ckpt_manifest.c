// SPDX-License-Identifier: Apache-2.0
#include "storage/ckpt_manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/ckpt_cut.h"

#define BOX_PAIRS_MAX                                                                                        \
    ((int64_t)1 << 27) // comparisons for one tensor: bounds the time that a hostile manifest takes

void ckpt_manifest_init(struct ckpt_manifest *m) {
    memset(m, 0, sizeof *m);
}

void ckpt_manifest_fini(struct ckpt_manifest *m) {
    for (size_t i = 0; i < m->n_boxes; i++) {
        free(m->boxes[i].name);
        free(m->boxes[i].crcs);
        free(m->boxes[i].ends);
    }
    free(m->boxes);
    free(m->files);
    free(m->tensors);
    ckpt_manifest_init(m);
}

// ---- names and sizes

bool ckpt_volume(const int64_t *extent, int rank, int64_t *out) {
    int64_t v = 1;
    for (int i = 0; i < rank; i++)
        if (extent[i] < 1 || __builtin_mul_overflow(v, extent[i], &v)) return false;
    if (v > INT64_MAX / 16) return false; // room for sums of bytes
    *out = v;
    return true;
}

int64_t ckpt_chunk_bytes(int64_t box_bytes) {
    int64_t chunk = CKPT_CHUNK_MIN;
    while (chunk < CKPT_CHUNK_MAX && (box_bytes + chunk - 1) / chunk > CKPT_CHUNKS_MAX) chunk *= 2;
    return chunk;
}

void ckpt_box_label(const struct ckpt_box *b, char out[CKPT_LABEL_BYTES]) {
    bool whole = true;
    int n = snprintf(out, CKPT_LABEL_BYTES, "%s", b->name);
    for (int i = 0; i < b->rank; i++) whole = whole && b->extent[i] == b->shape[i];
    for (int i = 0; !whole && i < b->rank; i++)
        n += snprintf(out + n, CKPT_LABEL_BYTES - (size_t)n, "%c%" PRId64 ":%" PRId64, i ? ',' : '[',
                      b->offset[i], b->offset[i] + b->extent[i]);
    if (!whole) snprintf(out + n, CKPT_LABEL_BYTES - (size_t)n, "]");
}

bool ckpt_parse_id(const char *id, int64_t *step, char out_id[CKPT_ID_BYTES]) {
    char digits[24];
    size_t n = strspn(id, "0123456789"), rest = strlen(id);
    out_id[0] = 0;
    if (!n || n > 18 || rest >= CKPT_ID_BYTES) return false;
    memcpy(digits, id, n);
    digits[n] = 0;
    if (!bytes_parse_i64(digits, step)) return false;
    if (!id[n]) return true;
    if (n != 12 || id[n] != '-' || rest < n + 5 || strspn(id + n + 1, "0123456789abcdef") != rest - n - 1)
        return false;
    memcpy(out_id, id, rest + 1);
    return true;
}

void ckpt_manifest_key(int64_t step, char out[CKPT_KEY_BYTES]) {
    snprintf(out, CKPT_KEY_BYTES, "manifest-%012" PRId64 ".json", step);
}

// ---- building

static int grow(void **items, size_t *cap, size_t n, size_t item_bytes, struct err *e) {
    if (n < *cap) return 0;
    size_t want = *cap ? *cap * 2 : 16, bytes;
    void *grown = bytes_mul(want, item_bytes, &bytes) ? realloc(*items, bytes) : NULL;
    if (!grown) return err_set(e, ERR_MEMORY, "no memory for a manifest of %zu entries", want);
    *items = grown;
    *cap = want;
    return 0;
}

int ckpt_manifest_add_file(struct ckpt_manifest *m, const struct ckpt_file *file, struct err *e) {
    int rc = grow((void **)&m->files, &m->cap_files, m->n_files, sizeof *m->files, e);
    if (!rc) m->files[m->n_files++] = *file;
    return rc;
}

int ckpt_manifest_add_box(struct ckpt_manifest *m, const struct ckpt_box *b, struct err *e) {
    int64_t bytes;
    if (__builtin_add_overflow(m->bytes, b->bytes, &bytes))
        return err_set(e, ERR_DATA, "tensor '%s': the sizes of the tensors overflow", b->name);
    int rc = grow((void **)&m->boxes, &m->cap_boxes, m->n_boxes, sizeof *m->boxes, e);
    if (rc) return rc;
    struct ckpt_box *copy = &m->boxes[m->n_boxes];
    *copy = *b;
    copy->name = strdup(b->name);
    copy->n_crcs = ckpt_cut_chunks(b, NULL);
    copy->crcs = calloc(copy->n_crcs, sizeof *copy->crcs);
    copy->ends = calloc(copy->n_crcs, sizeof *copy->ends);
    if (!copy->name || !copy->crcs || !copy->ends) {
        free(copy->name);
        free(copy->crcs);
        free(copy->ends);
        return err_set(e, ERR_MEMORY, "no memory for a manifest");
    }
    (void)ckpt_cut_chunks(b, copy->ends);
    if (b->crcs) memcpy(copy->crcs, b->crcs, copy->n_crcs * sizeof *copy->crcs);
    m->n_boxes++;
    m->bytes = bytes;
    return 0;
}

// ---- sealing

static int by_name_and_place(const void *a, const void *b) {
    const struct ckpt_box *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    for (int i = 0; !order && i < CKPT_DIMS; i++)
        order = (x->offset[i] > y->offset[i]) - (x->offset[i] < y->offset[i]);
    return order;
}

static bool overlap(const struct ckpt_box *a, const struct ckpt_box *b) {
    for (int i = 0; i < a->rank; i++)
        if (a->offset[i] >= b->offset[i] + b->extent[i] || b->offset[i] >= a->offset[i] + a->extent[i])
            return false;
    return true;
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

// The dimension along which the boxes start at the most places: sweeping along it compares the fewest pairs.
static int sweep_dim(const struct ckpt_box *b, size_t n, int64_t *scratch) {
    int best = 0;
    size_t most = 0;
    for (int d = 0; d < b->rank; d++) {
        size_t places = 1;
        for (size_t i = 0; i < n; i++) scratch[i] = b[i].offset[d];
        qsort(scratch, n, sizeof *scratch, by_number);
        for (size_t i = 1; i < n; i++) places += scratch[i] != scratch[i - 1];
        if (places > most) {
            most = places;
            best = d;
        }
    }
    return best;
}

struct ordered {
    int64_t at;
    const struct ckpt_box *box;
};

static int by_at(const void *a, const void *b) {
    return by_number(&((const struct ordered *)a)->at, &((const struct ordered *)b)->at);
}

static int check_disjoint(const struct ckpt_box *b, size_t n, const char *what, struct err *e) {
    struct ordered *order = calloc(n, sizeof *order);
    int64_t *scratch = calloc(n, sizeof *scratch), pairs = 0;
    int rc = order && scratch ? 0 : err_set(e, ERR_MEMORY, "no memory to check %zu boxes", n);
    int d = rc ? 0 : sweep_dim(b, n, scratch);
    for (size_t i = 0; i < n && !rc; i++) order[i] = (struct ordered){b->rank ? b[i].offset[d] : 0, &b[i]};
    if (!rc) qsort(order, n, sizeof *order, by_at);
    for (size_t i = 0; i < n && !rc; i++) {
        const struct ckpt_box *one = order[i].box;
        for (size_t k = i + 1; k < n && !rc; k++) {
            if (one->rank && order[k].at >= one->offset[d] + one->extent[d]) break;
            if (++pairs > BOX_PAIRS_MAX || overlap(one, order[k].box))
                rc =
                    err_set(e, ERR_DATA, "%s: tensor '%s': two of its %zu boxes overlap", what, one->name, n);
        }
    }
    free(order);
    free(scratch);
    return rc;
}

static int check_tensor(const struct ckpt_box *b, size_t n, const char *what, struct err *e) {
    int64_t whole, part, sum = 0;
    if (!ckpt_volume(b->shape, b->rank, &whole))
        return err_set(e, ERR_DATA, "%s: tensor '%s': bad shape", what, b->name);
    for (size_t i = 0; i < n; i++) {
        if (b[i].rank != b->rank || memcmp(b[i].shape, b->shape, sizeof b->shape))
            return err_set(e, ERR_DATA, "%s: tensor '%s': its boxes tell of different shapes", what, b->name);
        if (!ckpt_volume(b[i].extent, b->rank, &part) || part > whole - sum)
            return err_set(e, ERR_DATA, "%s: tensor '%s': its boxes hold more than its shape", what, b->name);
        sum += part;
    }
    if (sum != whole)
        return err_set(e, ERR_DATA, "%s: tensor '%s': its boxes hold %" PRId64 " of %" PRId64 " elements",
                       what, b->name, sum, whole);
    return n > 1 ? check_disjoint(b, n, what, e) : 0;
}

static int check_files(const struct ckpt_manifest *m, const char *what, struct err *e) {
    int64_t *filled = calloc(m->n_files + 1, sizeof *filled);
    int rc = filled ? 0 : err_set(e, ERR_MEMORY, "no memory to check a manifest");
    for (size_t i = 0; i < m->n_boxes && !rc; i++) {
        const struct ckpt_box *b = &m->boxes[i];
        int64_t room = m->files[b->file].bytes - m->files[b->file].data_begin;
        if (b->begin > room || b->bytes > room - b->begin || b->bytes > room - filled[b->file])
            rc = err_set(e, ERR_DATA, "%s: tensor '%s' lies outside of file %s", what, b->name,
                         m->files[b->file].name);
        filled[b->file] += b->bytes;
    }
    for (size_t f = 0; f < m->n_files && !rc; f++)
        if (filled[f] != m->files[f].bytes - m->files[f].data_begin)
            rc = err_set(e, ERR_DATA, "%s: the tensors of file %s hold %" PRId64 " bytes of its %" PRId64,
                         what, m->files[f].name, filled[f], m->files[f].bytes - m->files[f].data_begin);
    free(filled);
    return rc;
}

int ckpt_manifest_seal(struct ckpt_manifest *m, const char *what, struct err *e) {
    int rc = check_files(m, what, e);
    if (rc) return rc;
    if (m->n_boxes) qsort(m->boxes, m->n_boxes, sizeof *m->boxes, by_name_and_place);
    m->tensors = calloc(m->n_boxes + 1, sizeof *m->tensors);
    if (!m->tensors) return err_set(e, ERR_MEMORY, "no memory for %zu tensors", m->n_boxes);
    for (size_t i = 0; i < m->n_boxes; i++) {
        struct ckpt_group *last = m->n_tensors ? &m->tensors[m->n_tensors - 1] : NULL;
        if (last && !strcmp(m->boxes[last->first].name, m->boxes[i].name))
            last->n++;
        else
            m->tensors[m->n_tensors++] = (struct ckpt_group){i, 1};
    }
    for (size_t t = 0; t < m->n_tensors && !rc; t++)
        rc = check_tensor(&m->boxes[m->tensors[t].first], m->tensors[t].n, what, e);
    return rc;
}

const struct ckpt_group *ckpt_manifest_find(const struct ckpt_manifest *m, const char *name) {
    size_t lo = 0, hi = m->n_tensors;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(m->boxes[m->tensors[mid].first].name, name);
        if (!order) return &m->tensors[mid];
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}
