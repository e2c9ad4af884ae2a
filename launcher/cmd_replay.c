// SPDX-License-Identifier: Apache-2.0
// orrery replay RUN --step N: one step of a run again, from the checkpoint before it, on any number of ranks,
// and beside what the run wrote down at that step.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "launcher/job.h"
#include "launcher/load.h"
#include "launcher/metrics_read.h"
#include "launcher/opts.h"
#include "launcher/runstore.h"
#include "storage/ckpt.h"

#define CONFIG_BYTES  ((size_t)1 << 20)
#define RESULT_BYTES  ((size_t)64 << 20)
#define SAMPLES_SHOWN 64

struct replay {
    struct rundir run;
    int64_t step, ranks;
    bool json;
    const struct opts_rest *rest;
    int differing; // numbers that are not as recorded
};

// ---- the config that was in force: a checkpoint carries it; the run's own file tells of its last start only

static int saved_config(const struct replay *r, struct buf *out, struct err *e) {
    struct store *s = NULL;
    struct ckpt_entry *list = NULL;
    struct ckpt *c = NULL;
    struct store_options options = {.path_style = true};
    size_t n = 0, pick = SIZE_MAX;
    int rc = runstore_open(&s, r->run.path, &options, e);
    if (!rc) rc = ckpt_list(s, &list, &n, e);
    for (size_t i = 0; !rc && i < n; i++) // newest first: the last that fits is the nearest
        if (!list[i].broken && list[i].step >= r->step) pick = i;
    if (!rc && pick != SIZE_MAX) rc = ckpt_open(&c, s, list[pick].id, e);
    if (!rc && c) rc = buf_appends(out, ckpt_state_of(c)->config_yaml, e);
    ckpt_close(c);
    free(list);
    store_close(s);
    return rc;
}

static int find_config(const struct replay *r, char *path, size_t path_bytes, struct err *e) {
    char folder[RUNDIR_PATH_BYTES + 16];
    struct buf yaml;
    int rc = rundir_join(&r->run, "config.yaml", path, path_bytes, e);
    if (!rc && access(path, R_OK))
        rc =
            err_set(e, ERR_MISSING,
                    "%s has no config.yaml: it is no run folder, or nothing has run in it yet", r->run.given);
    buf_init(&yaml, CONFIG_BYTES);
    if (!rc) rc = saved_config(r, &yaml, e);
    if (!rc && yaml.len) {
        rc = rundir_make(&r->run, "replay", folder, sizeof folder, e);
        if (!rc) rc = rundir_join(&r->run, "replay/config.yaml", path, path_bytes, e);
        if (!rc) rc = bytes_write_file(path, yaml.data, yaml.len, e);
    }
    buf_fini(&yaml);
    return rc;
}

// No rehearsed fault strikes again unless it is asked for, and a NaN is looked at instead of ending it.
static int load(const struct replay *r, struct config_file **file, struct err *e) {
    char path[RUNDIR_PATH_BYTES + 32];
    struct strv overrides = {0};
    int rc = find_config(r, path, sizeof path, e);
    if (!rc) rc = strv_addf(&overrides, e, "run.dir=%s", r->run.path);
    if (!rc) rc = strv_add(&overrides, "fault.inject=", e);
    if (!rc) rc = strv_add(&overrides, "train.on_nan=skip", e);
    if (!rc) rc = strv_addf(&overrides, e, "replay.step=%" PRId64, r->step);
    for (size_t i = 0; i < r->rest->n_overrides && !rc; i++)
        rc = strv_add(&overrides, r->rest->overrides[i], e);
    if (!rc) rc = load_config(file, path, (const char *const *)overrides.items, overrides.n, e);
    strv_fini(&overrides);
    return rc;
}

