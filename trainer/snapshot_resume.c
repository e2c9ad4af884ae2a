// SPDX-License-Identifier: Apache-2.0
// Finding and loading the newest complete checkpoint, written by any number of ranks.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/snapshot_impl.h"

// ---- does the config allow it

struct differences {
    const struct log *log; // NULL: not this rank's business
    bool force;
    bool hopeless; // some of them do not pass with force either
    char refused[512];
};

// The place of the data is not its content, though it is a key of the data.
static bool is_refused(const char *key, enum config_change change, bool force) {
    return change == CHANGE_MODEL || (change == CHANGE_DATA && !force && strcmp(key, "data.train"));
}

static void difference(void *arg, const char *key, const char *was, const char *now,
                       enum config_change change) {
    struct differences *d = arg;
    size_t used = strlen(d->refused);
    d->hopeless = d->hopeless || change == CHANGE_MODEL;
    if (is_refused(key, change, d->force))
        snprintf(d->refused + used, sizeof d->refused - used, "%s%s (saved %s, now %s)", used ? ", " : "",
                 key, was, now);
    else if (d->log && change != CHANGE_FREE)
        log_info(d->log, "%s was %s when the checkpoint was saved and is %s now", key, was, now);
}

static int compare_configs(const struct snapshot *s, const char *id, const struct ckpt_state *state,
                           struct err *e) {
    struct config_file *saved = NULL;
    struct differences d = {.log = rank_is_root(s->rank) ? &s->rank->log : NULL, .force = s->rank->force};
    char what[64];
    snprintf(what, sizeof what, "config of checkpoint %s", id);
    int rc = config_parse(&saved, what, state->config_yaml, strlen(state->config_yaml), e);
    if (rc) return rc;
    config_diff(config_values(saved), s->rank->config, difference, &d);
    config_close(saved);
    if (!d.refused[0]) return 0;
    return err_set(
        e, ERR_CONFIG,
        "checkpoint %s in %s does not fit the config: %s; put these back, %sor start anew in another "
        "run.dir",
        id, s->rank->ckpt_url, d.refused, d.hopeless ? "" : "go on all the same with --force, ");
}

// ---- reading

static bool has_tensor(const struct ckpt *c, const char *name) {
    size_t lo = 0, hi = ckpt_tensors(c);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        struct ckpt_tensor t;
        ckpt_tensor_at(c, mid, &t);
        int order = strcmp(t.name, name);
        if (order == 0) return true;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

// Muon's momentum is no mean of gradients: what one optimiser saved of a tensor means nothing to the other.
// AdamW's is known by the second moment beside it.
static bool is_of_other_optimiser(const struct snapshot *s, const struct ckpt *c, int i) {
    char name[CKPT_NAME_MAX + 1];
    snprintf(name, sizeof name, "%s.%s", optim_state_name(OPTIM_V), s->params->list[i].name);
    return has_tensor(c, name) != (optim_state_of(s->optim, i, OPTIM_V) != NULL);
}

// Moments start anew, averages at the weights, where the checkpoint has none that fit.
static int load_state(struct snapshot *s, struct ckpt *c, int i, enum optim_state which, struct err *e) {
    const struct param *p = &s->params->list[i];
    struct device *d = s->rank->device;
    float *to = optim_state_of(s->optim, i, which);
    char name[CKPT_NAME_MAX + 1];
    snprintf(name, sizeof name, "%s.%s", optim_state_name(which), p->name);
    if (!to) return 0;
    if (which == OPTIM_M && is_of_other_optimiser(s, c, i)) return 0;
    if (!has_tensor(c, name)) {
        if (which != OPTIM_AVERAGE) return 0;
        snprintf(name, sizeof name, "%s", p->name);
    }
    struct ckpt_tensor want = {.name = name, .rank = p->rank};
    for (int k = 0; k < p->rank; k++) want.shape[k] = want.extent[k] = p->shape[k];
    float *host = malloc((size_t)p->elems * sizeof *host);
    if (!host) return err_set(e, ERR_MEMORY, "no memory to read %s", name);
    int rc = ckpt_read(c, &want, host, e);
    if (!rc) rc = d->vtable->copy_in(d, to, host, (size_t)p->elems * sizeof(float), e);
    free(host);
    return rc;
}

static int load_optimiser(struct snapshot *s, struct ckpt *c, struct err *e) {
    int lo, hi, rc = 0;
    optim_owned(s->optim, &lo, &hi);
    for (int i = lo; !rc && i < hi; i++)
        for (int w = 0; !rc && w < OPTIM_STATES; w++) rc = load_state(s, c, i, (enum optim_state)w, e);
    return rc;
}

static int load(struct snapshot *s, const struct ckpt_entry *entry, struct ckpt_state *state, struct err *e) {
    struct ckpt *c = NULL;
    int rc = ckpt_open(&c, s->store, entry->id, e);
    if (rc) return rc;
    ckpt_tell(c, rank_touch, s->rank);
    *state = *ckpt_state_of(c);
    rc = compare_configs(s, entry->id, state, e);
    if (!rc) rc = snapshot_memory_use(s, c, e);
    if (!rc) rc = model_load(s->model, c, false, e);
    struct op_rounding how = optim_rounding(s->rank->config);
    if (!rc && how.stochastic) rc = model_round(s->model, &how, state->step, NULL, 0, s->params->elems, e);
    if (!rc) rc = load_optimiser(s, c, e);
    ckpt_close(c);
    if (!rc) s->newest = state->step;
    return rc;
}

// Rank 0 looks, so that all ranks take the same one; a broken manifest is passed over with a word.
static int choose(struct snapshot *s, int64_t most, struct ckpt_entry *pick, bool *found, struct err *e) {
    struct ckpt_entry *list = NULL;
    size_t n = 0;
    int rc = ckpt_list(s->store, &list, &n, e);
    *found = false;
    for (size_t i = 0; !rc && i < n && !*found; i++) {
        if (list[i].step > most) continue;
        if (list[i].broken) {
            log_warn(&s->rank->log, "checkpoint %s: its manifest is broken; taking the one before",
                     list[i].id);
            continue;
        }
        *pick = list[i];
        *found = true;
    }
    free(list);
    return rc;
}

int snapshot_resume_at(struct snapshot *s, int64_t most, bool *found, struct ckpt_state *state,
                       struct err *e) {
    struct choice {
        struct ckpt_entry entry;
        bool found, failed;
    } pick = {0};
    int rc = rank_is_root(s->rank) ? choose(s, most, &pick.entry, &pick.found, e) : 0;
    pick.failed = rc != 0;
    struct coll_op *op = NULL;
    int sent = coll_broadcast(s->rank->coll, &op, "newest checkpoint", &pick, sizeof pick, 0, e);
    if (!sent) sent = coll_wait(s->rank->coll, op, e);
    if (rc || sent) return rc ? rc : sent;
    if (pick.failed) return err_set(e, ERR_PEER, "rank 0 could not list the checkpoints");
    *found = pick.found;
    return pick.found ? load(s, &pick.entry, state, e) : 0;
}

int snapshot_resume(struct snapshot *s, bool *found, struct ckpt_state *state, struct err *e) {
    return snapshot_resume_at(s, INT64_MAX, found, state, e);
}
