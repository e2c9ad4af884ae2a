// SPDX-License-Identifier: Apache-2.0
// Where data comes from and results go to: reachability, rights, space.
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/machine.h"
#include "launcher/doctor_impl.h"
#include "launcher/rundir.h"
#include "storage/dataset.h"
#include "storage/store_config.h"

#define DISK_LEAST_BYTES (INT64_C(1) << 30)
#define PROBE_TEXT       "written by orrery doctor; may be deleted\n"

// The nearest folder above `path` that exists.
static void existing_parent(const char *path, char *out, size_t out_bytes) {
    struct stat st;
    snprintf(out, out_bytes, "%s", path);
    while (stat(out, &st)) {
        char *slash = strrchr(out, '/');
        if (!slash || slash == out) {
            snprintf(out, out_bytes, "%s", slash ? "/" : ".");
            return;
        }
        *slash = 0;
    }
}

// The rule and the words of `orrery run`.
static bool is_bad_name(const struct config *c, struct doctor_finding *f) {
    struct err e = {0};
    if (!rundir_check_name(c->run_dir, &e)) return false;
    doctor_say(f, "%s", e.text);
    doctor_cure(f, DOCTOR_BAD, e.code,
                "a folder of this machine or of a shared file system, as run.dir=runs/first");
    return true;
}

void doctor_run_dir(const struct config *c, struct doctor_finding *f) {
    char parent[CONFIG_TEXT_BYTES];
    if (is_bad_name(c, f)) return;
    existing_parent(c->run_dir, parent, sizeof parent);
    int64_t bytes = machine_free_bytes(parent);
    bool may_write = access(parent, W_OK | X_OK) == 0;
    doctor_say(f, "run.dir %s: %.1f GiB free, %s", c->run_dir, (double)bytes / DOCTOR_GIB,
               may_write ? "writable" : "not writable");
    if (!may_write)
        doctor_cure(f, DOCTOR_BAD, ERR_DENIED,
                    "no right to write in %s: change its owner, or name another run.dir", parent);
    else if (bytes >= 0 && bytes < DISK_LEAST_BYTES)
        doctor_cure(f, DOCTOR_WARN, ERR_OK,
                    "checkpoints may not fit: free some space, or set checkpoint.url");
}

static struct store_options options_of(const struct config *c) {
    struct store_options o = store_config_options(c);
    o.deadline_ms = DOCTOR_ASK_MS;
    o.connections = 1;
    return o;
}

static void unreachable(struct doctor_finding *f, const char *key, const char *url, const struct err *e) {
    doctor_say(f, "%s %s: %s", key, url, e->text);
    doctor_cure(
        f, DOCTOR_BAD, e->code,
        e->code == ERR_DENIED
            ? "the store knows us and says no: check AWS_ACCESS_KEY_ID and the bucket's policy (list, get)"
            : "check the address, the network and the rights (store.endpoint, AWS_ACCESS_KEY_ID)");
}

// ---- data: the listing, and one object's first byte

static void read_one(struct store *store, const char *key, const char *url, struct doctor_finding *f) {
    struct err e = {0};
    char byte;
    int rc = store_get_range(store, DATASET_MANIFEST, 0, 1, &byte, &e);
    if (!rc)
        doctor_say(f, "%s %s: reachable and readable", key, url);
    else if (rc == -ERR_MISSING) {
        doctor_say(f, "%s %s: reachable, but without " DATASET_MANIFEST, key, url);
        doctor_cure(f, DOCTOR_BAD, ERR_MISSING, "orrery data index %s", url);
    } else
        unreachable(f, key, url, &e);
}

static int note_any(void *arg, const struct store_entry *o, struct err *e) {
    bool *any = arg;
    *any = true;
    return 1;
}

static void ask_data(const struct config *c, const char *key, const char *url, bool must_hold,
                     struct doctor_finding *f) {
    struct store *store = NULL;
    bool any = false;
    struct err e = {0};
    struct store_options options = options_of(c);
    if (!*url) {
        doctor_say(f, "%s is not set", key);
        if (must_hold)
            doctor_cure(f, DOCTOR_BAD, ERR_CONFIG,
                        "set it: %s=data/demo/train, made by: orrery simulate table", key);
        return;
    }
    int rc = store_open(&store, url, &options, &e);
    if (!rc) rc = store_each(store, "", "/", note_any, &any, &e);
    if (rc)
        unreachable(f, key, url, &e);
    else if (!any) {
        doctor_say(f, "%s %s: nothing there", key, url);
        doctor_cure(f, DOCTOR_BAD, ERR_MISSING, "make shards: orrery simulate table --out %s --episodes 100",
                    url);
    } else
        read_one(store, key, url, f);
    store_close(store);
}