static int run_task(struct replay *r, struct err *e) {
    struct config_file *file = NULL;
    static const char *const force[] = {"--force"}; // the run may have gone on so, behind the checkpoint
    struct rundir_record record;
    struct err none = {0};
    struct log log;
    log_init(&log, STDERR_FILENO, LOG_INFO, NULL);
    int rc = load(r, &file, e);
    if (rc) return rc;
    if (r->step > config_values(file)->train_steps) {
        rc = err_set(e, ERR_USAGE, "%s has steps 1 to %" PRId64 " (train.steps), not %" PRId64, r->run.given,
                     config_values(file)->train_steps, r->step);
        config_close(file);
        return rc;
    }
    if (!r->ranks && !rundir_read_record(&r->run, &record, &none)) r->ranks = record.ranks;
    struct job_request request = {.config = file,
                                  .task = "replay",
                                  .run = &r->run,
                                  .ranks = job_ranks(config_values(file), r->ranks),
                                  .resume_step = -1,
                                  .args = force,
                                  .n_args = 1};
    log_info(&log, "replay %s step %" PRId64 " on %" PRId64 " rank%s", r->run.given, r->step, request.ranks,
             request.ranks == 1 ? "" : "s");
    rc = job_run(&request, &log, e);
    config_close(file);
    return rc;
}

// ---- what it saw

// "as recorded", "recorded: 0.25", "not recorded"; NaN equals NaN here, which JSON has as null.
static const char *beside(struct replay *r, bool has, double now, bool was_recorded, double then, char *out,
                          size_t n) {
    bool same = was_recorded && (has ? now == then : isnan(then));
    if (was_recorded && !same) r->differing++;
    if (!was_recorded)
        snprintf(out, n, "not recorded");
    else if (same)
        snprintf(out, n, "as recorded");
    else
        snprintf(out, n, "DIFFERS: recorded was %.17g", then);
    return out;
}

static void print_number(struct replay *r, const char *name, const struct json_value *value,
                         const struct metrics_row *row, const char *key) {
    char text[BYTES_F64_BYTES], verdict[64];
    double now = NAN, then = NAN;
    bool has = json_as_double(value, &now), recorded = row && metrics_row_get(row, key, &then);
    printf("  %-16s %-24s %s\n", name, has ? bytes_format_f64(now, text) : "not finite",
           beside(r, has, now, recorded, then, verdict, sizeof verdict));
}

static void print_numbers(struct replay *r, const struct json_value *o, const struct metrics_row *row) {
    const struct json_value *losses = json_get(o, "losses"), *value;
    const char *name = NULL;
    print_number(r, "loss", json_get(o, "loss"), row, "loss");
    while (json_next(losses, &name, &value)) {
        char key[METRICS_NAME_BYTES], label[64];
        snprintf(key, sizeof key, "losses.%s", name);
        snprintf(label, sizeof label, "loss of %.40s", name);
        print_number(r, label, value, row, key);
    }
    print_number(r, "grad norm", json_get(o, "grad_norm"), row, "grad_norm");
    print_number(r, "learning rate", json_get(o, "lr"), row, "lr");
}

static void print_weights(struct replay *r, const struct json_value *o) {
    const struct json_value *saved = json_get(o, "checkpoint");
    bool equal = json_bool_or(saved, "equal", false);
    printf("  %-16s SHA-256 %.16s...", "weights after it", json_string_or(o, "weights_sha256", ""));
    if (!json_is_object(saved)) {
        printf("  no checkpoint of this step to compare with\n");
        return;
    }
    if (!equal) r->differing++;
    if (equal)
        printf("  equal to checkpoint %s, bit for bit\n", json_string_or(saved, "id", ""));
    else
        printf("  DIFFER from checkpoint %s: %" PRId64 " tensors, first %s\n",
               json_string_or(saved, "id", ""), json_int_or(saved, "differing", 0),
               json_string_or(saved, "first", ""));
}

