// SPDX-License-Identifier: Apache-2.0
// Which checkpoints a store holds, and which of them stay.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/ckpt_manifest.h"

#define PREFIX     "manifest-"
#define SUFFIX     ".json"
#define DENIED_MAX 4

// "manifest-000000000400.json"
static bool parse_key(const char *key, int64_t *step) {
    char digits[16], ignored[CKPT_ID_BYTES];
    size_t n = strlen(PREFIX);
    if (strncmp(key, PREFIX, n) || strspn(key + n, "0123456789") != 12 || strcmp(key + n + 12, SUFFIX))
        return false;
    memcpy(digits, key + n, 12);
    digits[12] = 0;
    return ckpt_parse_id(digits, step, ignored);
}

static int read_entry(struct store *s, const char *key, int64_t step, struct ckpt_entry *out, struct err *e) {
    struct err why = {ERR_OK};
    struct buf text;
    struct ckpt_manifest m;
    buf_init(&text, CKPT_MANIFEST_MAX);
    ckpt_manifest_init(&m);
    memset(out, 0, sizeof *out);
    out->step = step;
    snprintf(out->id, sizeof out->id, "%012" PRId64, step);
    int rc = ckpt_manifest_get(&m, s, key, key, &text, &why);
    if (!rc && m.state.step != step) rc = -ERR_DATA;
    if (!rc) {
        memcpy(out->id, m.id, sizeof out->id);
        out->bytes = m.bytes;
    } else if (rc == -ERR_DATA) {
        out->broken = true;
        rc = 0;
    } else {
        *e = why;
    }
    ckpt_manifest_fini(&m);
    buf_fini(&text);
    return rc;
}

static int newest_first(const void *a, const void *b) {
    int64_t x = ((const struct ckpt_entry *)a)->step, y = ((const struct ckpt_entry *)b)->step;
    return (x < y) - (x > y);
}

// The manifests that were met; of other keys nothing is kept.
struct manifests {
    struct store *store;
    struct ckpt_entry *entries;
    size_t n, room;
};

static int add_manifest(void *arg, const struct store_entry *o, struct err *e) {
    struct manifests *all = arg;
    int64_t step;
    if (o->bytes < 0 || !parse_key(o->key, &step)) return 0;
    if (all->n == all->room) {
        size_t room = all->room ? 2 * all->room : 16;
        struct ckpt_entry *grown = reallocarray(all->entries, room, sizeof *grown);
        if (!grown) return err_set(e, ERR_MEMORY, "no memory for %zu checkpoints", room);
        all->entries = grown;
        all->room = room;
    }
    int rc = read_entry(all->store, o->key, step, &all->entries[all->n], e);
    all->n += !rc;
    if (rc != -ERR_MISSING) return rc;
    err_clear(e); // deleted since it was listed
    return 0;
}

int ckpt_list(struct store *s, struct ckpt_entry **out, size_t *n, struct err *e) {
    struct manifests all = {.store = s};
    *out = NULL;
    *n = 0;
    int rc = store_each(s, PREFIX, "/", add_manifest, &all, e);
    if (rc) {
        free(all.entries);
        return rc;
    }
    if (all.n) qsort(all.entries, all.n, sizeof *all.entries, newest_first);
    *out = all.entries;
    *n = all.n;
    return 0;
}

// ---- deleting

static int delete_file(void *arg, const struct store_entry *o, struct err *e) {
    return store_delete(arg, o->key, e);
}

static int delete_files(struct store *s, const char *prefix, struct err *e) {
    return store_each(s, prefix, NULL, delete_file, s, e);
}

static int delete_entry(struct store *s, const struct ckpt_entry *c, struct err *e) {
    char key[CKPT_KEY_BYTES], prefix[CKPT_KEY_BYTES];
    ckpt_manifest_key(c->step, key);
    int rc = store_delete(s, key, e);
    if (rc || c->broken) return rc; // what a broken one's files are is not known: they count as unfinished
    snprintf(prefix, sizeof prefix, "%s/", c->id);
    return delete_files(s, prefix, e);
}

static bool is_kept(const struct ckpt_entry *entries, size_t n, const char *id, int64_t step) {
    for (size_t i = 0; i < n; i++) {
        if (entries[i].broken ? entries[i].step == step : !strcmp(entries[i].id, id)) return true;
    }
    return false;
}

