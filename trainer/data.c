// SPDX-License-Identifier: Apache-2.0
#include "trainer/data.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "storage/store_config.h"
#include "trainer/data_cache.h"

enum { SLOTS = 4, AHEAD = 2, THREADS_MAX = 64 };

// One batch being made or handed out. Batch k lives in slot k % SLOTS: two ahead, two with the caller.
struct slot {
    struct batch batch;
    int64_t done;             // sequences that are finished
    int64_t failed, replaced; // the first row that failed, the first that was replaced; -1 none
    struct err err;
};

struct data {
    struct dataset *dataset;
    struct modality_set set;
    struct loader_plan *plan;
    struct data_cache *cache;
    int64_t window;
    bool skip;
    int n_threads, threads_wanted;
    pthread_t thread[THREADS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // The lock guards the rest. A claimed sequence belongs to its thread until it is done.
    bool closing, announced;
    int64_t first, count, stride;
    int64_t handed;                 // batches given to the caller
    int64_t claim_batch, claim_row; // the next sequence to be made
    int busy;                       // threads that hold a claim
    struct slot slot[SLOTS];
};

// ---- batches

static int batch_init(struct batch *b, const struct modality_set *set, int64_t count, int64_t frames,
                      struct err *e) {
    memset(b, 0, sizeof *b);
    b->count = count;
    b->frames = frames;
    b->episode = calloc((size_t)count, sizeof *b->episode);
    b->first_frame = calloc((size_t)count, sizeof *b->first_frame);
    bool missing = !b->episode || !b->first_frame;
    for (int m = 0; m < set->n; m++) {
        size_t rows = (size_t)count * (size_t)frames;
        b->x[m] = calloc(rows, (size_t)set->spec[m].frame_elems * sizeof(float));
        b->valid[m] = calloc(rows, 1);
        missing = missing || !b->x[m] || !b->valid[m];
    }
    if (!missing) return 0;
    return err_set(e, ERR_MEMORY, "no memory for a batch of %lld sequences of %lld frames", (long long)count,
                   (long long)frames);
}

void batch_fini(struct batch *b) {
    if (!b) return;
    for (int m = 0; m < OPS_MODALITIES_MAX; m++) {
        free(b->x[m]);
        free(b->valid[m]);
    }
    free(b->episode);
    free(b->first_frame);
    memset(b, 0, sizeof *b);
}

static void data_cut(const struct data *d, const struct data_episode *ep, int64_t first_frame,
                     struct batch *b, int64_t row) {
    for (int m = 0; m < d->set.n; m++) {
        const struct modality_spec *spec = &d->set.spec[m];
        const char *cells = (const char *)ep->cells[m] +
                            (size_t)((first_frame - ep->first[m]) * spec->frame_elems) * spec->modality->cell;
        int64_t n = b->frames * spec->frame_elems;
        float *x = b->x[m] + row * n;
        if (spec->modality->expand)
            spec->modality->expand(spec, cells, n, x);
        else
            memcpy(x, cells, (size_t)n * sizeof *x);
        memcpy(b->valid[m] + row * b->frames, ep->valid[m] + (first_frame - ep->first[m]), (size_t)b->frames);
    }
    b->episode[row] = ep->number;
    b->first_frame[row] = first_frame;
}

// ---- opening

// The plan counts in the data set's frames, so they must be the model's.
static int data_check_rate(struct data *d, const struct config *c, struct err *e) {
    double told = dataset_rate_hz(d->dataset);
    if (told > 0 && !(told == c->data_rate_hz))
        return err_set(e, ERR_CONFIG, "data.rate_hz is %g, but the frames of %s come at %g Hz",
                       c->data_rate_hz, dataset_url(d->dataset), told);
    if (told > 0) return 0;
    struct sample s = {0};
    struct sample_meta *meta = malloc(sizeof *meta);
    bool known = false;
    const char *video = NULL; // is long, and not looked at
    for (int m = 0; m < d->set.n; m++)
        if (d->set.spec[m].modality->decode_part) video = d->set.spec[m].stream.member;
    int rc = meta ? dataset_read_without(d->dataset, 0, video, &s, e)
                  : err_set(e, ERR_MEMORY, "no memory for metadata");
    const struct sample_member *json = rc ? NULL : sample_find(&s, "json");
    if (json) rc = sample_meta_parse(meta, &known, json->data, json->bytes, "the first sample's metadata", e);
    if (!rc && known && !(meta->rate_hz == c->data_rate_hz))
        rc = err_set(e, ERR_CONFIG, "data.rate_hz is %g, but the frames of %s come at %g Hz", c->data_rate_hz,
                     dataset_url(d->dataset), meta->rate_hz);
    if (rc && d->skip && e->code == ERR_DATA) {
        err_clear(e);
        rc = 0;
    }
    sample_fini(&s);
    free(meta);
    return rc;
}

static int data_open_parts(struct data *d, const struct config *c, const char *url, struct err *e) {
    struct store_options options = store_config_options(c);
    struct loader_options order = {(uint64_t)c->run_seed, c->data_frames, c->data_shuffle_block};
    const struct stream_schema *streams;
    int rc = dataset_open(&d->dataset, url, &options, e);
    if (rc) return rc;
    if (c->data_cache_dir[0])
        rc = dataset_use_cache(d->dataset, c->data_cache_dir, c->data_cache_mb << 20, e);
    if (rc) return rc;
    int n = dataset_streams(d->dataset, &streams);
    rc = modality_set_init(&d->set, c, streams, n, e);
    if (!rc) rc = data_check_rate(d, c, e);
    if (!rc) rc = loader_plan_create(&d->plan, d->dataset, &order, e);
    int64_t block = c->data_shuffle_block, all = dataset_samples(d->dataset);
    if (!rc)
        rc = data_cache_create(&d->cache, d->dataset, &d->set, (size_t)c->data_memory_mb << 20,
                               block < all ? block : all, e);
    bool named = rc && strstr(e->text, dataset_url(d->dataset));
    return rc && !named ? err_prefix(e, "%s", dataset_url(d->dataset)) : rc;
}

int data_open(struct data **out, const struct config *c, const char *url, struct err *e) {
    *out = NULL;
    if (!url[0]) return err_set(e, ERR_CONFIG, "data.train or data.eval is empty: say where the shards are");
    struct data *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_MEMORY, "no memory for a data set");
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->changed, NULL);
    d->window = c->data_frames;
    d->skip = c->data_on_error == CONFIG_data_on_error_skip;
    d->threads_wanted = c->data_threads < THREADS_MAX ? (int)c->data_threads : THREADS_MAX;
    int rc = data_open_parts(d, c, url, e);
    if (rc) {
        data_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

void data_close(struct data *d) {
    if (!d) return;
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    for (int i = 0; i < d->n_threads; i++) pthread_join(d->thread[i], NULL);
    for (int i = 0; i < SLOTS; i++) batch_fini(&d->slot[i].batch);
    data_cache_destroy(d->cache);
    loader_plan_destroy(d->plan);
    dataset_close(d->dataset);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->changed);
    free(d);
}

