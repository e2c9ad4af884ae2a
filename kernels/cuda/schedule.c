// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/schedule.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(struct err *e) {
    return err_set(e, ERR_MEMORY, "attention: no memory for the schedule of a mask");
}

// Where the number of runs that see a column changes.
struct edge {
    int32_t at, change;
};

static int by_position(const void *a, const void *b) {
    const struct edge *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static int push_range(struct schedule *s, struct schedule_tile *t, struct schedule_range r, struct err *e) {
    if (r.lo >= r.hi) return 0;
    if (t->count > 0 && s->range[s->n_ranges - 1].hi == r.lo &&
        s->range[s->n_ranges - 1].partly == r.partly) {
        s->range[s->n_ranges - 1].hi = r.hi;
    } else {
        if (s->n_ranges == s->capacity) {
            int32_t capacity = s->capacity * 2 + 64;
            struct schedule_range *more = realloc(s->range, (size_t)capacity * sizeof *more);
            if (more == NULL) return no_memory(e);
            s->range = more;
            s->capacity = capacity;
        }
        s->range[s->n_ranges++] = r;
        t->count++;
    }
    t->steps += r.hi - r.lo;
    return 0;
}

// The columns [lo, hi), seen by all rows of the tile or by some: their tiles go to the list. `next` is the
// first column tile that is not on it yet.
static int push_columns(struct schedule *s, struct schedule_tile *t, int32_t lo, int32_t hi, bool all,
                        int64_t columns, int32_t *next, struct err *e) {
    int32_t n = s->col_tile, first = lo / n, last = (hi - 1) / n + 1;
    int32_t whole_lo = (lo + n - 1) / n, whole_hi = hi / n;
    if (!all || whole_lo >= whole_hi) whole_lo = whole_hi = first > *next ? first : *next;
    if (first < *next) first = *next;
    if (whole_lo < first) whole_lo = first;
    if (whole_hi < whole_lo) whole_hi = whole_lo;
    int rc = push_range(s, t, (struct schedule_range){first, whole_lo, 1}, e);
    if (rc == 0) rc = push_range(s, t, (struct schedule_range){whole_lo, whole_hi, 0}, e);
    if (rc == 0) rc = push_range(s, t, (struct schedule_range){whole_hi, last, 1}, e);
    *next = last > *next ? last : *next;
    return rc;
}

// The edges of the runs from `run` on that touch rows below `end`; returns how many runs.
static int32_t collect_edges(const struct mask *m, int32_t run, int64_t end, struct edge *edge, int64_t *n) {
    int32_t runs = 0;
    *n = 0;
    for (int32_t r = run; r < m->n_runs && m->runs[r].q_lo < end; r++, runs++) {
        for (int32_t i = 0; i < m->runs[r].count; i++) {
            struct mask_interval v = m->intervals[m->runs[r].first + i];
            if (edge != NULL) {
                edge[*n] = (struct edge){v.lo, 1};
                edge[*n + 1] = (struct edge){v.hi, -1};
            }
            *n += 2;
        }
    }
    return runs;
}

static int build_tile(struct schedule *s, const struct mask *m, int32_t run, int64_t row, struct err *e) {
    struct schedule_tile *t = &s->tile[row / s->row_tile];
    int64_t end = row + s->row_tile, n;
    int32_t runs = collect_edges(m, run, end, NULL, &n), depth = 0, next = 0;
    struct edge *edge = malloc(((size_t)n + 1) * sizeof *edge);
    if (edge == NULL) return no_memory(e);
    collect_edges(m, run, end, edge, &n);
    if (runs > 1) qsort(edge, (size_t)n, sizeof *edge, by_position);
    int rc = 0;
    t->first = s->n_ranges;
    for (int64_t i = 0; i < n && rc == 0;) {
        int32_t from = edge[i].at;
        while (i < n && edge[i].at == from) depth += edge[i++].change;
        if (depth == 0) continue;
        bool all = depth == runs && end <= m->queries;
        // Columns of like kind may be cut by an edge where one interval ends and another begins.
        while (i < n) {
            int32_t change = 0;
            int64_t j = i;
            while (j < n && edge[j].at == edge[i].at) change += edge[j++].change;
            if (change != 0) break;
            i = j;
        }
        rc = push_columns(s, t, from, edge[i].at, all, m->keys, &next, e);
    }
    free(edge);
    return rc;
}

// Counting sort: most steps first.
static int sort_tiles(struct schedule *s, struct err *e) {
    int32_t most = 0;
    for (int32_t i = 0; i < s->n_tiles; i++) most = s->tile[i].steps > most ? s->tile[i].steps : most;
    int32_t *start = calloc((size_t)most + 2, sizeof *start);
    if (start == NULL) return no_memory(e);
    for (int32_t i = 0; i < s->n_tiles; i++) start[most - s->tile[i].steps + 1]++;
    for (int32_t k = 1; k <= most; k++) start[k] += start[k - 1];
    for (int32_t i = 0; i < s->n_tiles; i++) s->order[start[most - s->tile[i].steps]++] = i;
    free(start);
    return 0;
}

int schedule_build(struct schedule *out, const struct mask *m, int32_t row_tile, int32_t col_tile,
                   struct err *e) {
    *out = (struct schedule){.row_tile = row_tile, .col_tile = col_tile};
    out->n_tiles = (int32_t)((m->queries + row_tile - 1) / row_tile);
    out->tile = calloc((size_t)out->n_tiles + 1, sizeof *out->tile);
    out->order = calloc((size_t)out->n_tiles + 1, sizeof *out->order);
    int rc = out->tile == NULL || out->order == NULL ? no_memory(e) : 0;
    int32_t run = 0;
    for (int64_t row = 0; row < m->queries && rc == 0; row += row_tile) {
        while (m->runs[run].q_hi <= row) run++;
        rc = build_tile(out, m, run, row, e);
    }
    if (rc == 0) rc = sort_tiles(out, e);
    if (rc != 0) schedule_fini(out);
    return rc;
}

void schedule_fini(struct schedule *s) {
    free(s->tile);
    free(s->range);
    free(s->order);
    *s = (struct schedule){0};
}

int64_t schedule_work(const struct schedule *s) {
    int64_t halves = 0;
    for (int32_t i = 0; i < s->n_ranges; i++)
        halves += (int64_t)(s->range[i].hi - s->range[i].lo) * (s->range[i].partly ? 3 : 2);
    return halves;
}

void schedule_rows(const struct mask *m, struct schedule_row *row) {
    for (int32_t r = 0; r < m->n_runs; r++) {
        for (int32_t q = m->runs[r].q_lo; q < m->runs[r].q_hi; q++)
            row[q] = (struct schedule_row){m->runs[r].first, m->runs[r].first + m->runs[r].count};
    }
}

// ---- transposition: a sweep over the keys. What a key sees is kept as the sorted list of queries at which
// seen and unseen change; an interval of a run that begins or ends at this key flips the run's two ends.

struct sweep {
    int32_t *flips;
    int64_t n, capacity;
};

static int flip(struct sweep *s, int32_t at, struct err *e) {
    int64_t lo = 0, hi = s->n;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (s->flips[mid] < at) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    if (lo < s->n && s->flips[lo] == at) {
        memmove(s->flips + lo, s->flips + lo + 1, (size_t)(s->n - lo - 1) * sizeof *s->flips);
        s->n--;
        return 0;
    }
    if (s->n == s->capacity) {
        int32_t *more = realloc(s->flips, (size_t)(s->capacity * 2 + 64) * sizeof *more);
        if (more == NULL) return no_memory(e);
        s->flips = more;
        s->capacity = s->capacity * 2 + 64;
    }
    memmove(s->flips + lo + 1, s->flips + lo, (size_t)(s->n - lo) * sizeof *s->flips);
    s->flips[lo] = at;
    s->n++;
    return 0;
}

// Appends the run of keys [lo, hi) with what the sweep holds; grows the intervals.
static int push_run(struct mask *out, int64_t *capacity, int32_t lo, int32_t hi, const struct sweep *s,
                    struct err *e) {
    int64_t n = s->n / 2;
    if (out->n_intervals + n > *capacity) {
        int64_t most = (out->n_intervals + n) * 2;
        struct mask_interval *more =
            most > INT32_MAX ? NULL : realloc(out->intervals, (size_t)most * sizeof *more);
        if (more == NULL) return no_memory(e);
        out->intervals = more;
        *capacity = most;
    }
    out->runs[out->n_runs++] = (struct mask_run){lo, hi, out->n_intervals, (int32_t)n};
    for (int64_t i = 0; i < n; i++)
        out->intervals[out->n_intervals++] = (struct mask_interval){s->flips[2 * i], s->flips[2 * i + 1]};
    return 0;
}

// Edges of all runs in the order of keys; `change` holds the run.
static struct edge *edges_by_key(const struct mask *m, int64_t *n) {
    size_t seen = 0; // more than there are intervals, where runs share them
    for (int32_t r = 0; r < m->n_runs; r++) seen += (size_t)m->runs[r].count;
    struct edge *edge = malloc((2 * seen + 1) * sizeof *edge);
    *n = 0;
    for (int32_t r = 0; edge != NULL && r < m->n_runs; r++) {
        for (int32_t i = 0; i < m->runs[r].count; i++) {
            struct mask_interval v = m->intervals[m->runs[r].first + i];
            edge[(*n)++] = (struct edge){v.lo, r};
            edge[(*n)++] = (struct edge){v.hi, r};
        }
    }
    if (edge != NULL) qsort(edge, (size_t)*n, sizeof *edge, by_position);
    return edge;
}

int mask_transpose(struct mask *out, const struct mask *m, struct err *e) {
    *out = (struct mask){.queries = m->keys, .keys = m->queries};
    int64_t n = 0, capacity = 0;
    struct sweep s = {0};
    struct edge *edge = edges_by_key(m, &n);
    out->runs = calloc((size_t)n + 2, sizeof *out->runs);
    out->intervals = calloc(1, sizeof *out->intervals);
    int rc = edge == NULL || out->runs == NULL || out->intervals == NULL ? no_memory(e) : 0;
    int32_t key = 0;
    for (int64_t i = 0; i <= n && rc == 0;) {
        int32_t at = i < n ? edge[i].at : (int32_t)m->keys;
        if (at > key) rc = push_run(out, &capacity, key, at, &s, e);
        key = at;
        if (i == n) break;
        for (; i < n && edge[i].at == at && rc == 0; i++) {
            rc = flip(&s, m->runs[edge[i].change].q_lo, e);
            if (rc == 0) rc = flip(&s, m->runs[edge[i].change].q_hi, e);
        }
    }
    free(edge);
    free(s.flips);
    if (rc != 0) mask_fini(out);
    return rc;
}

static size_t place(size_t *end, size_t bytes) {
    size_t at = *end;
    *end = (at + bytes + 15) / 16 * 16;
    return at;
}

struct schedule_layout schedule_place(size_t *end, const struct schedule *s, const struct mask *m) {
    struct schedule_layout l;
    l.tile = place(end, (size_t)s->n_tiles * sizeof *s->tile);
    l.range = place(end, (size_t)s->n_ranges * sizeof *s->range);
    l.order = place(end, (size_t)s->n_tiles * sizeof *s->order);
    l.row = place(end, (size_t)m->queries * sizeof(struct schedule_row));
    l.interval = place(end, (size_t)m->n_intervals * sizeof *m->intervals);
    return l;
}

size_t schedule_bytes(const struct schedule *s, const struct mask *m) {
    size_t end = 0;
    schedule_place(&end, s, m);
    return end;
}

size_t schedule_views_bytes(int64_t sequences) {
    size_t end = 0;
    place(&end, (size_t)sequences * GPU_MASK_VIEW_BYTES);
    return end;
}

size_t schedule_room(size_t bytes) {
    size_t room = 4096;
    while (room < bytes) room *= 2;
    return room;
}