void doctor_train_data(const struct config *c, struct doctor_finding *f) {
    const char *at = c->data_train;
    struct dataset_item item;
    if (!dataset_is_list(at))
        ask_data(c, "data.train", at, true, f);
    else
        while (dataset_list_next(&at, &item)) ask_data(c, "data.train", item.url, true, f);
}

void doctor_eval_data(const struct config *c, struct doctor_finding *f) {
    ask_data(c, "data.eval", c->data_eval, *c->data_eval, f);
}

// ---- checkpoints: everything that a save, a commit and a retention do, on an object of our own

static const char *try_rights(struct store *store, const char *key, bool *honours, struct err *e) {
    struct buf back;
    struct err second = {0};
    buf_init(&back, 4096);
    const char *failed = NULL;
    if (store_put(store, key, PROBE_TEXT, strlen(PROBE_TEXT), true, e)) return "create";
    if (store_get(store, key, 4096, &back, e))
        failed = "read";
    else if (back.len != strlen(PROBE_TEXT) || memcmp(back.data, PROBE_TEXT, back.len) != 0)
        failed = err_set(e, ERR_DATA, "what came back is not what was sent") ? "read" : NULL;
    *honours = store_put(store, key, "x", 1, true, &second) == -ERR_CONFLICT;
    buf_fini(&back);
    if (!failed && store_delete(store, key, e)) failed = "delete";
    return failed;
}

static void probe_rights(const struct config *c, const char *url, struct doctor_finding *f) {
    struct store *store = NULL;
    struct err e = {0};
    struct store_options options = options_of(c);
    char key[96];
    bool honours = false;
    snprintf(key, sizeof key, "orrery-doctor-%d-%" PRId64, (int)getpid(), clock_utc_ns());
    const char *failed =
        store_open(&store, url, &options, &e) ? "open" : try_rights(store, key, &honours, &e);
    store_close(store);
    if (failed) {
        doctor_say(f, "checkpoints in %s: cannot %s: %s", url, failed, e.text);
        doctor_cure(f, DOCTOR_BAD, e.code,
                    !strcmp(failed, "delete")
                        ? "old checkpoints are deleted (checkpoint.keep): give that right too"
                        : "give the right to %s there, or name another checkpoint.url",
                    failed);
        return;
    }
    doctor_say(f, "checkpoints in %s: created, read and deleted an object", url);
    if (!honours) {
        doctor_say(f, "checkpoints in %s: the store overwrites what it was told to create only", url);
        doctor_cure(
            f, DOCTOR_WARN, ERR_OK,
            "it ignores If-None-Match: two jobs on one run could overwrite each other's checkpoint; run one");
    }
}

void doctor_checkpoints(const struct config *c, struct doctor_finding *f) {
    struct stat st;
    char url[STORE_CONFIG_URL_BYTES], parent[STORE_CONFIG_URL_BYTES];
    struct err e = {0};
    if (!*c->checkpoint_url && rundir_check_name(c->run_dir, &e)) {
        doctor_say(f, "not tried: checkpoints would go below run.dir");
        doctor_cure(f, DOCTOR_WARN, ERR_OK, "mend run.dir, or set checkpoint.url");
        return;
    }
    if (store_config_checkpoints(c, c->run_dir, url, sizeof url, &e)) {
        doctor_say(f, "%s", e.text);
        doctor_cure(f, DOCTOR_BAD, e.code, "name a shorter run.dir, or set checkpoint.url");
        return;
    }
    // A folder that is not there yet is not made for a probe: the nearest that exists is asked.
    const char *path = store_local_path(url);
    if (!path || !stat(path, &st)) {
        probe_rights(c, url, f);
        return;
    }
    existing_parent(path, parent, sizeof parent);
    bool may_write = access(parent, W_OK | X_OK) == 0;
    doctor_say(f, "checkpoints go to %s, which is not there yet; %s is %swritable", url, parent,
               may_write ? "" : "not ");
    if (!may_write)
        doctor_cure(f, DOCTOR_BAD, ERR_DENIED, "change its owner, or name another checkpoint.url");
}
