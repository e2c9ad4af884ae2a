// SPDX-License-Identifier: Apache-2.0
// Schedules of masks on the device, kept from call to call: made when a mask is met for the first time, and
// recognised by its content. What a recorded graph reads stays where it is as long as there is room; the
// others make place for each other, without a wait.
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/attention.cuh"

namespace {

enum { ENTRIES = 96 }; // 24 masks of four schedules each; more only while something is recorded

// What a schedule was made of: the masks' content, not their addresses.
struct cache_key {
    uint64_t content;
    int32_t sequences, row_tile, col_tile, turned;
};

struct cache_entry {
    struct cache_key key;
    struct attention_schedule s;
    unsigned char *block; // device
    size_t room;          // of it
    uint64_t used;
    bool recorded; // graphs read it
};

uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9fb21c651e98df25u;
    return h ^ h >> 32;
}

uint64_t mask_content(const struct mask *m) {
    uint64_t h = mix(mix(0x2545f4914f6cdd1du, (uint64_t)m->queries), (uint64_t)m->keys);
    for (int32_t r = 0; r < m->n_runs; r++)
        h = mix(mix(h, (uint64_t)m->runs[r].q_hi),
                (uint64_t)(uint32_t)m->runs[r].first << 32 | (uint32_t)m->runs[r].count);
    for (int32_t i = 0; i < m->n_intervals; i++)
        h = mix(h, (uint64_t)(uint32_t)m->intervals[i].lo << 32 | (uint32_t)m->intervals[i].hi);
    return h;
}

void put(unsigned char *block, size_t at, const void *from, size_t bytes) {
    if (bytes > 0) memcpy(block + at, from, bytes);
}

void fill(unsigned char *block, struct schedule_layout l, const struct schedule *s, const struct mask *m) {
    put(block, l.tile, s->tile, (size_t)s->n_tiles * sizeof *s->tile);
    put(block, l.range, s->range, (size_t)s->n_ranges * sizeof *s->range);
    put(block, l.order, s->order, (size_t)s->n_tiles * sizeof *s->order);
    put(block, l.interval, m->intervals, (size_t)m->n_intervals * sizeof *m->intervals);
    schedule_rows(m, (struct schedule_row *)(block + l.row));
}

struct mask_view view_of(unsigned char *device, struct schedule_layout l) {
    struct mask_view v = {(struct schedule_tile *)(device + l.tile),
                          (struct schedule_range *)(device + l.range), (int32_t *)(device + l.order),
                          (struct schedule_row *)(device + l.row),
                          (struct mask_interval *)(device + l.interval)};
    return v;
}

// One distinct mask of a call.
struct part {
    const struct mask *from;
    struct mask turned;
    struct schedule schedule;
    struct schedule_layout layout;
};

int part_build(struct part *p, const struct mask *m, const struct cache_key *key, size_t *end,
               struct err *e) {
    p->from = m;
    int rc = key->turned ? mask_transpose(&p->turned, m, e) : 0;
    const struct mask *rows = key->turned ? &p->turned : m;
    if (rc == 0) rc = schedule_build(&p->schedule, rows, key->row_tile, key->col_tile, e);
    if (rc == 0) p->layout = schedule_place(end, &p->schedule, rows);
    return rc;
}

// The parts of a call's masks and, of each sequence, which one is its.
struct parts {
    struct part *part;
    int *which, count;
    size_t bytes; // of the block
};

void parts_fini(struct parts *p) {
    for (int i = 0; i < p->count; i++) {
        schedule_fini(&p->part[i].schedule);
        mask_fini(&p->part[i].turned);
    }
    free(p->part);
    free(p->which);
}

int parts_build(struct parts *p, const struct cache_key *key, const struct mask *const *masks,
                struct err *e) {
    int n = key->sequences, rc = 0;
    static_assert(sizeof(struct mask_view) == GPU_MASK_VIEW_BYTES, "what plans count with");
    p->part = (struct part *)calloc((size_t)n, sizeof *p->part);
    p->which = (int *)calloc((size_t)n, sizeof *p->which);
    if (p->part == NULL || p->which == NULL)
        return err_set(e, ERR_MEMORY, "attention: no memory for schedules");
    p->bytes = schedule_views_bytes(n);
    for (int b = 0; b < n && rc == 0; b++) {
        int *at = &p->which[b];
        while (*at < p->count && p->part[*at].from != masks[b]) ++*at;
        if (*at == p->count) rc = part_build(&p->part[p->count++], masks[b], key, &p->bytes, e);
    }
    return rc;
}

// As it will lie at c->block.
void lay_out(const struct parts *p, struct cache_entry *c, unsigned char *host) {
    c->s = {(struct mask_view *)c->block, 0, 0, 0};
    for (int i = 0; i < p->count; i++)
        fill(host, p->part[i].layout, &p->part[i].schedule,
             c->key.turned ? &p->part[i].turned : p->part[i].from);
    for (int b = 0; b < c->key.sequences; b++) {
        const struct part *part = &p->part[p->which[b]];
        int32_t steps = part->schedule.n_tiles > 0 ? part->schedule.tile[part->schedule.order[0]].steps : 0;
        ((struct mask_view *)host)[b] = view_of(c->block, part->layout);
        c->s.tiles = part->schedule.n_tiles;
        c->s.steps = steps > c->s.steps ? steps : c->s.steps;
        c->s.work += schedule_work(&part->schedule);
    }
}

