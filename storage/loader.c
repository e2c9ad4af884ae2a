// SPDX-License-Identifier: Apache-2.0
// Keyed permutation of [0, n): a balanced Feistel network (Luby and Rackoff, 1988) on the smallest even
// number of bits that holds n, walked along its cycle until the value is below n (Black and Rogaway, "Ciphers
// with arbitrary finite domains", 2002). The domain is less than 4 n, so the walk takes under four turns on
// average.
#include "storage/loader.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"

#define ROUNDS 8

// Sub-streams of RNG_SHUFFLE.
enum { SUB_RING = 0, SUB_BLOCKS = 1, SUB_WINDOWS = 2, SUB_MIXTURE = 3 };

// Items of a mixture in which each data set has its share exactly.
#define MIXTURE_BLOCK 1024

// Successive episodes with the same number of frames.
struct run {
    int64_t episode, window; // number of its first episode, of its first window
    int64_t frames, windows; // of one episode
};

struct part;

struct loader_plan {
    uint64_t seed;
    int n_parts; // of a mixture; 0: one ring
    struct part *parts;
    int64_t window;    // frames
    int64_t items;     // windows in the ring
    int64_t per_block; // windows in a block
    size_t n, cap;
    struct run *runs;
};

// One data set of a mixture: its own ring, and its places in a block.
struct part {
    struct loader_plan *plan;
    int64_t base; // its first sample
    int64_t start, quota;
    double exact; // MIXTURE_BLOCK times its share
};

// ---- the ring

static int add_run(struct loader_plan *p, const struct run *run, struct err *e) {
    if (p->n == p->cap) {
        size_t want = p->cap ? 2 * p->cap : 16, bytes;
        struct run *grown = bytes_mul(want, sizeof *grown, &bytes) ? realloc(p->runs, bytes) : NULL;
        if (!grown) return err_set(e, ERR_MEMORY, "no memory for a loader plan of %zu runs", want);
        p->runs = grown;
        p->cap = want;
    }
    p->runs[p->n++] = *run;
    return 0;
}

static int add_episode(struct loader_plan *p, int64_t episode, int64_t frames, struct err *e) {
    struct run *last = p->n ? &p->runs[p->n - 1] : NULL;
    int64_t windows = (frames - p->window + 1) / p->window;
    if (windows < 1) windows = 1;
    bool next = last && last->episode + (p->items - last->window) / last->windows == episode;
    if (!next || last->frames != frames) {
        struct run fresh = {episode, p->items, frames, windows};
        int rc = add_run(p, &fresh, e);
        if (rc) return rc;
    }
    p->items += windows;
    return 0;
}

static int64_t block_size(const struct loader_plan *p, int64_t episodes, int64_t shuffle_block) {
    if (shuffle_block >= episodes) return p->items;
    double windows = (double)p->items / (double)episodes * (double)shuffle_block;
    int64_t n = (int64_t)(windows + 0.5);
    return n < 1 ? 1 : n > p->items ? p->items : n;
}

static int none_is_long_enough(const struct dataset *d, int64_t window, int64_t longest, struct err *e) {
    const char *url = d ? dataset_url(d) : "", *colon = d ? ": " : "";
    if (longest > 0)
        return err_set(e, ERR_DATA,
                       "%s%sno episode has the %" PRId64 " frames of a window, the longest has %" PRId64
                       "; lower data.frames",
                       url, colon, window, longest);
    return err_set(e, ERR_DATA,
                   "%s%sno sample tells how many frames it has; was the data set made by another program? "
                   "Describe it: orrery data index --schema",
                   url, colon);
}

static int64_t frames_of(const struct dataset *d, int64_t sample) {
    struct dataset_sample s;
    dataset_sample(d, sample, &s);
    return s.frames;
}

