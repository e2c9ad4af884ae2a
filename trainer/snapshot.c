// SPDX-License-Identifier: Apache-2.0
#include "trainer/snapshot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"
#include "trainer/snapshot_impl.h"

#define POLL_MS           2
#define RETAIN_WARN_EVERY 50 // saves

static int64_t copy_elems(const struct config *c, const struct params *p, int world, int rank) {
    int64_t *offset = calloc((size_t)world + 1, sizeof *offset);
    if (!offset) return -1;
    optim_split(c, p, world, offset);
    int64_t segment = offset[rank + 1] - offset[rank];
    free(offset);
    return segment * (c->optim_ema > 0 ? 4 : 3); // weights, both moments, average
}

int64_t snapshot_bytes(const struct config *c, const struct params *p, int world, int rank) {
    return copy_elems(c, p, world, rank) * (int64_t)sizeof(float);
}

// The number that marks this run's saves, kept in the run folder for all its attempts. A run without a folder
// to write to has a new one each time, and so leaves what a killed attempt did not finish to 'orrery ckpt
// clean'.
static void take_owner(struct snapshot *s) {
    char path[CONFIG_TEXT_BYTES + 16], text[16];
    struct err ignored = {ERR_OK};
    struct buf file;
    buf_init(&file, 64);
    snprintf(path, sizeof path, "%s/save-owner", s->rank->run_dir);
    if (!bytes_read_file(path, 64, &file, &ignored) && file.len == 9 &&
        strspn(file.data, "0123456789abcdef") == 8) {
        s->owner = (uint32_t)strtoul(file.data, NULL, 16);
    } else {
        err_clear(&ignored);
        s->owner = (uint32_t)rng_mix64((uint64_t)clock_utc_ns() ^ rng_mix64((uint64_t)getpid()));
        snprintf(text, sizeof text, "%08x\n", s->owner);
        if (bytes_write_file(path, text, 9, &ignored)) err_clear(&ignored);
    }
    buf_fini(&file);
}

static int take_copy(struct snapshot *s, struct err *e) {
    int lo, hi;
    optim_owned(s->optim, &lo, &hi);
    s->tensors_max = (size_t)(hi - lo) * (1 + OPTIM_STATES);
    s->copy_elems = copy_elems(s->rank->config, s->params, s->rank->world, s->rank->number);
    s->copy = malloc((size_t)(s->copy_elems + 1) * sizeof *s->copy);
    if (s->copy)
        memset(s->copy, 0, (size_t)(s->copy_elems + 1) * sizeof *s->copy); // no page faults in a step
    s->tensors = calloc(s->tensors_max + 1, sizeof *s->tensors);
    s->names = calloc(s->tensors_max + 1, sizeof *s->names);
    s->state = calloc(1, sizeof *s->state);
    if (s->copy && s->tensors && s->names && s->state) return 0;
    return err_set(e, ERR_MEMORY, "no memory for a copy of %lld numbers to save", (long long)s->copy_elems);
}

int snapshot_open(struct snapshot **out, struct rank *r, struct model *m, struct optim *o, struct fault *f,
                  struct err *e) {
    struct snapshot *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "no memory for a snapshot");
    *s = (struct snapshot){
        .rank = r, .model = m, .optim = o, .fault = f, .params = model_params(m), .newest = -1};
    buf_init(&s->part, SNAPSHOT_PART_MAX);
    int rc = store_open(&s->store, r->ckpt_url, &r->store, e);
    if (!rc) rc = take_copy(s, e);
    if (!rc && rank_is_root(r)) take_owner(s);
    if (!rc) snapshot_memory_open(s);
    if (rc)
        snapshot_close(s);
    else
        *out = s;
    return rc;
}

void snapshot_close(struct snapshot *s) {
    if (!s) return;
    if (s->running) pthread_join(s->thread, NULL);
    store_close(s->memory);
    store_close(s->store);
    buf_fini(&s->part);
    free(s->parts);
    free(s->copy);
    free(s->tensors);
    free(s->names);
    free(s->state);
    free(s);
}

int64_t snapshot_newest(const struct snapshot *s) {
    return s->newest;
}

// ---- the copy

static int copy_tensor(struct snapshot *s, const char *prefix, const struct param *p, const float *from,
                       int64_t *used, struct err *e) {
    struct device *d = s->rank->device;
    if (*used + p->elems > s->copy_elems || s->n_tensors >= s->tensors_max)
        return err_set(e, ERR_BUG, "the copy to save has no room for %s%s", prefix, p->name);
    char *name = s->names[s->n_tensors];
    snprintf(name, sizeof *s->names, "%s%s", prefix, p->name);
    struct ckpt_tensor *t = &s->tensors[s->n_tensors++];
    *t = (struct ckpt_tensor){.name = name, .rank = p->rank, .data = s->copy + *used};
    for (int k = 0; k < p->rank; k++) t->shape[k] = t->extent[k] = p->shape[k];
    int rc = d->vtable->copy_out(d, s->copy + *used, from, (size_t)p->elems * sizeof(float), e);
    *used += p->elems;
    return rc;
}

