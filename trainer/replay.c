// SPDX-License-Identifier: Apache-2.0
// The task `replay`: from the newest checkpoint before step replay.step up to and through that step, with the
// very batches of the run, on any number of ranks. Saves nothing and changes nothing of the run; what it saw
// goes to RUN/replay/step-N.json.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "comm/grid.h"
#include "storage/hash.h"
#include "trainer/parts.h"
#include "trainer/task.h"

#define TEXT_MAX    ((size_t)64 << 20)
#define SAMPLES_MAX 4096 // told one by one

// The weights after the step beside those of the checkpoint of that step.
struct saved {
    char id[CKPT_ID_BYTES]; // empty: there is none
    int64_t differing;      // tensors
    char first[64];         // name of the first of them
};

struct replay {
    struct rank *rank;
    const struct config *config;
    struct parts parts;
    int64_t from, done;
    struct step_report report; // of the last step
    struct saved saved;
    char weights_sha256[65];
};

static int open_parts(struct replay *t, struct err *e) {
    struct rank *r = t->rank;
    int rc = grid_check_shards(t->config->comm_shards, r->world, e);
    if (!rc) rc = fault_init(&t->parts.fault, t->config->fault_inject, r->number, r->world, r->attempt, e);
    if (!rc) rc = data_open(&t->parts.data, t->config, t->config->data_train, e);
    return rc ? rc : parts_open(&t->parts, e);
}

static int load(struct replay *t, struct err *e) {
    struct ckpt_state *state = calloc(1, sizeof *state);
    if (!state) return err_set(e, ERR_MEMORY, "no memory for a checkpoint's state");
    bool found = false;
    int rc = snapshot_resume_at(t->parts.snapshot, t->config->replay_step - 1, &found, state, e);
    if (!rc && found) t->from = t->done = state->step;
    free(state);
    if (!rc && rank_is_root(t->rank))
        log_info(&t->rank->log, "step %lld again, from %s %lld", (long long)t->config->replay_step,
                 found ? "the checkpoint of step" : "the start: no checkpoint before it is left; step",
                 (long long)t->from);
    return rc;
}

// ---- steps

static int one_step(struct replay *t, struct err *e) {
    const struct batch *batch = NULL;
    int64_t votes[STEP_VOTES] = {0};
    blackbox_set_phase(t->rank->box, PHASE_DATA, NULL);
    int rc = data_next(t->parts.data, &batch, e);
    if (rc) return rc;
    if (batch->replaced)
        log_warn(&t->rank->log, "step %lld: %lld broken samples replaced: %s", (long long)t->done + 1,
                 (long long)batch->replaced, batch->why.text);
    t->report = (struct step_report){0};
    rc = step_run(t->parts.step, batch, t->done, votes, &t->report, e);
    t->done++;
    blackbox_page(t->rank->box)->loss = t->report.loss;
    blackbox_set_step(t->rank->box, t->done);
    return rc;
}

static int run_steps(struct replay *t, struct err *e) {
    int64_t first, count;
    step_range(t->config, t->rank->world, t->rank->number, t->done, &first, &count);
    int rc = data_prefetch(t->parts.data, first, count, t->config->train_batch, e);
    blackbox_page(t->rank->box)->total_steps = t->config->replay_step;
    while (!rc && t->done < t->config->replay_step) rc = one_step(t, e);
    return rc ? rc : step_settle(t->parts.step, e);
}

// ---- the weights: a digest, and beside the checkpoint of that step

static int open_same_step(const struct replay *t, struct store *s, struct ckpt **out, struct err *e) {
    struct ckpt_entry *list = NULL;
    size_t n = 0;
    int rc = ckpt_list(s, &list, &n, e);
    for (size_t i = 0; !rc && i < n && !*out; i++)
        if (list[i].step == t->done && !list[i].broken) rc = ckpt_open(out, s, list[i].id, e);
    free(list);
    return rc;
}

static int compare_tensor(struct replay *t, struct ckpt *c, const struct param *p, const float *mine,
                          struct err *e) {
    struct ckpt_tensor want = {.name = p->name, .rank = p->rank};
    for (int k = 0; k < p->rank; k++) want.shape[k] = want.extent[k] = p->shape[k];
    float *theirs = malloc((size_t)p->elems * sizeof *theirs);
    if (!theirs) return err_set(e, ERR_MEMORY, "no memory to compare %s", p->name);
    int rc = ckpt_read(c, &want, theirs, e);
    if (!rc && memcmp(mine, theirs, (size_t)p->elems * sizeof *theirs) != 0) {
        if (t->saved.differing++ == 0) snprintf(t->saved.first, sizeof t->saved.first, "%s", p->name);
    }
    free(theirs);
    return rc;
}

static int look_at_tensors(struct replay *t, struct ckpt *c, struct hash_sha256 *sum, struct err *e) {
    const struct params *p = model_params(t->parts.model);
    struct device *d = t->rank->device;
    int rc = 0;
    for (int i = 0; !rc && i < p->n; i++) {
        size_t bytes = (size_t)p->list[i].elems * sizeof(float);
        float *host = malloc(bytes);
        if (!host) return err_set(e, ERR_MEMORY, "no memory to read %s", p->list[i].name);
        rc = d->vtable->copy_out(d, host, model_weights(t->parts.model) + p->list[i].offset, bytes, e);
        if (!rc) hash_sha256_update(sum, host, bytes);
        if (!rc && c) rc = compare_tensor(t, c, &p->list[i], host, e);
        free(host);
    }
    return rc;
}