// Of samples [first, first + n) of d, or of n episodes with these frames.
static int create(struct loader_plan **out, const struct dataset *d, int64_t first, const int64_t *frames,
                  int64_t n, const struct loader_options *o, struct err *e) {
    *out = NULL;
    if (o->window < 1 || o->window > (int64_t)1 << 31 || o->shuffle_block < 1 || n < 1)
        return err_set(e, ERR_BUG,
                       "a loader plan of %" PRId64 " episodes, window %" PRId64 ", block %" PRId64, n,
                       o->window, o->shuffle_block);
    struct loader_plan *p = calloc(1, sizeof *p);
    if (!p) return err_set(e, ERR_MEMORY, "no memory for a loader plan");
    p->seed = o->seed;
    p->window = o->window;
    int64_t longest = 0, used = 0;
    int rc = 0;
    for (int64_t i = 0; i < n && !rc; i++) {
        int64_t has = frames ? frames[i] : frames_of(d, first + i);
        if (has > longest) longest = has;
        if (has < p->window) continue;
        used++;
        rc = add_episode(p, i, has, e);
    }
    if (!rc && !used) rc = none_is_long_enough(d, p->window, longest, e);
    if (rc) {
        loader_plan_destroy(p);
        return rc;
    }
    p->per_block = block_size(p, used, o->shuffle_block);
    *out = p;
    return 0;
}

// Whole places that add up to a block: each its exact share rounded down, the rest to the largest remainders.
static void share_out(struct loader_plan *p) {
    int64_t left = MIXTURE_BLOCK, at = 0;
    for (int i = 0; i < p->n_parts; i++) {
        p->parts[i].quota = (int64_t)p->parts[i].exact;
        left -= p->parts[i].quota;
    }
    for (; left > 0; left--) {
        struct part *most = &p->parts[0];
        for (int i = 1; i < p->n_parts; i++)
            if (p->parts[i].exact - (double)p->parts[i].quota > most->exact - (double)most->quota)
                most = &p->parts[i];
        most->quota++;
    }
    for (int i = 0; i < p->n_parts; i++) {
        p->parts[i].start = at;
        at += p->parts[i].quota;
    }
}

static int create_mixture(struct loader_plan *p, const struct dataset *d, double sum,
                          const struct loader_options *o, struct err *e) {
    int rc = 0;
    p->parts = calloc((size_t)dataset_sources(d), sizeof *p->parts);
    if (!p->parts) return err_set(e, ERR_MEMORY, "no memory for a mixture");
    for (; p->n_parts < dataset_sources(d) && !rc; p->n_parts++) {
        struct part *part = &p->parts[p->n_parts];
        struct loader_options own = *o;
        int64_t samples;
        double weight;
        own.seed = rng_mix64(o->seed + (uint64_t)p->n_parts + 1); // or equal data sets would go in step
        dataset_source(d, p->n_parts, &part->base, &samples, &weight);
        part->exact = weight / sum * MIXTURE_BLOCK;
        rc = create(&part->plan, d, part->base, NULL, samples, &own, e);
        if (!rc) p->items += part->plan->items;
    }
    if (!rc) share_out(p);
    for (int i = 0; i < p->n_parts && !rc; i++)
        if (!p->parts[i].quota)
            rc = err_set(e, ERR_CONFIG, "data set %d of the list has a weight of less than 1/%d of all",
                         i + 1, MIXTURE_BLOCK);
    return rc;
}

int loader_plan_create(struct loader_plan **out, const struct dataset *d,
                       const struct loader_options *options, struct err *e) {
    double sum = 0, weight;
    int64_t first, samples;
    for (int i = 0; i < dataset_sources(d); i++) {
        dataset_source(d, i, &first, &samples, &weight);
        sum += weight;
    }
    if (dataset_sources(d) == 1 || !(sum > 0)) return create(out, d, 0, NULL, dataset_samples(d), options, e);
    struct loader_plan *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return err_set(e, ERR_MEMORY, "no memory for a loader plan");
    p->seed = options->seed;
    int rc = create_mixture(p, d, sum, options, e);
    if (rc)
        loader_plan_destroy(p);
    else
        *out = p;
    return rc;
}

int loader_plan_create_frames(struct loader_plan **out, const int64_t *frames, int64_t n,
                              const struct loader_options *options, struct err *e) {
    return create(out, NULL, 0, frames, n, options, e);
}

