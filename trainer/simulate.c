// SPDX-License-Identifier: Apache-2.0
#include "trainer/simulate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "storage/dataset.h"
#include "storage/shard.h"
#include "trainer/worlds/world.h"

#define SHARD_BYTES_MAX       ((size_t)4 << 30)
#define DESCRIPTION_BYTES_MAX ((size_t)1 << 16)
#define KNOBS_MAX             32
#define KEY_BYTES             96
#define REPORT_S              2.0

struct simulation {
    const struct config *c;
    const struct simulate_team *team;
    const struct world *world;
    double knobs[KNOBS_MAX];
    struct store *store;
    int64_t shards;              // of the whole data set
    int64_t *missing, n_missing; // their numbers
    int64_t missing_episodes;
    int64_t made, bytes; // by this rank
    double started, reported;
};

static void simulate_key(const struct simulation *s, int64_t shard, char key[KEY_BYTES]) {
    snprintf(key, KEY_BYTES, "%s-%06lld.tar", s->world->name, (long long)shard);
}

static int64_t simulate_shard_episodes(const struct simulation *s, int64_t shard) {
    int64_t left = s->c->sim_episodes - shard * s->c->sim_per_shard;
    return left < s->c->sim_per_shard ? left : s->c->sim_per_shard;
}

// ---- what the data set is: the same text for the same data set

static int simulate_describe(const struct simulation *s, struct buf *out, struct err *e) {
    const struct config *c = s->c;
    struct json_writer w;
    json_begin(&w, out);
    json_put_object(&w, NULL);
    json_put_string(&w, "sim.world", s->world->name);
    json_put_int(&w, "world version", s->world->version);
    json_put_int(&w, "run.seed", c->run_seed);
    json_put_int(&w, "sim.first", c->sim_first);
    json_put_int(&w, "sim.episodes", c->sim_episodes);
    json_put_int(&w, "sim.frames", c->sim_frames);
    json_put_int(&w, "sim.per_shard", c->sim_per_shard);
    json_put_string(&w, "sim.split", c->sim_split);
    for (size_t i = 0; i < s->world->n_knobs; i++) json_put_double(&w, s->world->knobs[i].name, s->knobs[i]);
    json_close(&w, '}');
    int rc = json_end(&w, e);
    return rc ? rc : buf_appends(out, "\n", e);
}

static bool simulate_same_value(const struct json_value *a, const struct json_value *b) {
    const char *x, *y;
    double v, w;
    if (json_as_string(a, &x)) return json_as_string(b, &y) && !strcmp(x, y);
    return json_as_double(a, &v) && json_as_double(b, &w) && v == w;
}

// The first key whose values differ, for the message.
static void simulate_difference(const struct buf *want, const struct buf *have, char out[64]) {
    struct json *a = NULL, *b = NULL;
    struct err ignored = {0};
    const char *key;
    const struct json_value *value;
    snprintf(out, 64, "its description");
    if (json_parse(&a, want->data, want->len, "", &ignored) ||
        json_parse(&b, have->data, have->len, "", &ignored))
        goto out;
    for (size_t i = 0; json_member(json_root(a), i, &key, &value); i++) {
        if (simulate_same_value(value, json_get(json_root(b), key))) continue;
        snprintf(out, 64, "%s", key);
        break;
    }
out:
    json_destroy(a);
    json_destroy(b);
}

static int simulate_compare(const struct simulation *s, const struct buf *want, const struct buf *have,
                            struct err *e) {
    char what[64];
    if (want->len == have->len && !memcmp(want->data, have->data, want->len)) return 0;
    simulate_difference(want, have, what);
    return err_set(
        e, ERR_CONFLICT,
        "%s holds episodes of another simulation (%s differs); choose another sim.out, or delete it",
        s->c->sim_out, what);
}

static int simulate_fetch(const struct simulation *s, struct buf *out, bool *found, struct err *e) {
    struct err missing = {0};
    int rc = store_get(s->store, SIMULATE_DESCRIPTION, DESCRIPTION_BYTES_MAX, out, &missing);
    *found = !rc;
    if (!rc || missing.code == ERR_MISSING) return 0;
    *e = missing;
    return rc;
}

static bool simulate_is_data(const char *key) {
    size_t n = strlen(key);
    return !strcmp(key, DATASET_MANIFEST) || (n > 4 && !strcmp(key + n - 4, ".tar"));
}

static int simulate_refuse(void *arg, const struct store_entry *o, struct err *e) {
    const struct simulation *s = arg;
    if (!simulate_is_data(o->key)) return 0;
    return err_set(e, ERR_CONFLICT, "%s holds %s, which orrery simulate did not make; choose another sim.out",
                   s->c->sim_out, o->key);
}