const struct modality_set *data_modalities(const struct data *d) {
    return &d->set;
}

struct dataset *data_dataset(const struct data *d) {
    return d->dataset;
}

void data_item(const struct data *d, int64_t global_sample, struct loader_item *out) {
    loader_item_at(d->plan, global_sample, out);
}

// ---- one sequence

static bool data_is_broken(const struct err *e) {
    return e->code == ERR_DATA || e->code == ERR_MISSING;
}

bool data_passes_over(const struct config *c, const struct err *e) {
    return c->data_on_error == CONFIG_data_on_error_skip && data_is_broken(e);
}

// A window of an episode ends with it. Below 0: the episode is shorter than a window.
static int64_t data_first_frame(const struct data *d, int64_t sample, int64_t first) {
    struct dataset_sample where;
    dataset_sample(d->dataset, sample, &where);
    return first > where.frames - d->window ? where.frames - d->window : first;
}

// The item's episode, or the next whole one of the data set. *why is set when it is another.
static int data_take(struct data *d, struct loader_item *item, const struct data_episode **out,
                     struct err *why, struct err *e) {
    int64_t n = dataset_samples(d->dataset), wanted = item->sample;
    for (int64_t i = 0; i < n; i++) {
        struct err here = {0};
        item->sample = (wanted + i) % n;
        int64_t first = data_first_frame(d, item->sample, item->first_frame);
        if (first < 0) continue;
        int rc = data_cache_take(d->cache, item->sample, first, d->window, out, &here);
        if (!rc) item->first_frame = first;
        if (!rc) return 0;
        if (!d->skip || !data_is_broken(&here)) {
            *e = here;
            return rc;
        }
        if (why->code == ERR_OK) *why = here;
    }
    return err_set(e, ERR_DATA, "all %lld samples are broken; the first: %s", (long long)n, why->text);
}

int64_t data_shorter(const struct data *d, int64_t frames) {
    int64_t n = 0;
    for (int64_t i = 0; i < dataset_samples(d->dataset); i++) {
        struct dataset_sample where;
        dataset_sample(d->dataset, i, &where);
        n += where.frames < frames;
    }
    return n;
}

// Row `row` of a batch that begins at global sample `first`. *why is set when the row was replaced.
static int data_make_row(struct data *d, struct batch *b, int64_t first, int64_t row, struct err *why,
                         struct err *e) {
    const struct data_episode *ep;
    struct loader_item item;
    loader_item_at(d->plan, first + row, &item);
    int rc = data_take(d, &item, &ep, why, e);
    if (rc) return rc;
    data_cut(d, ep, item.first_frame, b, row);
    data_cache_give_back(d->cache, ep);
    return 0;
}

// ---- prefetch threads

