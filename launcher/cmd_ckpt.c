// SPDX-License-Identifier: Apache-2.0
// orrery ckpt: the checkpoints of a run, or of a store.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/json.h"
#include "launcher/ckpt_import.h"
#include "launcher/ckpt_tools.h"
#include "launcher/load.h"
#include "launcher/opts.h"
#include "launcher/rundir.h"
#include "launcher/runstore.h"
#include "launcher/units.h"
#include "storage/ckpt.h"

struct ckpt_args {
    const char *runs[2];
    size_t n_runs;
    const char *out, *prefix, *names;
    const char *const *overrides; // import: key.path=value
    size_t n_overrides;
    int64_t step; // -1: the newest
    bool json, weights, force;
    struct store_options store;
};

// ---- from a store to one checkpoint

struct opened {
    struct store *store;
    struct ckpt *ckpt;
};

static void opened_close(struct opened *o) {
    ckpt_close(o->ckpt);
    store_close(o->store);
}

static int newest(struct store *s, char id[CKPT_ID_BYTES], struct err *e) {
    struct ckpt_entry *entries;
    size_t n, i = 0;
    int rc = ckpt_list(s, &entries, &n, e);
    if (rc) return rc;
    for (; i < n && entries[i].broken; i++)
        fprintf(stderr, "orrery: step %" PRId64 " is passed over: its manifest is damaged\n",
                entries[i].step);
    if (i < n)
        memcpy(id, entries[i].id, CKPT_ID_BYTES);
    else
        rc = err_set(e, ERR_MISSING, "%s: no complete checkpoint", store_url(s));
    free(entries);
    return rc;
}

// "RUN", or "RUN@STEP" for one of its steps; false when neither that nor --step names one.
static bool split_run(const char *run, const struct ckpt_args *a, char folder[4096], int64_t *step) {
    const char *at = strrchr(run, '@');
    *step = a->step;
    bool has_step = at && at[1] >= '0' && at[1] <= '9' && bytes_parse_i64(at + 1, step);
    snprintf(folder, 4096, "%.*s", has_step ? (int)(at - run) : (int)strlen(run), run);
    return *step >= 0;
}

static int open_one(struct opened *o, const char *run, const struct ckpt_args *a, struct err *e) {
    char folder[4096], id[CKPT_ID_BYTES] = "";
    int64_t step;
    *o = (struct opened){NULL, NULL};
    bool has_step = split_run(run, a, folder, &step);
    int rc = runstore_open(&o->store, folder, &a->store, e);
    if (rc) return rc;
    if (has_step)
        snprintf(id, sizeof id, "%" PRId64, step);
    else
        rc = newest(o->store, id, e);
    if (!rc) rc = ckpt_open(&o->ckpt, o->store, id, e);
    if (rc) opened_close(o);
    return rc;
}

// ---- list