// Claims the place for this simulation. Every rank does it: who comes first writes, the others compare.
static int simulate_claim(const struct simulation *s, struct err *e) {
    struct buf want, have;
    bool found = false;
    buf_init(&want, DESCRIPTION_BYTES_MAX);
    buf_init(&have, DESCRIPTION_BYTES_MAX);
    int rc = simulate_describe(s, &want, e);
    if (!rc) rc = simulate_fetch(s, &have, &found, e);
    if (!rc && !found) {
        struct err stranger = {0}, taken = {0};
        // Nobody else's shards may lie where ours go: the manifest would take them in.
        int strange = store_each(s->store, "", NULL, simulate_refuse, (void *)s, &stranger);
        // Another rank of this job may have been faster, and its shards be what was found.
        if (!strange) rc = store_put(s->store, SIMULATE_DESCRIPTION, want.data, want.len, true, &taken);
        if (strange || taken.code == ERR_CONFLICT) {
            rc = simulate_fetch(s, &have, &found, e);
            if (!rc && !found) *e = strange ? stranger : taken, rc = -(int)e->code;
        } else if (rc) {
            *e = taken;
        }
    }
    if (!rc && found) rc = simulate_compare(s, &want, &have, e);
    buf_fini(&want);
    buf_fini(&have);
    return rc;
}

static int simulate_exists(const struct simulation *s, const char *key, bool *yes, struct err *e) {
    struct store_result result;
    struct err missing = {0};
    int rc = store_head(s->store, key, &result, &missing);
    *yes = !rc;
    if (!rc || missing.code == ERR_MISSING) return 0;
    *e = missing;
    return rc;
}

// ---- shards

static int simulate_episode(struct simulation *s, int64_t number, struct buf *tar, struct err *e) {
    struct world_episode ep;
    char stem[32];
    int rc =
        s->world->make((uint64_t)s->c->run_seed, number, s->c->sim_frames, s->knobs, s->c->sim_split, &ep, e);
    if (rc) return rc;
    snprintf(stem, sizeof stem, "ep%08lld", (long long)number);
    for (int i = 0; i < ep.n && !rc; i++)
        rc =
            shard_append(tar, stem, ep.members[i].name, ep.members[i].bytes.data, ep.members[i].bytes.len, e);
    world_episode_fini(&ep);
    return rc;
}

// Ranks keep pace with each other, so what one has made tells of all.
static void simulate_report(struct simulation *s, bool last) {
    double now = clock_seconds(), seconds = now - s->started;
    int64_t all = s->made * s->team->world;
    if (last || all > s->missing_episodes) all = s->missing_episodes;
    blackbox_page(s->team->box)->samples_seen = s->made;
    blackbox_set_step(s->team->box, all);
    if (s->team->rank || (!last && now - s->reported < REPORT_S)) return;
    s->reported = now;
    log_info(s->team->log, "simulate: %lld of %lld episodes, %.0f episodes/s on %d rank%s", (long long)all,
             (long long)s->missing_episodes, (double)all / (seconds > 1e-3 ? seconds : 1e-3), s->team->world,
             s->team->world > 1 ? "s" : "");
}

static int simulate_write_shard(struct simulation *s, int64_t shard, const char *key, bool *stopped,
                                struct err *e) {
    struct buf tar;
    int64_t n = simulate_shard_episodes(s, shard), first = s->c->sim_first + shard * s->c->sim_per_shard;
    int rc = 0;
    buf_init(&tar, SHARD_BYTES_MAX);
    blackbox_set_phase(s->team->box, PHASE_SIMULATE, key);
    for (int64_t i = 0; i < n && !rc && !*stopped; i++) {
        rc = simulate_episode(s, first + i, &tar, e);
        s->made++;
        simulate_report(s, false);
        *stopped = s->team->stop(s->team->arg);
    }
    if (!rc && !*stopped) rc = shard_finish(&tar, e);
    if (!rc && !*stopped) rc = dataset_put_shard(s->store, key, tar.data, tar.len, e);
    s->bytes += (int64_t)tar.len;
    buf_fini(&tar);
    return rc ? err_prefix(e, "simulate %s", key) : 0;
}