void loader_plan_destroy(struct loader_plan *p) {
    if (!p) return;
    for (int i = 0; i < p->n_parts; i++) loader_plan_destroy(p->parts[i].plan);
    free(p->parts);
    free(p->runs);
    free(p);
}

int64_t loader_items_in_epoch(const struct loader_plan *p) {
    return p->items;
}

// ---- random numbers of an epoch

// Two words keyed by (seed, purpose, sub), epoch and `which`.
static struct rng_key draw(const struct loader_plan *p, enum rng_purpose purpose, uint32_t sub, int64_t epoch,
                           int64_t which) {
    uint32_t words[4];
    rng_block(rng_key(p->seed, purpose, sub), (uint32_t)epoch, (uint64_t)which,
              (uint32_t)((uint64_t)epoch >> 32), words);
    return (struct rng_key){words[0], words[1]};
}

// Below n; the bias is below n / 2^64.
static int64_t below(struct rng_key words, int64_t n) {
    uint64_t wide = (uint64_t)words.k1 << 32 | words.k0;
    return (int64_t)(wide % (uint64_t)n);
}

static uint64_t encipher(struct rng_key key, int half_bits, uint64_t x) {
    uint64_t mask = ((uint64_t)1 << half_bits) - 1, left = x >> half_bits, right = x & mask;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t words[4];
        rng_block(key, round, right, 0, words);
        uint64_t next = left ^ (((uint64_t)words[1] << 32 | words[0]) & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

static int64_t permute(struct rng_key key, int64_t n, int64_t i) {
    int half_bits = 1;
    while (((uint64_t)1 << (2 * half_bits)) < (uint64_t)n) half_bits++;
    uint64_t x = (uint64_t)i;
    do x = encipher(key, half_bits, x);
    while (x >= (uint64_t)n);
    return (int64_t)x;
}

// ---- items

// Place in the ring of item `i` of an epoch: its block, permuted; its place in the block, permuted; turned.
static int64_t place_of(const struct loader_plan *p, int64_t epoch, int64_t i) {
    int64_t whole = p->items / p->per_block, block = i / p->per_block, first = block * p->per_block;
    int64_t size = p->per_block, inside = i - first;
    if (block < whole) {
        block = permute(draw(p, RNG_SHUFFLE, SUB_BLOCKS, epoch, 0), whole, block);
        first = block * p->per_block;
    } else {
        size = p->items - first;
    }
    int64_t place = first + permute(draw(p, RNG_SHUFFLE, SUB_WINDOWS, epoch, block), size, inside);
    int64_t turn = below(draw(p, RNG_SHUFFLE, SUB_RING, epoch, 0), p->items);
    return place < p->items - turn ? place + turn : place - (p->items - turn);
}

static const struct run *run_of(const struct loader_plan *p, int64_t place) {
    size_t lo = 0, hi = p->n;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (p->runs[mid].window <= place)
            lo = mid;
        else
            hi = mid;
    }
    return &p->runs[lo];
}

// Block after block, each data set gives its next `quota` items, at places that a permutation draws.
static void mixture_item_at(const struct loader_plan *p, int64_t g, struct loader_item *out) {
    int64_t block = g / MIXTURE_BLOCK;
    int64_t place = permute(draw(p, RNG_SHUFFLE, SUB_MIXTURE, block, 0), MIXTURE_BLOCK, g % MIXTURE_BLOCK);
    const struct part *part = p->parts;
    while (place >= part->start + part->quota) part++;
    loader_item_at(part->plan, block * part->quota + place - part->start, out);
    out->sample += part->base;
}

void loader_item_at(const struct loader_plan *p, int64_t g, struct loader_item *out) {
    if (p->n_parts) {
        mixture_item_at(p, g, out);
        return;
    }
    int64_t epoch = g / p->items, place = place_of(p, epoch, g % p->items);
    const struct run *r = run_of(p, place);
    int64_t inside = place - r->window, episode = r->episode + inside / r->windows;
    int64_t slack = r->frames - r->windows * p->window;
    int64_t phase = below(draw(p, RNG_WINDOW, 0, epoch, episode), slack + 1);
    *out = (struct loader_item){
        .sample = episode, .first_frame = phase + inside % r->windows * p->window, .epoch = epoch};
}