static int copy_all(struct snapshot *s, struct err *e) {
    int lo, hi, rc = 0;
    int64_t used = 0;
    s->n_tensors = 0;
    optim_owned(s->optim, &lo, &hi);
    for (int i = lo; !rc && i < hi; i++) {
        const struct param *p = &s->params->list[i];
        rc = copy_tensor(s, "", p, model_weights(s->model) + p->offset, &used, e);
        for (int w = 0; !rc && w < OPTIM_STATES; w++) {
            const float *state = optim_state_of(s->optim, i, (enum optim_state)w);
            char prefix[32];
            snprintf(prefix, sizeof prefix, "%s.", optim_state_name((enum optim_state)w));
            if (state) rc = copy_tensor(s, prefix, p, state, &used, e);
        }
    }
    return rc ? rc : s->rank->device->vtable->sync(s->rank->device, e);
}

// ---- the thread

// Weights that are no numbers can never be trained further, and would take the place of good ones.
static int check_weights(const struct snapshot *s, struct err *e) {
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct ckpt_tensor *t = &s->tensors[i];
        int64_t n = t->shape[0] * (t->rank > 1 ? t->shape[1] : 1);
        const float *w = t->data;
        bool sound = true;
        if (!params_find(s->params, t->name)) continue; // the optimiser's
        for (int64_t k = 0; k < n; k++) sound &= isfinite(w[k]) != 0;
        if (!sound)
            return err_set(e, ERR_DATA,
                           "checkpoint %s: not saved: %s holds a NaN or an infinite number; go on from the "
                           "checkpoint before, with a lower optim.lr",
                           s->id, t->name);
    }
    return 0;
}

static void *write_part(void *arg) {
    struct snapshot *s = arg;
    buf_clear(&s->part);
    s->thread_rc = check_weights(s, &s->thread_err);
    if (!s->thread_rc) snapshot_memory_write(s);
    if (s->full_disk)
        s->thread_rc = err_errno(&s->thread_err, ENOSPC, "checkpoint %s: cannot save (injected)", s->id);
    else if (!s->thread_rc)
        s->thread_rc = ckpt_write_part(s->store, s->id, s->rank->number, s->tensors, s->n_tensors, &s->part,
                                       &s->thread_err);
    atomic_store(&s->ended, true);
    return NULL;
}

static void *commit(void *arg) {
    struct snapshot *s = arg;
    size_t n = (size_t)s->rank->world;
    const char **parts = calloc(n, sizeof *parts);
    if (!parts) s->thread_rc = err_set(&s->thread_err, ERR_MEMORY, "no memory for %zu parts", n);
    for (size_t i = 0; parts && i < n; i++) parts[i] = s->parts + i * s->part_bytes;
    if (parts) s->thread_rc = ckpt_commit(s->store, s->id, s->state, parts, n, &s->thread_err);
    // What is saved is saved, whatever becomes of the old ones: an error there is told, and met again.
    if (!s->thread_rc && !ckpt_retain(s->store, s->rank->config->checkpoint_keep, s->owner, &s->retain_err))
        s->retain_failures = 0;
    free(parts);
    atomic_store(&s->ended, true);
    return NULL;
}

static int start_thread(struct snapshot *s, void *(*run)(void *), struct err *e) {
    atomic_store(&s->ended, false);
    s->thread_rc = 0;
    err_clear(&s->thread_err);
    int rc = pthread_create(&s->thread, NULL, run, s);
    if (rc) return err_errno(e, rc, "start a thread that saves");
    s->running = true;
    return 0;
}

static void tell_retained(struct snapshot *s) {
    struct err why = s->retain_err;
    err_clear(&s->retain_err);
    if (!why.code) return;
    blackbox_event(s->rank->box, "old checkpoints stay: %s", why.text);
    if (s->retain_failures++ % RETAIN_WARN_EVERY) return;
    log_warn(&s->rank->log, "checkpoints beyond checkpoint.keep stay, and take space: %s", why.text);
}

// Takes the thread's result over; it has ended or is about to.
static int join(struct snapshot *s, struct err *e) {
    if (!s->running) return 0;
    struct err flaw = {0};
    pthread_join(s->thread, NULL);
    s->running = false;
    if (store_sweep_flaw(s->store, &flaw)) log_warn(&s->rank->log, "%s", flaw.text);
    tell_retained(s);
    if (!s->thread_rc) return 0;
    return err_set_at(e, s->thread_err.code, s->thread_err.file, s->thread_err.line, "%s",
                      s->thread_err.text);
}

// ---- the protocol