// Beside a recording, which would repeat the copy: through a queue of its own.
int upload_now(void *to, const void *from, size_t bytes, struct err *e) {
    cudaStream_t side = NULL;
    int rc = cuda_check(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking), "cudaStreamCreate", e);
    if (rc) return rc;
    rc = cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, side),
                    "attention: upload of a schedule", e);
    if (!rc) rc = cuda_check(cudaStreamSynchronize(side), "attention: upload of a schedule", e);
    (void)cudaStreamDestroy(side);
    return rc;
}

// Kernels in the queue may still read what the block held: the copy comes behind them.
int upload(struct cuda_device *d, const struct parts *p, struct cache_entry *c, struct err *e) {
    unsigned char *host = (unsigned char *)malloc(p->bytes);
    if (host == NULL) return err_set(e, ERR_MEMORY, "attention: no memory for schedules");
    lay_out(p, c, host);
    int rc = d->recording ? upload_now(c->block, host, p->bytes, e)
                          : cuda_upload(&d->base, c->block, host, p->bytes, e);
    free(host);
    return rc;
}

int make_room(struct cache_entry *c, size_t bytes, struct err *e) {
    if (bytes <= c->room) return 0;
    if (c->block != NULL) (void)cudaFree(c->block); // waits for the kernels that read it
    c->block = NULL;
    c->room = schedule_room(bytes);
    int rc = cuda_check(cudaMalloc((void **)&c->block, c->room), "attention: memory of a schedule", e);
    if (rc) c->room = 0;
    return rc;
}

// Which of two goes first. What the last call gave is still in its caller's hands.
bool goes_before(const struct cache_entry *a, const struct cache_entry *b, uint64_t last_call) {
    bool held[2] = {a->used == last_call, b->used == last_call};
    if (held[0] != held[1]) return held[1];
    return a->recorded != b->recorded ? !a->recorded : a->used < b->used;
}

} // namespace

struct attention_cache {
    struct cache_entry **entry; // each on its own: callers hold what is in it
    int count;
    uint64_t clock;
};

// An entry for something new, perhaps with an old one's block. Graphs that read it are to be forgotten.
static int take_entry(struct cuda_device *d, struct cache_entry **out, struct err *e) {
    struct attention_cache *c = d->attention;
    if (c->count < ENTRIES || d->recording) {
        size_t n = (size_t)c->count + 1;
        struct cache_entry **more = (struct cache_entry **)realloc(c->entry, n * sizeof *more);
        if (more) c->entry = more;
        struct cache_entry *fresh = (struct cache_entry *)calloc(1, sizeof *fresh);
        if (!more || !fresh) {
            free(fresh);
            return err_set(e, ERR_MEMORY, "attention: no memory for schedules");
        }
        *out = c->entry[c->count++] = fresh;
        return 0;
    }
    struct cache_entry *old = c->entry[0];
    for (int i = 1; i < c->count; i++)
        if (goes_before(c->entry[i], old, c->clock)) old = c->entry[i];
    if (old->recorded) {
        d->base.generation++;
        for (int i = 0; i < c->count; i++) c->entry[i]->recorded = false;
    }
    *out = old;
    return 0;
}

static int build(struct cuda_device *d, const struct cache_key *key, const struct mask *const *masks,
                 struct cache_entry **out, struct err *e) {
    struct parts p = {};
    int rc = parts_build(&p, key, masks, e);
    if (rc == 0) rc = take_entry(d, out, e);
    if (rc == 0) {
        struct cache_entry *c = *out;
        c->key = {}; // of nothing, until it is whole
        rc = make_room(c, p.bytes, e);
        if (rc == 0) {
            struct cache_entry whole = *c;
            whole.key = *key;
            rc = upload(d, &p, &whole, e);
            if (rc == 0) *c = whole;
        }
    }
    parts_fini(&p);
    return rc;
}

int attention_schedule(struct cuda_device *d, const struct mask *const *masks, int sequences,
                       struct attention_tiles tiles, const struct attention_schedule **out, struct err *e) {
    struct cache_key key = {0, sequences, tiles.rows, tiles.columns, tiles.turned};
    if (d->attention == NULL) d->attention = (struct attention_cache *)calloc(1, sizeof *d->attention);
    struct attention_cache *c = d->attention;
    struct cache_entry *found = NULL;
    if (c == NULL) return err_set(e, ERR_MEMORY, "attention: no memory");
    for (int b = 0; b < sequences; b++)
        key.content = mix(key.content, b > 0 && masks[b] == masks[b - 1] ? 1 : mask_content(masks[b]));
    for (int i = 0; i < c->count && found == NULL; i++)
        if (memcmp(&c->entry[i]->key, &key, sizeof key) == 0) found = c->entry[i];
    int rc = found ? 0 : build(d, &key, masks, &found, e);
    if (rc != 0) return rc;
    found->used = ++c->clock;
    found->recorded = found->recorded || d->recording;
    *out = &found->s;
    return 0;
}

void cuda_attention_close(struct device *device) {
    struct cuda_device *d = cuda_of(device);
    if (d == NULL || d->attention == NULL) return;
    for (int i = 0; i < d->attention->count; i++) {
        (void)cudaFree(d->attention->entry[i]->block);
        free(d->attention->entry[i]);
    }
    free(d->attention->entry);
    free(d->attention);
    d->attention = NULL;
}