// In rounds of one shard per rank, so that no rank waits long for another, and all stop together.
static int simulate_shards(struct simulation *s, struct err *e) {
    char key[KEY_BYTES];
    int64_t due = 0;
    for (int64_t first = 0; first < s->n_missing; first += s->team->world) {
        bool stopped = s->team->stop(s->team->arg);
        int64_t mine = first + s->team->rank;
        int rc = 0;
        if (mine < s->n_missing && !stopped) {
            simulate_key(s, s->missing[mine], key);
            rc = simulate_write_shard(s, s->missing[mine], key, &stopped, e);
        }
        int64_t anyone = stopped;
        for (int64_t i = first; i < first + s->team->world && i < s->n_missing; i++)
            due += simulate_shard_episodes(s, s->missing[i]);
        blackbox_set_step(s->team->box, due); // ranks that meet tell the same step
        if (!rc) rc = s->team->meet(s->team->arg, &anyone, e);
        if (rc) return rc;
        if (anyone)
            return err_set(e, ERR_SAVED,
                           "stopped early; the same command goes on with the shards that are missing");
    }
    simulate_report(s, true);
    return 0;
}

static int simulate_manifest(const struct simulation *s, struct err *e) {
    size_t n = (size_t)s->shards;
    char *text = calloc(n, KEY_BYTES);
    const char **keys = calloc(n, sizeof *keys);
    int rc = text && keys ? 0 : err_set(e, ERR_MEMORY, "no memory for the names of %zu shards", n);
    for (size_t i = 0; i < n && !rc; i++) {
        simulate_key(s, (int64_t)i, text + i * KEY_BYTES);
        keys[i] = text + i * KEY_BYTES;
    }
    if (!rc) rc = dataset_write_manifest(s->store, keys, n, e);
    free(keys);
    free(text);
    return rc;
}

// ---- the whole

static int simulate_prepare(struct simulation *s, struct err *e) {
    const struct config *c = s->c;
    s->world = world_find(c->sim_world);
    if (!s->world) {
        const struct world *known = world_at(0);
        return err_set(e, ERR_CONFIG, "sim.world: there is no world '%.64s'; there is: %s", c->sim_world,
                       known->name);
    }
    if (!c->sim_out[0]) return err_set(e, ERR_CONFIG, "sim.out is empty: say where the shards go");
    if (s->world->n_knobs > KNOBS_MAX)
        return err_set(e, ERR_BUG, "world %s has too many knobs", s->world->name);
    int rc = world_parse_knobs(s->world, c->sim_knobs, s->knobs, e);
    if (rc) return rc;
    s->shards = (c->sim_episodes + c->sim_per_shard - 1) / c->sim_per_shard;
    s->missing = calloc((size_t)s->shards, sizeof *s->missing);
    if (!s->missing)
        return err_set(e, ERR_MEMORY, "no memory for a list of %lld shards", (long long)s->shards);
    return 0;
}

// A shard whose index is there is complete: the index is put after it.
static int simulate_list_missing(struct simulation *s, struct err *e) {
    char key[KEY_BYTES], index[KEY_BYTES + sizeof DATASET_INDEX_SUFFIX];
    for (int64_t k = 0; k < s->shards; k++) {
        bool there;
        simulate_key(s, k, key);
        snprintf(index, sizeof index, "%s%s", key, DATASET_INDEX_SUFFIX);
        int rc = simulate_exists(s, index, &there, e);
        if (rc) return rc;
        if (there) continue;
        s->missing[s->n_missing++] = k;
        s->missing_episodes += simulate_shard_episodes(s, k);
    }
    blackbox_page(s->team->box)->total_steps = s->missing_episodes;
    return 0;
}

static int simulate_look(struct simulation *s, bool *complete, struct err *e) {
    int rc = store_open(&s->store, s->c->sim_out, s->team->store, e);
    if (!rc) rc = simulate_claim(s, e);
    if (!rc) rc = simulate_exists(s, DATASET_MANIFEST, complete, e);
    if (!rc && !*complete) rc = simulate_list_missing(s, e);
    int64_t ignored = 0;
    // Nobody may write anything while another rank still looks.
    return rc ? rc : s->team->meet(s->team->arg, &ignored, e);
}

int simulate_run(const struct config *c, const struct simulate_team *team, struct err *e) {
    struct simulation s = {.c = c, .team = team, .started = clock_seconds()};
    bool complete = false;
    int64_t ignored = 0;
    s.reported = s.started;
    int rc = simulate_prepare(&s, e);
    if (!rc) rc = simulate_look(&s, &complete, e);
    if (!rc && complete && team->rank == 0)
        log_info(team->log, "simulate: %s is complete already", c->sim_out);
    if (!rc && !complete) {
        rc = simulate_shards(&s, e);
        if (!rc && team->rank == 0) rc = simulate_manifest(&s, e);
        if (!rc) rc = team->meet(team->arg, &ignored, e);
    }
    store_close(s.store);
    free(s.missing);
    return rc;
}
