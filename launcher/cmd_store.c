// SPDX-License-Identifier: Apache-2.0
// orrery store: what lies in an object store, for people.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "launcher/opts.h"
#include "launcher/store_bench.h"
#include "launcher/store_copy.h"
#include "launcher/units.h"

#define JSON_FLUSH ((size_t)64 << 10)
#define CAT_SLOTS  8
#define CAT_PART   ((size_t)4 << 20)
#define RM_WIDTH   64

struct store_args {
    const char *from, *to;
    bool json, recursive, everything, uploads, anew, no_verify, quiet;
    int64_t connections, size_mb, requests, deadline_s;
    struct store_options store;
};

// ---- ls

// Control characters in a key would write to the terminal itself.
static void print_key(const char *key) {
    for (const char *p = key; *p; p++) putchar((unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p);
    putchar('\n');
}

// What a place names is told entry by entry, as pages of it come: no listing is ever held.
struct listing {
    const struct store_args *a;
    size_t prefixes, objects; // that were met
    bool json_prefixes;       // this pass tells of prefixes, the other of objects
    struct json_writer json;
    struct buf text;
};

static int print_entry(void *arg, const struct store_entry *o, struct err *e) {
    struct listing *l = arg;
    bool prefix = o->bytes < 0;
    *(prefix ? &l->prefixes : &l->objects) += 1;
    if (prefix)
        printf("%14s  ", "-");
    else
        printf("%14" PRId64 "  ", o->bytes);
    print_key(o->key);
    return 0;
}

static void flush_json(struct listing *l) {
    fwrite(l->text.data, 1, l->text.len, stdout);
    buf_clear(&l->text);
}

static int json_entry(void *arg, const struct store_entry *o, struct err *e) {
    struct listing *l = arg;
    bool prefix = o->bytes < 0;
    if (prefix != l->json_prefixes) return 0;
    *(prefix ? &l->prefixes : &l->objects) += 1;
    if (prefix) {
        json_put_string(&l->json, NULL, o->key);
    } else {
        json_put_object(&l->json, NULL);
        json_put_string(&l->json, "key", o->key);
        json_put_int(&l->json, "bytes", o->bytes);
        json_put_string(&l->json, "etag", o->etag);
        json_close(&l->json, '}');
    }
    if (l->text.len > JSON_FLUSH) flush_json(l);
    return 0;
}

// Is there an object of exactly this name, or a folder? Keys come in order: the name itself first.
struct exact {
    const char *key;
    bool object, folder;
};

static int find_exact(void *arg, const struct store_entry *o, struct err *e) {
    struct exact *x = arg;
    size_t n = strlen(x->key);
    x->object |= o->bytes >= 0 && !strcmp(o->key, x->key);
    x->folder |= o->bytes < 0 && !strcmp(o->key + n, "/");
    return x->object || x->folder || strncmp(o->key, x->key, n) > 0 || o->key[n] > '/';
}

// Where to look for what a place names: *key is its prefix (the caller frees it), *one: it is an object, and
// the key its own. Not there: MISSING.
static int find(const struct store_place *p, char **key, bool *one, struct err *e) {
    struct exact x = {.key = p->key};
    *one = false;
    *key = NULL;
    int rc = p->folder ? 0 : store_each(p->store, p->key, "/", find_exact, &x, e);
    if (!rc && !p->folder && !x.object && !x.folder)
        rc = err_set(e, ERR_MISSING, "%s: nothing there", p->url);
    if (rc) return rc;
    *one = x.object;
    if (asprintf(key, "%s%s", p->key, x.folder && !x.object ? "/" : "") >= 0) return 0;
    *key = NULL;
    return err_set(e, ERR_MEMORY, "no memory for a key");
}

static int only_first(void *arg, const struct store_entry *o, struct err *e) {
    struct listing *l = arg;
    int rc = l->a->json ? json_entry(l, o, e) : print_entry(l, o, e);
    return rc ? rc : l->objects > 0;
}

// JSON has prefixes and objects apart: two passes, where there can be prefixes.
static int listing_json(struct listing *l, struct store *s, const char *key, bool one, struct err *e) {
    const char *delimiter = l->a->recursive && !one ? NULL : "/";
    store_each_fn *each = one ? only_first : json_entry;
    int rc = 0;
    json_begin(&l->json, &l->text);
    json_put_object(&l->json, NULL);
    json_put_string(&l->json, "url", l->a->from);
    json_put_array(&l->json, "prefixes");
    l->json_prefixes = true;
    if (delimiter && !one) rc = store_each(s, key, delimiter, each, l, e);
    l->json_prefixes = false;
    json_close(&l->json, ']');
    json_put_array(&l->json, "objects");
    if (!rc) rc = store_each(s, key, delimiter, each, l, e);
    json_close(&l->json, ']');
    json_close(&l->json, '}');
    int ended = json_end(&l->json, e);
    if (rc || ended) return rc ? rc : ended;
    flush_json(l);
    putchar('\n');
    return 0;
}

static int store_ls(const struct store_args *a, struct err *e) {
    struct store_place p;
    struct listing l = {.a = a};
    char *key = NULL;
    bool one;
    int rc = store_place_open(&p, a->from, false, &a->store, e);
    if (rc) return rc;
    buf_init(&l.text, 4 * JSON_FLUSH);
    rc = find(&p, &key, &one, e);
    if (!rc && a->json)
        rc = listing_json(&l, p.store, key, one, e);
    else if (!rc)
        rc = store_each(p.store, key, a->recursive && !one ? NULL : "/", one ? only_first : print_entry, &l,
                        e);
    if (!rc && *key && !l.prefixes && !l.objects) rc = err_set(e, ERR_MISSING, "%s: nothing there", a->from);
    free(key);
    buf_fini(&l.text);
    store_place_close(&p);
    return rc;
}

// ---- rm

// DELETEs under way: RM_WIDTH of them while the listing goes on.
struct removal {
    struct store *store;
    struct store_request *ring[RM_WIDTH];
    char *keys[RM_WIDTH];
    size_t started, done;
    bool one;
};

static int wait_oldest(struct removal *r, struct err *e) {
    size_t at = r->done++ % RM_WIDTH;
    int rc = store_wait(r->store, r->ring[at], NULL, e);
    free(r->keys[at]);
    return rc;
}

static int remove_entry(void *arg, const struct store_entry *o, struct err *e) {
    struct removal *r = arg;
    int rc = r->started - r->done == RM_WIDTH ? wait_oldest(r, e) : 0;
    if (rc) return rc;
    size_t at = r->started % RM_WIDTH;
    if (!(r->keys[at] = strdup(o->key))) return err_set(e, ERR_MEMORY, "no memory for a key");
    struct store_call c = {.op = STORE_DELETE, .key = r->keys[at]};
    rc = store_start(r->store, &r->ring[at], &c, e);
    if (rc)
        free(r->keys[at]);
    else
        r->started++;
    return rc ? rc : r->one;
}

static int remove_all(struct removal *r, const char *key, struct err *e) {
    int rc = store_each(r->store, key, NULL, remove_entry, r, e);
    while (r->done < r->started) {
        int waited = wait_oldest(r, e);
        if (!rc) rc = waited;
    }
    if (!rc && *key && !r->done) rc = err_set(e, ERR_MISSING, "%s: nothing there", key);
    return rc;
}

// Uploads are not objects: whether they lie below a folder, their keys say.
static bool is_below(void *arg, const char *key) {
    const char *folder = arg;
    size_t n = strlen(folder);
    return !strncmp(key, folder, n) && (!n || folder[n - 1] == '/' || !key[n] || key[n] == '/');
}

static int remove_uploads(const struct store_args *a, const struct store_place *p, struct err *e) {
    struct err flaw = {0};
    size_t n;
    int rc = store_sweep(p->store, is_below, p->key, &n, e);
    if (!rc && store_sweep_flaw(p->store, &flaw)) rc = err_set(e, flaw.code, "%s", flaw.text);
    if (!rc && a->json)
        printf("{\"uploads_removed\": %zu}\n", n);
    else if (!rc && !a->quiet)
        fprintf(stderr, "%zu unfinished upload%s removed\n", n, n == 1 ? "" : "s");
    return rc;
}

static int refuse_whole(const struct store_args *a, const struct store_place *p, struct err *e) {
    if (a->everything || !store_place_is_whole(p)) return 0;
    return err_set(e, ERR_USAGE, "%s %s: add --everything if you mean that", a->from,
                   p->path ? "holds this machine or your home folder" : "is a whole store");
}

static int store_rm(const struct store_args *a, struct err *e) {
    struct store_place p;
    char *key = NULL;
    int rc = store_place_open(&p, a->from, false, &a->store, e);
    if (rc) return rc;
    struct removal r = {.store = p.store};
    if (a->uploads) {
        rc = refuse_whole(a, &p, e);
        if (!rc) rc = remove_uploads(a, &p, e);
        store_place_close(&p);
        return rc;
    }
    if (p.folder && !a->recursive)
        rc = err_set(e, ERR_USAGE, "%s is a folder: write 'orrery store rm -r' to remove all of it", a->from);
    else
        rc = refuse_whole(a, &p, e);
    if (!rc) rc = find(&p, &key, &r.one, e);
    if (!rc && !p.folder && !a->recursive && !r.one)
        rc = err_set(e, ERR_USAGE, "%s is a folder: write 'orrery store rm -r' to remove all of it", a->from);
    if (!rc) rc = remove_all(&r, key, e);
    if (!rc && a->json)
        printf("{\"removed\": %zu}\n", r.done);
    else if (!rc && !a->quiet)
        fprintf(stderr, "%zu object%s removed\n", r.done, r.done == 1 ? "" : "s");
    free(key);
    store_place_close(&p);
    return rc;
}

// ---- cat

static int start_cat(const struct store_place *p, char *memory, int64_t i, int64_t bytes,
                     struct store_request **out, struct err *e) {
    int64_t at = i * (int64_t)CAT_PART, left = bytes - at;
    size_t n = left < (int64_t)CAT_PART ? (size_t)left : CAT_PART;
    struct store_call c = {.op = STORE_GET,
                           .key = p->key,
                           .offset = at,
                           .length = (int64_t)n,
                           .into = memory + (size_t)(i % CAT_SLOTS) * CAT_PART,
                           .capacity = n};
    return store_start(p->store, out, &c, e);
}

static int cat_parts(const struct store_place *p, const struct store_result *head, char *memory,
                     struct err *e) {
    struct store_request *ring[CAT_SLOTS];
    int64_t parts = (head->object_bytes + (int64_t)CAT_PART - 1) / (int64_t)CAT_PART, started = 0;
    int rc = 0;
    for (int64_t i = 0; i < parts; i++) {
        struct store_result got;
        bool taken = !rc && !ferror(stdout); // main tells of what could not be written
        for (; taken && !rc && started < parts && started < i + CAT_SLOTS; started += !rc)
            rc = start_cat(p, memory, started, head->object_bytes, &ring[started % CAT_SLOTS], e);
        if (i >= started) break;
        int waited = store_wait(p->store, ring[i % CAT_SLOTS], &got, e);
        if (!rc) rc = waited;
        if (!rc && strcmp(got.etag, head->etag))
            rc = err_set(e, ERR_DATA, "%s: the object changed while it was read", p->url);
        if (!rc && taken) fwrite(memory + (size_t)(i % CAT_SLOTS) * CAT_PART, 1, got.bytes, stdout);
    }
    return rc;
}

static int store_cat(const struct store_args *a, struct err *e) {
    struct store_place p;
    struct store_result head;
    int rc = store_place_open(&p, a->from, false, &a->store, e);
    if (rc) return rc;
    char *memory = malloc(CAT_SLOTS * CAT_PART);
    if (!memory)
        rc = err_set(e, ERR_MEMORY, "no memory to read '%s'", a->from);
    else if (p.folder)
        rc = err_set(e, ERR_USAGE, "%s is a folder", a->from);
    if (!rc) rc = store_head(p.store, p.key, &head, e);
    if (!rc) rc = cat_parts(&p, &head, memory, e);
    free(memory);
    store_place_close(&p);
    return rc;
}

// ---- cp

static void print_copied(const struct store_args *a, const struct store_copy *c, double seconds) {
    char bytes[UNITS_BYTES], again[UNITS_BYTES], rate[UNITS_BYTES];
    if (a->json) {
        printf("{\"objects\": %" PRId64 ", \"bytes\": %" PRId64 ", \"resumed_bytes\": %" PRId64
               ", \"verified\": %" PRId64 ", \"seconds\": %.3f}\n",
               c->objects, c->bytes, c->resumed_bytes, c->verified, seconds);
        return;
    }
    if (a->quiet) return;
    fprintf(stderr, "%" PRId64 " object%s, %s in %.1f s (%s/s), %" PRId64 " verified", c->objects,
            c->objects == 1 ? "" : "s", units_bytes(c->bytes, bytes), seconds,
            units_bytes(
                (int64_t)((double)(c->bytes - c->resumed_bytes) / (seconds > 0.001 ? seconds : 0.001)), rate),
            c->verified);
    if (c->resumed_bytes)
        fprintf(stderr, ", %s were there from before", units_bytes(c->resumed_bytes, again));
    fprintf(stderr, "\n");
}

static int store_cp(const struct store_args *a, struct err *e) {
    struct store_place from = {0}, to = {0};
    struct log log;
    log_init(&log, STDERR_FILENO, LOG_INFO, "");
    struct store_copy c = {.recursive = a->recursive,
                           .resume = !a->anew,
                           .verify = !a->no_verify,
                           .quiet = a->quiet || a->json,
                           .at_once = (int)a->connections,
                           .log = &log};
    if (!a->to) return err_set(e, ERR_USAGE, "write: orrery store cp FROM TO");
    double begin = clock_seconds();
    int rc = store_place_open(&from, a->from, false, &a->store, e);
    if (!rc) rc = store_place_open(&to, a->to, true, &a->store, e);
    if (!rc && a->recursive) to.folder = true;
    if (!rc) rc = store_copy_run(&c, &from, &to, e);
    if (!rc) print_copied(a, &c, clock_seconds() - begin);
    store_place_close(&to);
    store_place_close(&from);
    return rc;
}

// ---- bench

static int store_bench(const struct store_args *a, struct err *e) {
    struct store_place p;
    struct store_bench b = {.bytes = a->size_mb << 20, .requests = a->requests, .json = a->json};
    struct store_options o = a->store;
    o.connections = 64;
    int rc = store_place_open(&p, a->from, true, &o, e);
    if (rc) return rc;
    rc = store_bench_run(&b, &p, e);
    store_place_close(&p);
    return rc;
}

// ---- probe

static int store_probe_url(const struct store_args *a, struct err *e) {
    struct store_place p;
    struct store_caps caps;
    int rc = store_place_open(&p, a->from, true, &a->store, e);
    if (rc) return rc;
    rc = store_probe(p.store, &caps, e);
    store_place_close(&p);
    if (rc) return rc;
    static const char *const words[] = {"no", "yes"}, *const json[] = {"false", "true"};
    if (a->json)
        printf("{\"vendor\": \"%s\", \"create_only\": %s, \"create_only_complete\": %s, \"checksum\": %s}\n",
               caps.vendor, json[caps.create_only], json[caps.create_only_complete], json[caps.checksum]);
    else
        printf("%-46s %s\n%-46s %s\n%-46s %s\n%-46s %s\n", "taken for", caps.vendor,
               "create-only PUT (checkpoints need it)", words[caps.create_only],
               "create-only completion of multipart uploads", words[caps.create_only_complete],
               "refuses a PUT whose CRC32C is wrong", words[caps.checksum]);
    return caps.create_only
               ? 0
               : err_set(e, ERR_CONFIG,
                         "%s replaces objects where it is told not to: two jobs could commit one "
                         "checkpoint; keep checkpoints elsewhere, or set ORRERY_STORE_VENDOR",
                         a->from);
}

// ---- the verb

static const struct {
    const char *name;
    bool two; // takes a second URL
    int (*run)(const struct store_args *a, struct err *e);
} actions[] = {{"ls", false, store_ls},   {"cp", true, store_cp},        {"rm", false, store_rm},
               {"cat", false, store_cat}, {"bench", false, store_bench}, {"probe", false, store_probe_url}};

int cmd_store(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct store_args a = {
        .connections = 16, .size_mb = 256, .requests = 200, .deadline_s = 60, .store = {.path_style = true}};
    const char *payload = NULL, *vendor = NULL;
    bool virtual = false;
    const struct opt table[] = {
        {"recursive", 'r', OPT_FLAG, NULL, "ls, cp, rm: all that lies below", &a.recursive, 0, 0},
        {"json", 0, OPT_FLAG, NULL, "as JSON", &a.json, 0, 0},
        {"quiet", 'q', OPT_FLAG, NULL, "no progress, no summary", &a.quiet, 0, 0},
        {"anew", 0, OPT_FLAG, NULL, "cp: do not go on with a copy that broke off", &a.anew, 0, 0},
        {"no-verify", 0, OPT_FLAG, NULL, "cp: no hash of what was sent and received", &a.no_verify, 0, 0},
        {"everything", 0, OPT_FLAG, NULL, "rm: yes, the whole bucket, or my home folder", &a.everything, 0,
         0},
        {"uploads", 0, OPT_FLAG, NULL, "rm: not objects, but the uploads that were begun and never ended",
         &a.uploads, 0, 0},
        {"connections", 0, OPT_INT, "N", "at once (16)", &a.connections, 1, 64},
        {"deadline", 0, OPT_INT, "S", "of one request with its retries, in seconds (60)", &a.deadline_s, 1,
         86400},
        {"size", 0, OPT_INT, "MB", "bench: of the large object (256)", &a.size_mb, 1, 1 << 20},
        {"requests", 0, OPT_INT, "N", "bench: small ones at each width (200)", &a.requests, 1, 1000000},
        {"payload", 0, OPT_TEXT, "HOW", "signed, unsigned or auto (ORRERY_STORE_PAYLOAD)", &payload, 0, 0},
        {"vendor", 0, OPT_TEXT, "NAME", "aws, oss, r2, gcs, rgw, minio (by the host)", &vendor, 0, 0},
        {"virtual-host", 0, OPT_FLAG, NULL, "the bucket in the host's name", &virtual, 0, 0},
        STORE_PLACE_ENDPOINT(&a.store),
        STORE_PLACE_REGION(&a.store),
    };
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 2, 3, &rest, e);
    if (rc || rest.help) return rc;
    a.from = rest.words[1];
    a.to = opts_word(&rest, 2);
    a.store.connections = (int)a.connections;
    a.store.deadline_ms = a.deadline_s * 1000;
    a.store.payload = payload;
    a.store.vendor = vendor;
    a.store.path_style = !virtual;
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(rest.words[0], actions[i].name) != 0) continue;
        if (a.to && !actions[i].two)
            return err_set(e, ERR_USAGE, "'orrery store %s' takes one URL", actions[i].name);
        return actions[i].run(&a, e);
    }
    return err_set(e, ERR_USAGE, "'orrery store %s'? Write: orrery store ls|cp|rm|cat|bench|probe URL",
                   rest.words[0]);
}