// "STEP-OWNERSAVEID". Ids of before there were owners belong to nobody.
static bool is_of(const char *id, uint32_t owner) {
    char want[16];
    size_t tag = strcspn(id, "-") + 1;
    snprintf(want, sizeof want, "%08" PRIx32, owner);
    return strlen(id) == tag + 24 && !strncmp(id + tag, want, 8);
}

struct unfinished {
    struct store *store;
    const struct ckpt_entry *kept;
    size_t n;
    const uint32_t *owner; // NULL: of all owners
    size_t deleted;        // saves
};

// Does the folder "STEP-OWNERSAVEID/", or a key in it, belong to a save that no kept manifest names?
static bool is_unfinished(void *arg, const char *key) {
    const struct unfinished *u = arg;
    char name[CKPT_ID_BYTES], id[CKPT_ID_BYTES];
    int64_t step;
    size_t length = strcspn(key, "/");
    if (!*key) return true; // the root: what lies unfinished there was to be a manifest
    if (!key[length] || length >= sizeof name) return false;
    memcpy(name, key, length);
    name[length] = 0;
    if (!ckpt_parse_id(name, &step, id) || !*id || is_kept(u->kept, u->n, id, step)) return false;
    return !u->owner || is_of(id, *u->owner);
}

static int delete_folder(void *arg, const struct store_entry *o, struct err *e) {
    struct unfinished *u = arg;
    if (o->bytes >= 0 || !is_unfinished(u, o->key)) return 0;
    int rc = delete_files(u->store, o->key, e);
    u->deleted += !rc;
    return rc;
}

static int delete_unfinished(struct unfinished *u, struct err *e) {
    int rc = store_each(u->store, "", "/", delete_folder, u, e);
    return rc ? rc : store_sweep(u->store, is_unfinished, u, NULL, e);
}

// Those from `kept` on, oldest first. One that may not be deleted does not keep the others, but after a few
// of them it is not theirs alone. The first error stands.
static int delete_old(struct store *s, const struct ckpt_entry *entries, size_t kept, size_t n,
                      struct err *e) {
    int denied = 0, rc = 0;
    for (size_t i = n; i > kept && denied < DENIED_MAX && (!rc || rc == -ERR_DENIED); i--) {
        struct err why = {ERR_OK};
        rc = delete_entry(s, &entries[i - 1], &why);
        denied += rc == -ERR_DENIED;
        if (rc && !e->code) *e = why;
    }
    return e->code ? -(int)e->code : 0;
}

int ckpt_retain(struct store *s, int64_t keep, uint32_t owner, struct err *e) {
    struct ckpt_entry *entries;
    size_t n, kept = 0;
    int64_t complete = 0;
    int rc = ckpt_list(s, &entries, &n, e);
    if (rc) return rc;
    if (keep < 1) keep = 1;
    for (; kept < n && complete < keep; kept++) complete += !entries[kept].broken;
    rc = delete_old(s, entries, kept, n, e);
    struct unfinished u = {.store = s, .kept = entries, .n = kept, .owner = &owner};
    if (!rc) rc = delete_unfinished(&u, e);
    free(entries);
    return rc;
}

int ckpt_clean(struct store *s, size_t *deleted, struct err *e) {
    struct ckpt_entry *entries;
    size_t n;
    int rc = ckpt_list(s, &entries, &n, e);
    struct unfinished u = {.store = s, .kept = entries, .n = n};
    if (!rc) rc = delete_unfinished(&u, e);
    *deleted = u.deleted;
    free(entries);
    return rc;
}

int ckpt_remove(struct store *s, const char *id, struct err *e) {
    struct ckpt_entry *entries;
    char full[CKPT_ID_BYTES];
    int64_t step;
    size_t n;
    bool found = false;
    if (!ckpt_parse_id(id, &step, full))
        return err_set(e, ERR_USAGE, "'%.60s' is no checkpoint's id or step", id);
    int rc = ckpt_list(s, &entries, &n, e);
    for (size_t i = 0; i < n && !rc; i++) {
        if (entries[i].step != step || (*full && !entries[i].broken && strcmp(full, entries[i].id))) continue;
        found = true;
        rc = delete_entry(s, &entries[i], e);
    }
    free(entries);
    if (!rc && !found) rc = err_set(e, ERR_MISSING, "%s: no checkpoint %s", store_url(s), id);
    return rc;
}
