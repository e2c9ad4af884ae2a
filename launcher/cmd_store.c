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

#define JSON_MAX  ((size_t)2 << 30)
#define CAT_SLOTS 8
#define CAT_PART  ((size_t)4 << 20)
#define RM_WIDTH  64

struct store_args {
    const char *from, *to;
    bool json, recursive, everything, anew, no_verify, quiet;
    int64_t connections, size_mb, requests, deadline_s;
    struct store_options store;
};

// ---- ls

// Control characters in a key would write to the terminal itself.
static void print_key(const char *key) {
    for (const char *p = key; *p; p++) putchar((unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p);
    putchar('\n');
}

static void print_listing(const struct store_listing *l) {
    for (size_t i = 0; i < l->n_prefixes; i++) {
        printf("%14s  ", "-");
        print_key(l->prefixes[i]);
    }
    for (size_t i = 0; i < l->n; i++) {
        printf("%14" PRId64 "  ", l->objects[i].bytes);
        print_key(l->objects[i].key);
    }
}

static int listing_json(const char *url, const struct store_listing *l, struct err *e) {
    struct json_writer w;
    struct buf out;
    buf_init(&out, JSON_MAX);
    json_begin(&w, &out);
    json_put_object(&w, NULL);
    json_put_string(&w, "url", url);
    json_put_array(&w, "prefixes");
    for (size_t i = 0; i < l->n_prefixes; i++) json_put_string(&w, NULL, l->prefixes[i]);
    json_close(&w, ']');
    json_put_array(&w, "objects");
    for (size_t i = 0; i < l->n; i++) {
        json_put_object(&w, NULL);
        json_put_string(&w, "key", l->objects[i].key);
        json_put_int(&w, "bytes", l->objects[i].bytes);
        json_put_string(&w, "etag", l->objects[i].etag);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    int rc = json_end(&w, e);
    if (!rc) {
        fwrite(out.data, 1, out.len, stdout);
        putchar('\n');
    }
    buf_fini(&out);
    return rc;
}

// Everything but the object or the folder of exactly this name goes.
static bool keep_exact(struct store_listing *l, const char *key) {
    size_t n = strlen(key), kept = 0;
    bool folder = false;
    for (size_t i = 0; i < l->n_prefixes; i++)
        folder |= !strncmp(l->prefixes[i], key, n) && !strcmp(l->prefixes[i] + n, "/");
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->objects[i].key, key))
            free(l->objects[i].key);
        else
            l->objects[kept++] = l->objects[i];
    }
    l->n = kept;
    for (size_t i = 0; i < l->n_prefixes; i++) free(l->prefixes[i]);
    l->n_prefixes = 0;
    return folder;
}

// The objects that a place names: below it when it is a folder, or itself. Not there: MISSING.
static int find(const struct store_place *p, bool recursive, struct store_listing *out, struct err *e) {
    char *below;
    const char *delimiter = recursive ? NULL : "/";
    if (p->folder) {
        int rc = store_list(p->store, p->key, delimiter, out, e);
        return rc || out->n || out->n_prefixes || !*p->key
                   ? rc
                   : err_set(e, ERR_MISSING, "%s: nothing there", p->url);
    }
    int rc = store_list(p->store, p->key, "/", out, e);
    if (rc) return rc;
    bool folder = keep_exact(out, p->key);
    if (out->n) return 0;
    store_listing_fini(out);
    if (!folder) return err_set(e, ERR_MISSING, "%s: nothing there", p->url);
    if (asprintf(&below, "%s/", p->key) < 0) return err_set(e, ERR_MEMORY, "no memory for a key");
    rc = store_list(p->store, below, delimiter, out, e);
    free(below);
    return rc;
}

static int store_ls(const struct store_args *a, struct err *e) {
    struct store_place p;
    struct store_listing l = {0};
    int rc = store_place_open(&p, a->from, false, &a->store, e);
    if (rc) return rc;
    rc = find(&p, a->recursive, &l, e);
    if (!rc && a->json)
        rc = listing_json(a->from, &l, e);
    else if (!rc)
        print_listing(&l);
    store_listing_fini(&l);
    store_place_close(&p);
    return rc;
}