static void print_shards(const struct json_value *o) {
    const struct json_value *shards = json_get(o, "shards");
    printf("logical shards (what each adds to the mean loss of a sense):\n");
    for (size_t i = 0; i < json_size(shards); i++) {
        const struct json_value *s = json_at(shards, i), *losses = json_get(s, "losses"), *value;
        const char *name = NULL;
        int64_t first = json_int_or(s, "first_sample", 0);
        printf("  shard %" PRId64 " (rank %" PRId64 ", samples %" PRId64 "-%" PRId64 "):",
               json_int_or(s, "shard", 0), json_int_or(s, "rank", 0), first,
               first + json_int_or(s, "samples", 0) - 1);
        while (json_next(losses, &name, &value)) {
            double v = NAN;
            if (json_as_double(value, &v))
                printf(" %s %.6g", name, v);
            else
                printf(" %s NOT FINITE", name);
        }
        printf("\n");
    }
}

static void print_samples(const struct json_value *o) {
    const struct json_value *samples = json_get(o, "samples");
    size_t n = json_size(samples);
    printf("samples %" PRId64 "-%" PRId64 ":\n", json_int_or(o, "first_sample", 0),
           json_int_or(o, "last_sample", 0));
    for (size_t i = 0; i < n && i < SAMPLES_SHOWN; i++) {
        const struct json_value *s = json_at(samples, i);
        printf("  %" PRId64 ": %s row %" PRId64 " (episode %" PRId64 "), from frame %" PRId64 "\n",
               json_int_or(s, "sample", 0), json_string_or(s, "file", ""), json_int_or(s, "row", 0),
               json_int_or(s, "episode", 0), json_int_or(s, "first_frame", 0));
    }
    if (n > SAMPLES_SHOWN)
        printf("  ... all of them: replay/step-%" PRId64 ".json\n", json_int_or(o, "step", 0));
}

static int print_result(struct replay *r, const struct buf *text, struct err *e) {
    struct json *doc = NULL;
    struct metrics_table table = {0};
    int rc = json_parse(&doc, text->data, text->len, "the result of the replay", e);
    if (!rc) rc = metrics_read(&table, r->run.path, e);
    if (!rc) {
        const struct json_value *o = json_root(doc);
        printf("%s step %" PRId64 ", from step %" PRId64 ", on %" PRId64 " ranks\n", r->run.given, r->step,
               json_int_or(o, "from_step", 0), json_int_or(o, "ranks", 0));
        print_numbers(r, o, metrics_find(&table, r->step));
        print_weights(r, o);
        print_shards(o);
        print_samples(o);
    }
    metrics_table_fini(&table);
    json_destroy(doc);
    return rc;
}

static int show(struct replay *r, struct err *e) {
    char name[64], path[RUNDIR_PATH_BYTES + 64];
    struct buf text;
    snprintf(name, sizeof name, "replay/step-%" PRId64 ".json", r->step);
    buf_init(&text, RESULT_BYTES);
    int rc = rundir_join(&r->run, name, path, sizeof path, e);
    if (!rc) rc = bytes_read_file(path, RESULT_BYTES, &text, e);
    if (!rc && r->json)
        printf("%s\n", text.data);
    else if (!rc)
        rc = print_result(r, &text, e);
    buf_fini(&text);
    if (!rc && r->differing)
        rc = err_set(
            e, ERR_DATA,
            "%d of these are not as the run wrote them; other hardware, another version or changed data "
            "does that, and comm.reduce=fast",
            r->differing);
    return rc;
}

int cmd_replay(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct replay r = {.run = {.lock_fd = -1}};
    const struct opt table[] = {
        {"step", 0, OPT_INT, "N", "the step, counted as in metrics.jsonl", &r.step, 1, 1000000000},
        {"ranks", 'n', OPT_INT, "N", "ranks (default: as many as the run had)", &r.ranks, 1, 4096},
        {"json", 0, OPT_FLAG, NULL, "as JSON, without the comparison", &r.json, 0, 0},
    };
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    if (!r.step) return err_set(e, ERR_USAGE, "which step? orrery replay %s --step N", rest.words[0]);
    r.rest = &rest;
    rc = rundir_open(&r.run, rest.words[0], false, e);
    if (!rc) rc = run_task(&r, e);
    if (!rc) rc = show(&r, e);
    rundir_close(&r.run);
    return rc;
}