int snapshot_begin(struct snapshot *s, const struct ckpt_state *state, struct err *e) {
    struct rank *r = s->rank;
    double began = clock_seconds();
    int rc = snapshot_finish(s, e);
    if (rc) return rc;
    blackbox_set_phase(r->box, PHASE_CHECKPOINT, NULL);
    s->full_disk = s->fault && fault_at(s->fault, state->step, PHASE_CHECKPOINT) == FAULT_ENOSPC;
    if (rank_is_root(r)) ckpt_new_id(s->id, state->step, s->owner);
    struct coll_op *op = NULL;
    rc = coll_broadcast(r->coll, &op, "checkpoint id", s->id, sizeof s->id, 0, e);
    if (!rc) rc = coll_wait(r->coll, op, e);
    if (rc) return rc;
    s->id[CKPT_ID_BYTES - 1] = 0;
    blackbox_set_phase(r->box, PHASE_CHECKPOINT, s->id);
    *s->state = *state;
    double copying = clock_seconds();
    rc = copy_all(s, e);
    s->copy_s = clock_seconds() - copying;
    if (!rc) rc = start_thread(s, write_part, e);
    s->stall_s = clock_seconds() - began;
    if (!rc) s->stage = STAGE_WRITING;
    return rc;
}

void snapshot_say(const struct snapshot *s, int64_t *votes) {
    bool ended = s->running && atomic_load(&((struct snapshot *)s)->ended);
    votes[VOTE_FAILED] = ended && s->thread_rc != 0;
    votes[VOTE_WRITTEN] = s->stage == STAGE_WRITING && ended && !s->thread_rc;
    votes[VOTE_COMMITTED] = s->stage == STAGE_COMMITTING && ended && !s->thread_rc;
}

// Every rank's JSON to rank 0, padded to the longest.
static int gather_parts(struct snapshot *s, struct err *e) {
    int64_t longest = (int64_t)s->part.len + 1;
    int rc = coll_max_i64(s->rank->coll, "checkpoint parts", &longest, 1, e);
    if (rc) return rc;
    free(s->parts);
    s->part_bytes = (size_t)longest;
    s->parts = calloc((size_t)s->rank->world, s->part_bytes);
    char *own = calloc(1, s->part_bytes);
    if (s->parts && own) {
        memcpy(own, s->part.data, s->part.len);
        rc = coll_gather_all(s->rank->coll, "checkpoint parts", own, s->part_bytes, s->parts, e);
    } else {
        rc = err_set(e, ERR_MEMORY, "no memory for the parts of a checkpoint");
    }
    free(own);
    return rc;
}

static int all_written(struct snapshot *s, struct err *e) {
    double began = clock_seconds();
    int rc = join(s, e);
    if (!rc) rc = gather_parts(s, e);
    s->stage = STAGE_COMMITTING;
    if (!rc && rank_is_root(s->rank)) rc = start_thread(s, commit, e);
    s->stall_s += clock_seconds() - began;
    return rc;
}

static int committed(struct snapshot *s, struct err *e) {
    int rc = join(s, e);
    if (rc) return rc;
    s->stage = STAGE_IDLE;
    s->newest = s->state->step;
    snapshot_memory_keep(s, s->id);
    blackbox_page(s->rank->box)->checkpoint_step = s->newest;
    blackbox_event(s->rank->box, "checkpoint %s complete", s->id);
    if (rank_is_root(s->rank))
        log_info(&s->rank->log,
                 "checkpoint %s complete; steps waited %.1f ms for the copy and %.1f ms besides", s->id,
                 s->copy_s * 1e3, (s->stall_s - s->copy_s) * 1e3);
    return 0;
}

int snapshot_hear(struct snapshot *s, const int64_t *votes, struct err *e) {
    if (votes[VOTE_FAILED] > 0) {
        int rc = s->running && atomic_load(&s->ended) ? join(s, e) : 0;
        return rc ? rc : err_set(e, ERR_PEER, "checkpoint %s: another rank could not save its part", s->id);
    }
    if (s->stage == STAGE_WRITING && votes[VOTE_WRITTEN] == s->rank->world) return all_written(s, e);
    if (s->stage == STAGE_COMMITTING && votes[VOTE_COMMITTED] > 0) return committed(s, e);
    return 0;
}

int snapshot_finish(struct snapshot *s, struct err *e) {
    int rc = 0;
    while (!rc && s->stage != STAGE_IDLE) {
        int64_t votes[STEP_VOTES] = {0};
        snapshot_say(s, votes);
        rc = coll_sum_i64(s->rank->coll, "checkpoint", votes, STEP_VOTES, e);
        if (!rc) rc = snapshot_hear(s, votes, e);
        if (!rc && s->running && !atomic_load(&s->ended)) clock_sleep_ms(POLL_MS);
    }
    return rc;
}