static int list_json(const struct ckpt_entry *entries, size_t n, struct err *e) {
    struct json_writer w;
    struct buf out;
    buf_init(&out, (size_t)64 << 20);
    json_begin(&w, &out);
    json_put_array(&w, NULL);
    for (size_t i = 0; i < n; i++) {
        json_put_object(&w, NULL);
        json_put_int(&w, "step", entries[i].step);
        json_put_string(&w, "id", entries[i].id);
        json_put_int(&w, "bytes", entries[i].bytes);
        json_put_bool(&w, "broken", entries[i].broken);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    int rc = json_end(&w, e);
    if (!rc) puts(out.data);
    buf_fini(&out);
    return rc;
}

static int run_list(const struct ckpt_args *a, struct err *e) {
    struct store *s;
    struct ckpt_entry *entries = NULL;
    size_t n = 0;
    char size[UNITS_BYTES];
    int rc = runstore_open(&s, a->runs[0], &a->store, e);
    if (rc) return rc;
    rc = ckpt_list(s, &entries, &n, e);
    if (!rc && a->json) rc = list_json(entries, n, e);
    if (!rc && !a->json && !n) fprintf(stderr, "%s: no checkpoint\n", store_url(s));
    for (size_t i = 0; !rc && !a->json && i < n; i++) {
        if (!i) printf("%12s  %-38s %10s\n", "step", "save", "size");
        printf("%12" PRId64 "  %-38s %10s\n", entries[i].step, entries[i].id,
               entries[i].broken ? "damaged" : units_bytes(entries[i].bytes, size));
    }
    free(entries);
    store_close(s);
    return rc;
}

// ---- verify, digest

static int run_verify(const struct ckpt_args *a, struct err *e) {
    struct opened o;
    int64_t bytes;
    char size[UNITS_BYTES];
    int rc = open_one(&o, a->runs[0], a, e);
    if (rc) return rc;
    rc = ckpt_verify(o.ckpt, &bytes, e);
    if (!rc && a->json)
        printf("{\"id\": \"%s\", \"tensors\": %zu, \"bytes\": %" PRId64 "}\n", ckpt_id(o.ckpt),
               ckpt_tensors(o.ckpt), bytes);
    else if (!rc)
        printf("step %" PRId64 " (%s): %zu tensors, %s, every byte as it was saved\n",
               ckpt_state_of(o.ckpt)->step, ckpt_id(o.ckpt), ckpt_tensors(o.ckpt), units_bytes(bytes, size));
    opened_close(&o);
    return rc;
}

static int run_digest(const struct ckpt_args *a, struct err *e) {
    struct opened o;
    char digest[65];
    int rc = open_one(&o, a->runs[0], a, e);
    if (rc) return rc;
    rc = ckpt_digest(o.ckpt, digest, e);
    if (!rc && a->json)
        printf("{\"id\": \"%s\", \"step\": %" PRId64 ", \"digest\": \"%s\", \"sample_sha256\": \"%s\"}\n",
               ckpt_id(o.ckpt), ckpt_state_of(o.ckpt)->step, digest, ckpt_state_of(o.ckpt)->sample_sha256);
    else if (!rc)
        printf("%s\n", digest);
    opened_close(&o);
    return rc;
}

// ---- diff, export

static int run_diff(const struct ckpt_args *a, struct err *e) {
    struct opened x, y;
    int64_t differing = 0;
    int rc = open_one(&x, a->runs[0], a, e);
    if (rc) return rc;
    rc = open_one(&y, a->runs[1], a, e);
    if (!rc) {
        rc = ckpt_tools_diff(x.ckpt, y.ckpt, a->json, &differing, e);
        opened_close(&y);
    }
    opened_close(&x);
    return rc ? rc : differing ? 1 : 0;
}

static int run_export(const struct ckpt_args *a, struct err *e) {
    struct opened o;
    char folder[64];
    int rc = open_one(&o, a->runs[0], a, e);
    if (rc) return rc;
    snprintf(folder, sizeof folder, "export-%" PRId64, ckpt_state_of(o.ckpt)->step);
    rc = ckpt_tools_export(o.ckpt, a->prefix, a->weights, a->out ? a->out : folder, e);
    opened_close(&o);
    return rc;
}

// ---- remove: what a person does with a damaged one, so that the run goes on from the one before

static int run_remove(const struct ckpt_args *a, struct err *e) {
    struct store *s;
    char folder[4096], id[CKPT_ID_BYTES];
    int64_t step;
    if (!split_run(a->runs[0], a, folder, &step))
        return err_set(e, ERR_USAGE, "which one? 'orrery ckpt remove %s --step N'", a->runs[0]);
    int rc = runstore_open(&s, folder, &a->store, e);
    if (rc) return rc;
    snprintf(id, sizeof id, "%" PRId64, step);
    rc = ckpt_remove(s, id, e);
    if (!rc) fprintf(stderr, "step %" PRId64 " removed from %s\n", step, store_url(s));
    store_close(s);
    return rc;
}

// ---- clean: what no retention pass takes, since it cannot tell another run's unfinished save from a dead
// one's

static int run_clean(const struct ckpt_args *a, struct err *e) {
    struct store *s;
    size_t n;
    int rc = runstore_open(&s, a->runs[0], &a->store, e);
    if (rc) return rc;
    rc = ckpt_clean(s, &n, e);
    if (!rc) fprintf(stderr, "%zu unfinished save%s removed from %s\n", n, n == 1 ? "" : "s", store_url(s));
    store_close(s);
    return rc;
}

// ---- import: CONFIG and FILE; the checkpoint lies where `orrery run CONFIG` looks for one

// A run goes on from its newest checkpoint: beside those that it has, what is imported either takes their
// place or is never read.
static int check_is_new(struct store *s, const char *run, bool force, bool *is_new, struct err *e) {
    struct ckpt_entry *entries;
    size_t n;
    int rc = ckpt_list(s, &entries, &n, e);
    if (rc) return rc;
    *is_new = n == 0;
    if (n && !force)
        rc = err_set(e, ERR_CONFLICT,
                     "%s has checkpoints, the newest of step %" PRId64
                     "; name another folder (run.dir=%s-imported), or give --force",
                     store_url(s), entries[0].step, run);
    free(entries);
    return rc;
}

static int import_into(const struct ckpt_args *a, const struct config_file *f, const struct rundir *run,
                       struct err *e) {
    struct store *s;
    size_t n = 0;
    bool is_new = false;
    char path[RUNDIR_PATH_BYTES + 16];
    struct ckpt_import from = {.file = a->runs[1],
                               .names = a->names,
                               .step = a->step < 0 ? 0 : a->step,
                               .config = f,
                               .options = &a->store};
    int rc = runstore_open_for(&s, config_values(f), run->given, &a->store, e);
    if (rc) return rc;
    rc = check_is_new(s, run->given, a->force, &is_new, e);
    if (!rc) rc = ckpt_import(s, &from, &n, e);
    if (!rc && is_new) rc = rundir_write_config(run, f, path, sizeof path, e);
    if (!rc)
        fprintf(stderr, "%zu tensors of %s are step %" PRId64 " in %s\n", n, a->runs[1], from.step,
                store_url(s));
    store_close(s);
    return rc;
}

static int run_import(const struct ckpt_args *a, struct err *e) {
    struct config_file *f;
    struct rundir run = {.lock_fd = -1};
    int rc = load_config(&f, a->runs[0], a->overrides, a->n_overrides, e);
    if (rc) return rc;
    rc = rundir_open(&run, config_values(f)->run_dir, true, e);
    if (!rc) rc = rundir_lock(&run, e);
    if (!rc) rc = import_into(a, f, &run, e);
    rundir_close(&run);
    config_close(f);
    return rc;
}

// ---- the verb

static const struct {
    const char *name;
    size_t runs;
    int (*run)(const struct ckpt_args *a, struct err *e);
} actions[] = {{"list", 1, run_list},   {"verify", 1, run_verify}, {"digest", 1, run_digest},
               {"diff", 2, run_diff},   {"export", 1, run_export}, {"remove", 1, run_remove},
               {"clean", 1, run_clean}, {"import", 2, run_import}};

int cmd_ckpt(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct ckpt_args a = {.step = -1, .store = {.path_style = true}};
    const struct opt table[] = {
        {"step", 0, OPT_INT, "N", "this step, not the newest (also RUN@N)", &a.step, 0, 999999999999},
        {"json", 0, OPT_FLAG, NULL, "list, verify, digest, diff: as JSON", &a.json, 0, 0},
        {"out", 0, OPT_TEXT, "FOLDER", "export: where to (export-STEP)", &a.out, 0, 0},
        {"names", 0, OPT_TEXT, "FILE", "import: JSON, {their name: our name, or null}", &a.names, 0, 0},
        {"force", 0, OPT_FLAG, NULL, "import: into a run that has checkpoints", &a.force, 0, 0},
        {"weights", 0, OPT_FLAG, NULL, "export: without the optimiser's state", &a.weights, 0, 0},
        {"prefix", 0, OPT_TEXT, "TEXT", "export: only tensors whose name starts so", &a.prefix, 0, 0},
        {"endpoint", 0, OPT_TEXT, "URL", "S3 endpoint (the run's, or AWS_ENDPOINT_URL)", &a.store.endpoint, 0,
         0},
        {"region", 0, OPT_TEXT, "NAME", "S3 region (the run's, or AWS_REGION)", &a.store.region, 0, 0},
    };
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 2, 3, &rest, e);
    if (rc || rest.help) return rc;
    a.n_runs = rest.n_words - 1;
    a.overrides = rest.overrides;
    a.n_overrides = rest.n_overrides;
    for (size_t i = 0; i < a.n_runs; i++) a.runs[i] = rest.words[i + 1];
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(rest.words[0], actions[i].name) != 0) continue;
        if (rest.n_overrides && actions[i].run != run_import)
            return err_set(e, ERR_USAGE, "'orrery ckpt %s' takes no key: unexpected '%s'", actions[i].name,
                           rest.overrides[0]);
        if (a.n_runs != actions[i].runs)
            return err_set(e, ERR_USAGE, "'orrery ckpt %s' takes %s", actions[i].name,
                           actions[i].runs == 1                 ? "one RUN"
                           : !strcmp(actions[i].name, "import") ? "two: CONFIG and FILE"
                                                                : "two: RUN and OTHER (RUN@STEP for a step)");
        return actions[i].run(&a, e);
    }
    return err_set(e, ERR_USAGE,
                   "'orrery ckpt %s'? Write: orrery ckpt list|verify|digest|diff|export|remove|clean RUN, or "
                   "import CONFIG FILE",
                   rest.words[0]);
}
