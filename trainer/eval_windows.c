// SPDX-License-Identifier: Apache-2.0
// The choice of evaluation's windows; see eval_source.h.
#include <stdlib.h>

#include "base/rng.h"
#include "trainer/eval_source.h"

#define WINDOW_STREAM 1 // of RNG_WINDOW: training's windows are stream 0

static int64_t usable(const struct eval_source *s, int64_t frames, int64_t *list) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->episodes; i++)
        if (s->frames(s->arg, i) >= frames) list[n++] = i;
    return n;
}

static void place_windows(struct eval_windows *w, const struct eval_source *s, const int64_t *list,
                          int64_t usable_n, uint64_t seed) {
    int64_t passes = (w->n + usable_n - 1) / usable_n;
    struct rng_key key = rng_key(seed, RNG_WINDOW, WINDOW_STREAM);
    for (int64_t i = 0; i < w->n; i++) {
        uint32_t bits[4];
        rng_block(key, 0, (uint64_t)i, 0, bits);
        // Fewer windows than episodes: spread over all of them. More: each pass has its own stretch of the
        // episode.
        int64_t pick = passes > 1 ? i % usable_n : (int64_t)((double)i * (double)usable_n / (double)w->n);
        int64_t room = s->frames(s->arg, list[pick]) - w->frames + 1;
        double at = ((double)(i / usable_n) + (double)rng_unit(bits[0])) / (double)passes;
        w->episode[i] = list[pick];
        w->first_frame[i] = (int64_t)(at * (double)room);
        if (w->first_frame[i] >= room) w->first_frame[i] = room - 1;
    }
}

int eval_windows_check(const struct eval_source *s, int64_t frames, struct err *e) {
    int64_t longest = 0;
    for (int64_t i = 0; i < s->episodes && longest < frames; i++) {
        int64_t has = s->frames(s->arg, i);
        if (has > longest) longest = has;
    }
    if (longest >= frames) return 0;
    return err_set(
        e, ERR_DATA,
        "no episode has the %lld frames that evaluation needs (eval.context + eval.horizon); the longest has "
        "%lld",
        (long long)frames, (long long)longest);
}

int eval_windows_init(struct eval_windows *w, const struct eval_source *s, int64_t n, int64_t frames,
                      uint64_t seed, struct err *e) {
    int rc = 0;
    *w = (struct eval_windows){.n = n, .frames = frames};
    int64_t *list = calloc((size_t)s->episodes + 1, sizeof *list);
    w->episode = calloc((size_t)n, sizeof *w->episode);
    w->first_frame = calloc((size_t)n, sizeof *w->first_frame);
    if (!list || !w->episode || !w->first_frame) {
        rc = err_set(e, ERR_MEMORY, "no memory for %lld windows", (long long)n);
        goto out;
    }
    int64_t found = usable(s, frames, list);
    if (found > 0)
        place_windows(w, s, list, found, seed);
    else
        rc = eval_windows_check(s, frames, e);
out:
    free(list);
    if (rc) eval_windows_fini(w);
    return rc;
}

int eval_windows_drop(struct eval_windows *w, const double *mark, struct eval_windows *dropped,
                      struct err *e) {
    int64_t left = 0;
    *dropped = (struct eval_windows){.frames = w->frames};
    dropped->episode = calloc((size_t)w->n + 1, sizeof *dropped->episode);
    dropped->first_frame = calloc((size_t)w->n + 1, sizeof *dropped->first_frame);
    if (!dropped->episode || !dropped->first_frame)
        return err_set(e, ERR_MEMORY, "no memory for %lld windows", (long long)w->n);
    for (int64_t i = 0; i < w->n; i++) {
        struct eval_windows *to = mark[i] != 0 ? dropped : w;
        int64_t at = mark[i] != 0 ? dropped->n++ : left++;
        to->episode[at] = w->episode[i];
        to->first_frame[at] = w->first_frame[i];
    }
    w->n = left;
    return 0;
}

void eval_windows_fini(struct eval_windows *w) {
    free(w->episode);
    free(w->first_frame);
    w->episode = w->first_frame = NULL;
}