static int look_at_weights(struct replay *t, struct err *e) {
    struct store *s = NULL;
    struct ckpt *c = NULL;
    unsigned char digest[32];
    struct hash_sha256 *sum = hash_sha256_create();
    int rc = sum ? store_open(&s, t->rank->ckpt_url, &t->rank->store, e)
                 : err_set(e, ERR_MEMORY, "no memory for a digest");
    if (!rc) rc = open_same_step(t, s, &c, e);
    if (!rc && c) snprintf(t->saved.id, sizeof t->saved.id, "%s", ckpt_id(c));
    if (!rc) rc = look_at_tensors(t, c, sum, e);
    if (!rc) {
        hash_sha256_peek(sum, digest);
        bytes_hex(digest, sizeof digest, t->weights_sha256);
    }
    ckpt_close(c);
    store_close(s);
    hash_sha256_destroy(sum);
    return rc;
}

// ---- what was seen

static int rank_of(const struct replay *t, int64_t shard) {
    int64_t lo = 0, hi = 0;
    int r = -1;
    while (shard >= hi && r + 1 < t->rank->world)
        grid_split(t->config->comm_shards, t->rank->world, ++r, &lo, &hi);
    return r;
}

static void put_shards(struct json_writer *w, const struct replay *t) {
    const struct modality_set *set = model_modalities(t->parts.model);
    int64_t micro = t->config->train_batch / t->config->comm_shards;
    json_put_array(w, "shards");
    for (int64_t k = 0; k < t->config->comm_shards; k++) {
        json_put_object(w, NULL);
        json_put_int(w, "shard", k);
        json_put_int(w, "rank", rank_of(t, k));
        json_put_int(w, "first_sample", (t->done - 1) * t->config->train_batch + k * micro);
        json_put_int(w, "samples", micro);
        json_put_object(w, "losses");
        for (int i = 0; i < set->n; i++)
            json_put_double(w, set->spec[i].modality->name, step_share(t->parts.step, k, i));
        json_close(w, '}');
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void put_samples(struct json_writer *w, const struct replay *t) {
    const struct dataset *d = data_dataset(t->parts.data);
    int64_t batch = t->config->train_batch, first = (t->done - 1) * batch;
    json_put_int(w, "first_sample", first);
    json_put_int(w, "last_sample", first + batch - 1);
    json_put_array(w, "samples");
    for (int64_t i = 0; i < batch && i < SAMPLES_MAX; i++) {
        struct loader_item item;
        struct dataset_sample where;
        data_item(t->parts.data, first + i, &item);
        dataset_sample(d, item.sample, &where);
        json_put_object(w, NULL);
        json_put_int(w, "sample", first + i);
        json_put_int(w, "episode", item.sample);
        json_put_string(w, "file", dataset_shard_key(d, where.shard));
        json_put_int(w, "row", where.row);
        json_put_int(w, "first_frame", item.first_frame);
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void put_saved(struct json_writer *w, const struct saved *s) {
    if (!s->id[0]) {
        json_put_null(w, "checkpoint");
        return;
    }
    json_put_object(w, "checkpoint");
    json_put_string(w, "id", s->id);
    json_put_bool(w, "equal", s->differing == 0);
    json_put_int(w, "differing", s->differing);
    json_put_string(w, "first", s->first);
    json_close(w, '}');
}

static void put_result(struct json_writer *w, const struct replay *t) {
    const struct step_report *r = &t->report;
    const struct modality_set *set = model_modalities(t->parts.model);
    json_put_int(w, "step", t->done);
    json_put_int(w, "from_step", t->from);
    json_put_int(w, "ranks", t->rank->world);
    json_put_bool(w, "finite", !r->skipped);
    json_put_double(w, "loss", r->loss);
    json_put_object(w, "losses");
    for (int i = 0; i < set->n; i++) json_put_double(w, set->spec[i].modality->name, r->loss_of[i]);
    json_close(w, '}');
    json_put_double(w, "grad_norm", r->grad_norm);
    json_put_double(w, "lr", r->rate);
    json_put_string(w, "weights_sha256", t->weights_sha256);
    put_saved(w, &t->saved);
    put_shards(w, t);
    put_samples(w, t);
}

static int write_result(const struct replay *t, struct err *e) {
    char path[CONFIG_TEXT_BYTES + 64];
    struct buf text;
    struct json_writer w;
    buf_init(&text, TEXT_MAX);
    json_begin(&w, &text);
    json_put_object(&w, NULL);
    put_result(&w, t);
    json_close(&w, '}');
    int rc = json_end(&w, e);
    snprintf(path, sizeof path, "%s/replay", t->rank->run_dir);
    if (!rc) rc = bytes_make_dirs(path, e);
    snprintf(path, sizeof path, "%s/replay/step-%lld.json", t->rank->run_dir, (long long)t->done);
    if (!rc) rc = bytes_write_file(path, text.data, text.len, e);
    buf_fini(&text);
    return rc;
}

static int run(struct replay *t, struct err *e) {
    int rc = open_parts(t, e);
    if (!rc) rc = load(t, e);
    if (!rc) rc = run_steps(t, e);
    if (!rc && rank_is_root(t->rank)) rc = look_at_weights(t, e);
    if (!rc && rank_is_root(t->rank)) rc = write_result(t, e);
    return rc ? rc : coll_barrier(t->rank->coll, "replayed", e);
}

int task_replay(struct rank *r, struct err *e) {
    struct replay t = {.rank = r, .config = r->config, .parts = {.rank = r}};
    int rc = run(&t, e);
    parts_close(&t.parts);
    return rc;
}