// ---- rm

static int remove_all(struct store *s, const struct store_listing *l, struct err *e) {
    struct store_request *ring[RM_WIDTH];
    size_t started = 0;
    int rc = 0;
    for (size_t i = 0; i < l->n; i++) {
        for (; !rc && started < l->n && started < i + RM_WIDTH; started += !rc) {
            struct store_call c = {.op = STORE_DELETE, .key = l->objects[started].key};
            rc = store_start(s, &ring[started % RM_WIDTH], &c, e);
        }
        if (i >= started) break;
        int waited = store_wait(s, ring[i % RM_WIDTH], NULL, e);
        if (!rc) rc = waited;
    }
    return rc;
}

static int store_rm(const struct store_args *a, struct err *e) {
    struct store_place p;
    struct store_listing l = {0};
    int rc = store_place_open(&p, a->from, false, &a->store, e);
    if (rc) return rc;
    bool whole = !*p.key && !p.path;
    if (p.folder && !a->recursive)
        rc = err_set(e, ERR_USAGE, "%s is a folder: write 'orrery store rm -r' to remove all of it", a->from);
    else if (whole && !a->everything)
        rc = err_set(e, ERR_USAGE, "%s is a whole store: add --everything if you mean that", a->from);
    if (!rc) rc = find(&p, true, &l, e);
    if (!rc && !p.folder && !a->recursive && (l.n != 1 || strcmp(l.objects[0].key, p.key) != 0))
        rc = err_set(e, ERR_USAGE, "%s is a folder: write 'orrery store rm -r' to remove all of it", a->from);
    if (!rc) rc = remove_all(p.store, &l, e);
    if (!rc && a->json)
        printf("{\"removed\": %zu}\n", l.n);
    else if (!rc && !a->quiet)
        fprintf(stderr, "%zu object%s removed\n", l.n, l.n == 1 ? "" : "s");
    store_listing_fini(&l);
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
        for (; !rc && started < parts && started < i + CAT_SLOTS; started += !rc)
            rc = start_cat(p, memory, started, head->object_bytes, &ring[started % CAT_SLOTS], e);
        if (i >= started) break;
        int waited = store_wait(p->store, ring[i % CAT_SLOTS], &got, e);
        if (!rc) rc = waited;
        if (!rc && strcmp(got.etag, head->etag))
            rc = err_set(e, ERR_DATA, "%s: the object changed while it was read", p->url);
        if (!rc && fwrite(memory + (size_t)(i % CAT_SLOTS) * CAT_PART, 1, got.bytes, stdout) != got.bytes)
            rc = err_set(e, ERR_IO, "cannot write the output");
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
        {"everything", 0, OPT_FLAG, NULL, "rm: yes, the whole bucket", &a.everything, 0, 0},
        {"connections", 0, OPT_INT, "N", "at once (16)", &a.connections, 1, 64},
        {"deadline", 0, OPT_INT, "S", "of one request with its retries, in seconds (60)", &a.deadline_s, 1,
         86400},
        {"size", 0, OPT_INT, "MB", "bench: of the large object (256)", &a.size_mb, 1, 1 << 20},
        {"requests", 0, OPT_INT, "N", "bench: small ones at each width (200)", &a.requests, 1, 1000000},
        {"payload", 0, OPT_TEXT, "HOW", "signed, unsigned or auto (ORRERY_STORE_PAYLOAD)", &payload, 0, 0},
        {"vendor", 0, OPT_TEXT, "NAME", "aws, oss, r2, gcs, rgw, minio (by the host)", &vendor, 0, 0},
        {"virtual-host", 0, OPT_FLAG, NULL, "the bucket in the host's name", &virtual, 0, 0},
        {"endpoint", 0, OPT_TEXT, "URL", "S3 endpoint (AWS_ENDPOINT_URL)", &a.store.endpoint, 0, 0},
        {"region", 0, OPT_TEXT, "NAME", "S3 region (AWS_REGION)", &a.store.region, 0, 0},
    };
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 2, 3, &rest, e);
    if (rc || rest.help) return rc;
    a.from = rest.words[1];
    a.to = rest.n_words > 2 ? rest.words[2] : NULL;
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
