// SPDX-License-Identifier: Apache-2.0
#include "trainer/model_mask.h"

#include <stdlib.h>
#include <string.h>

static bool lacks(const struct modality_set *set, const unsigned char *const *valid, int64_t first,
                  int64_t frames) {
    for (int i = 0; i < set->n; i++)
        if (valid[i] && memchr(valid[i] + first, 0, (size_t)frames)) return true;
    return false;
}

static int reserve(struct model_masks *m, int64_t sequences, int64_t frames, int64_t segments,
                   struct err *e) {
    if (m->sequences == sequences && m->frames == frames && m->segments == segments) return 0;
    model_masks_fini(m);
    size_t n = (size_t)sequences, runs = n * (size_t)frames;
    m->own = calloc(n, sizeof *m->own);
    m->list = calloc(n, sizeof *m->list);
    m->runs = calloc(runs, sizeof *m->runs);
    m->intervals = calloc(runs * (size_t)segments, sizeof *m->intervals);
    if (!m->own || !m->list || !m->runs || !m->intervals)
        return err_set(e, ERR_MEMORY, "no memory for the masks of %lld sequences that lack a sense",
                       (long long)sequences);
    m->sequences = sequences;
    m->frames = frames;
    m->segments = segments;
    return 0;
}

// The frame's tokens of senses that are there, as intervals; the tokens of a sense are neighbours.
static int32_t add_frame(const struct modality_set *set, const unsigned char *const *valid, int64_t row,
                         int64_t frame, struct mask_interval *out) {
    int64_t at = frame * set->tokens_per_frame;
    int32_t n = 0;
    for (int i = 0; i < set->n; i++) {
        int32_t lo = (int32_t)at, hi = (int32_t)(at + set->spec[i].tokens);
        bool there = !valid[i] || valid[i][row];
        if (there && n > 0 && out[n - 1].hi == lo)
            out[n - 1].hi = hi;
        else if (there)
            out[n++] = (struct mask_interval){lo, hi};
        at = hi;
    }
    return n;
}

static int32_t oldest_seen(int64_t frame, int64_t window) {
    return window > 0 && frame + 1 > window ? (int32_t)(frame + 1 - window) : 0;
}

// The sequence's own mask, empty yet, with room for all of its frames.
static struct mask *begin_mask(struct model_masks *m, int64_t sequence, const struct mask *shared) {
    m->own[sequence] = (struct mask){.queries = shared->queries,
                                     .keys = shared->keys,
                                     .runs = m->runs + sequence * m->frames,
                                     .intervals = m->intervals + sequence * m->frames * m->segments};
    return &m->own[sequence];
}

// Frame by frame one list of intervals; what a frame sees is a stretch of it.
static void build(struct model_masks *m, const struct modality_set *set, const unsigned char *const *valid,
                  int64_t sequence, int64_t window, const struct mask *shared) {
    struct mask *own = begin_mask(m, sequence, shared);
    int32_t p = (int32_t)set->tokens_per_frame, end = 0;
    own->n_runs = (int32_t)m->frames;
    for (int32_t f = 0, first = 0; f < own->n_runs; f++) {
        int32_t before = end, oldest = oldest_seen(f, window);
        end += add_frame(set, valid, sequence * m->frames + f, f, own->intervals + end);
        while (first < before && own->intervals[first].lo < oldest * p) first++;
        own->runs[f] =
            (struct mask_run){.q_lo = f * p, .q_hi = (f + 1) * p, .first = first, .count = end - first};
    }
    own->n_intervals = end;
}

// Of frame `at` alone.
static void build_at(struct model_masks *m, const struct modality_set *set, const unsigned char *const *valid,
                     int64_t sequence, int64_t at, int64_t window, const struct mask *shared) {
    struct mask *own = begin_mask(m, sequence, shared);
    for (int64_t f = oldest_seen(at, window); f <= at; f++)
        own->n_intervals +=
            add_frame(set, valid, sequence * m->frames + f, f, own->intervals + own->n_intervals);
    own->n_runs = 1;
    own->runs[0] = (struct mask_run){.q_hi = (int32_t)own->queries, .count = own->n_intervals};
}

int model_masks_look(struct model_masks *m, const struct modality_set *set, const unsigned char *const *valid,
                     int64_t sequences, int64_t frames, int64_t window, const struct mask *shared,
                     struct err *e) {
    m->used = false;
    if (!lacks(set, valid, 0, sequences * frames)) return 0;
    int rc = reserve(m, sequences, frames, set->n, e);
    if (rc) return rc;
    m->used = true;
    for (int64_t b = 0; b < sequences; b++) {
        bool gaps = lacks(set, valid, b * frames, frames);
        if (gaps) build(m, set, valid, b, window, shared);
        m->list[b] = gaps ? &m->own[b] : shared;
    }
    return 0;
}

int model_masks_look_at(struct model_masks *m, const struct modality_set *set,
                        const unsigned char *const *valid, int64_t sequences, int64_t frames, int64_t at,
                        int64_t window, const struct mask *shared, struct err *e) {
    int64_t first = oldest_seen(at, window), seen = at + 1 - first;
    bool gaps = false;
    m->used = false;
    for (int64_t b = 0; b < sequences && !gaps; b++) gaps = lacks(set, valid, b * frames + first, seen);
    if (!gaps) return 0;
    int rc = reserve(m, sequences, frames, set->n, e);
    if (rc) return rc;
    m->used = true;
    for (int64_t b = 0; b < sequences; b++) {
        gaps = lacks(set, valid, b * frames + first, seen);
        if (gaps) build_at(m, set, valid, b, at, window, shared);
        m->list[b] = gaps ? &m->own[b] : shared;
    }
    return 0;
}

void model_masks_fini(struct model_masks *m) {
    free(m->own);
    free(m->list);
    free(m->runs);
    free(m->intervals);
    *m = (struct model_masks){.used = false};
}
