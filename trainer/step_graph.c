// SPDX-License-Identifier: Apache-2.0
// Recorded steps. A step whose senses lack the same frames as an earlier one queues the very same work on
// other numbers: met for the first time it runs as it is, which takes memory and chooses algorithms; the
// second time it is recorded; from then on it is launched with one call a stretch.
//
// All ranks agree on which of their steps are alike, as NCCL wants a recorded operation to be recorded by all
// of them and launched together: the key is a sum over ranks, and the tables change alike everywhere.
#include <stdlib.h>

#include "trainer/step_impl.h"

int step_graph_open(struct step *s, struct err *e) {
    struct step_graphs *g = &s->graphs;
    struct device *d = s->rank->device;
    bool can = d->vtable->graphs != NULL;
    if (s->config->cuda_graph == CONFIG_cuda_graph_on && !can)
        return err_set(e, ERR_CONFIG, "cuda.graph=on, but the %s records nothing: set it to auto",
                       d->vtable->name);
    g->on = can && s->config->cuda_graph != CONFIG_cuda_graph_off;
    g->whole = s->rank->world == 1 || coll_is_queued(s->rank->coll);
    g->stretches = g->whole ? 1 : STRETCH_SHARD + (s->hi - s->lo);
    for (int i = 0; g->on && i < STEP_BUCKETS; i++) {
        g->bucket[i].graph = calloc((size_t)g->stretches, sizeof *g->bucket[i].graph);
        if (!g->bucket[i].graph) return err_set(e, ERR_MEMORY, "no memory for recorded steps");
    }
    return 0;
}

static void forget(struct step *s, struct step_bucket *b) {
    struct device *d = s->rank->device;
    for (int64_t i = 0; b->graph && i < s->graphs.stretches; i++) {
        d->vtable->graphs->release(d, b->graph[i]);
        b->graph[i] = NULL;
    }
    b->key = b->used = 0;
}

void step_graph_close(struct step *s) {
    for (int i = 0; i < STEP_BUCKETS; i++) {
        if (!s->graphs.bucket[i].graph) continue;
        forget(s, &s->graphs.bucket[i]);
        free(s->graphs.bucket[i].graph);
    }
}

// What the ranks add up: which frames this rank's sequences lack, and whether something that it recorded is
// gone.
void step_graph_say(const struct step *s, const struct batch *b, int64_t say[STEP_GRAPH_WORDS]) {
    const struct step_graphs *g = &s->graphs;
    uint64_t h = 14695981039346656037u ^ (uint64_t)s->rank->number;
    say[0] = say[1] = 0;
    if (!g->on) return;
    for (int i = 0; i < s->set->n; i++)
        for (int64_t f = 0; f < b->count * b->frames; f++) h = (h ^ b->valid[i][f]) * 1099511628211u;
    say[0] = (int64_t)(h >> 20); // no sum over ranks runs over
    say[1] = g->generation != s->rank->device->generation;
}

// The bucket of that key, or the one that was not used for longest, emptied.
static struct step_bucket *find(struct step *s, int64_t key) {
    struct step_bucket *old = &s->graphs.bucket[0];
    for (int i = 0; i < STEP_BUCKETS; i++) {
        struct step_bucket *b = &s->graphs.bucket[i];
        if (b->used && b->key == key) return b;
        if (b->used < old->used) old = b;
    }
    forget(s, old);
    old->key = key;
    return old;
}

void step_graph_hear(struct step *s, const int64_t said[STEP_GRAPH_WORDS]) {
    struct step_graphs *g = &s->graphs;
    g->now = NULL;
    if (!g->on) return;
    for (int i = 0; said[1] && i < STEP_BUCKETS; i++) forget(s, &g->bucket[i]);
    g->generation = s->rank->device->generation;
    struct step_bucket *b = find(s, said[0]);
    if (b->used) g->now = b;
    b->used = ++g->clock;
}

static int record(struct step *s, int64_t stretch, step_queue_fn *queue, void **graph, struct err *e) {
    struct device *d = s->rank->device;
    struct err ignored = {0};
    int rc = d->vtable->graphs->begin(d, e);
    if (rc) return rc;
    s->graphs.recording = true;
    coll_record(s->rank->coll, true);
    rc = queue(s, stretch, e);
    coll_record(s->rank->coll, false);
    s->graphs.recording = false;
    int ended = d->vtable->graphs->end(d, graph, rc ? &ignored : e);
    return rc ? rc : ended;
}

bool step_graph_in_pieces(const struct step *s) {
    return s->graphs.now && !s->graphs.whole;
}

bool step_graph_holds_shard(const struct step *s) {
    return step_graph_in_pieces(s) && !grads_in_backward(s->grads);
}

int step_graph_run(struct step *s, int64_t stretch, step_queue_fn *queue, struct err *e) {
    struct device *d = s->rank->device;
    struct step_bucket *b = s->graphs.now;
    if (!b || s->graphs.recording) return queue(s, stretch, e);
    int rc = b->graph[stretch] ? 0 : record(s, stretch, queue, &b->graph[stretch], e);
    return rc ? rc : d->vtable->graphs->launch(d, b->graph[stretch], e);
}