static bool data_may_claim(const struct data *d) {
    return d->announced && !d->closing && d->claim_batch < d->handed + AHEAD;
}

static void data_slot_start(struct data *d, struct slot *s, int64_t batch) {
    s->done = 0;
    s->failed = s->replaced = -1;
    err_clear(&s->err);
    s->batch.first = d->first + batch * d->stride;
    s->batch.replaced = 0;
    err_clear(&s->batch.why);
}

// Which row is told of must not depend on which thread was first.
static void data_row_done(struct slot *s, int64_t row, int rc, const struct err *e, const struct err *why) {
    if (rc && (s->failed < 0 || row < s->failed)) {
        s->failed = row;
        s->err = *e;
    }
    if (why->code != ERR_OK) {
        s->batch.replaced++;
        if (s->replaced < 0 || row < s->replaced) {
            s->replaced = row;
            s->batch.why = *why;
        }
    }
    s->done++;
}

static void *data_work(void *arg) {
    struct data *d = arg;
    pthread_mutex_lock(&d->lock);
    while (!d->closing) {
        if (!data_may_claim(d)) {
            pthread_cond_wait(&d->changed, &d->lock);
            continue;
        }
        struct slot *s = &d->slot[d->claim_batch % SLOTS];
        int64_t row = d->claim_row;
        struct err e = {0}, why = {0};
        if (row == 0) data_slot_start(d, s, d->claim_batch);
        d->claim_row = (row + 1) % d->count;
        if (d->claim_row == 0) d->claim_batch++;
        d->busy++;
        pthread_mutex_unlock(&d->lock);
        int rc = data_make_row(d, &s->batch, s->batch.first, row, &why, &e);
        pthread_mutex_lock(&d->lock);
        d->busy--;
        data_row_done(s, row, rc, &e, &why);
        pthread_cond_broadcast(&d->changed);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static int data_start_threads(struct data *d, struct err *e) {
    while (d->n_threads < d->threads_wanted) {
        int failed = pthread_create(&d->thread[d->n_threads], NULL, data_work, d);
        if (failed) return err_errno(e, failed, "cannot start a thread that reads data");
        d->n_threads++;
    }
    return 0;
}

int data_prefetch(struct data *d, int64_t first, int64_t count, int64_t stride, struct err *e) {
    int rc = 0;
    if (first < 0 || count < 1 || stride < 1)
        return err_set(e, ERR_BUG, "no run of batches: first %lld, count %lld, stride %lld", (long long)first,
                       (long long)count, (long long)stride);
    pthread_mutex_lock(&d->lock);
    d->announced = false;
    while (d->busy) pthread_cond_wait(&d->changed, &d->lock);
    for (int i = 0; i < SLOTS && !rc; i++) {
        batch_fini(&d->slot[i].batch);
        rc = batch_init(&d->slot[i].batch, &d->set, count, d->window, e);
    }
    d->first = first;
    d->count = count;
    d->stride = stride;
    d->handed = d->claim_batch = d->claim_row = 0;
    for (int i = 0; i < SLOTS; i++) d->slot[i].done = 0;
    d->announced = rc == 0;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return rc ? rc : data_start_threads(d, e);
}

int data_next(struct data *d, const struct batch **out, struct err *e) {
    int rc = 0;
    *out = NULL;
    pthread_mutex_lock(&d->lock);
    if (!d->announced) {
        pthread_mutex_unlock(&d->lock);
        return err_set(e, ERR_BUG, "data_next before data_prefetch");
    }
    struct slot *s = &d->slot[d->handed % SLOTS];
    while (d->claim_batch <= d->handed || s->done < d->count) pthread_cond_wait(&d->changed, &d->lock);
    d->handed++;
    if (s->failed >= 0) {
        *e = s->err;
        rc = -(int)s->err.code;
    } else {
        *out = &s->batch;
    }
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

// ---- windows

int data_window(struct data *d, const int64_t *episode, const int64_t *first_frame, int64_t count,
                int64_t frames, struct batch *out, struct err *e) {
    int rc = batch_init(out, &d->set, count, frames, e);
    out->first = -1;
    for (int64_t i = 0; i < count && !rc; i++) {
        const struct data_episode *ep = NULL;
        if (episode[i] < 0 || episode[i] >= dataset_samples(d->dataset))
            return err_set(e, ERR_BUG, "there is no episode %lld", (long long)episode[i]);
        rc = data_cache_take(d->cache, episode[i], first_frame[i], frames, &ep, e);
        if (!rc && (first_frame[i] < 0 || first_frame[i] > ep->frames - frames))
            rc = err_set(e, ERR_DATA, "frames %lld to %lld are not in episode %lld, which has %lld",
                         (long long)first_frame[i], (long long)(first_frame[i] + frames - 1),
                         (long long)episode[i], (long long)ep->frames);
        if (!rc) data_cut(d, ep, first_frame[i], out, i);
        data_cache_give_back(d->cache, ep);
    }
    return rc;
}
