// SPDX-License-Identifier: Apache-2.0
#include "launcher/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "storage/ckpt.h"
#include "storage/store_config.h"

#define CONFIG_PATH_BYTES (RUNDIR_PATH_BYTES + 16)

static int newest(const struct config *c, struct resume *out, struct err *e) {
    struct store *store = NULL;
    struct ckpt_entry *entries = NULL;
    size_t n = 0;
    struct store_options options = store_config_options(c);
    options.connections = 2;
    int rc = store_open(&store, out->url, &options, e);
    if (!rc) rc = ckpt_list(store, &entries, &n, e);
    for (size_t i = 0; !rc && i < n && out->step < 0; i++)
        if (!entries[i].broken) out->step = entries[i].step;
    free(entries);
    store_close(store);
    return rc;
}

int resume_find(const struct config *c, const struct rundir *run, struct resume *out, struct err *e) {
    struct stat st;
    out->step = -1;
    int rc = store_config_checkpoints(c, run->path, out->url, sizeof out->url, e);
    if (rc) return rc;
    // A folder that is not there yet holds nothing, and is none of ours to make.
    const char *path = store_local_path(out->url);
    if (path && stat(path, &st)) return 0;
    rc = newest(c, out, e);
    return rc ? err_prefix(e, "looking for checkpoints in %s", out->url) : 0;
}

struct changes {
    struct buf *lines;
    bool force;
    int refused;
    char names[512];
};

static void refuse(struct changes *d, const char *key, const char *was, const char *now) {
    size_t used = strlen(d->names);
    d->refused++;
    snprintf(d->names + used, sizeof d->names - used, "%s%s (%s -> %s)", used ? ", " : "", key, was, now);
}

static void note_change(void *arg, const char *key, const char *was, const char *now,
                        enum config_change change) {
    struct changes *d = arg;
    struct err full = {0};
    if (change == CHANGE_MODEL || (change == CHANGE_DATA && !d->force))
        refuse(d, key, was, now);
    else if (change != CHANGE_FREE &&
             buf_appendf(d->lines, &full, "changed since the last start: %s: %s -> %s\n", key, was, now))
        err_clear(&full); // more than anybody reads
}

int resume_check_config(const struct config *now, const struct rundir *run, bool force, struct buf *changes,
                        struct err *e) {
    char path[CONFIG_PATH_BYTES];
    struct stat st;
    struct config_file *was = NULL;
    struct changes d = {.lines = changes, .force = force};
    int rc = rundir_join(run, "config.yaml", path, sizeof path, e);
    if (rc) return rc;
    if (lstat(path, &st) || st.st_size == 0)
        return buf_appendf(changes, e, "%s is gone or empty: cannot tell whether the config has changed\n",
                           path);
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_DATA, "%s is no regular file", path);
    struct err why = {0};
    if (config_load(&was, path, NULL, 0, &why))
        return err_set(
            e, why.code == ERR_CONFIG ? ERR_DATA : why.code,
            "the record of the config that the run had, damaged or of another version: %s; correct it, or "
            "remove it to go on without comparing",
            why.text);
    config_diff(config_values(was), now, note_change, &d);
    config_close(was);
    if (!d.refused) return 0;
    return err_set(
        e, ERR_CONFIG,
        "the checkpoints of %s were made with another config: %s; put the old values back, or start anew in "
        "another run.dir%s",
        run->given, d.names,
        force ? "" : " (keys of data and numbers, but not of the model, pass with --force)");
}
