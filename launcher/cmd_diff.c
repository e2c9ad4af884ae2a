// SPDX-License-Identifier: Apache-2.0
// orrery diff RUN_A RUN_B: the first step, sense, tensor and rank where two runs part. Metrics first, since
// they are closest together, then the checkpoints that both have.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/json.h"
#include "launcher/ckpt_tools.h"
#include "launcher/metrics_read.h"
#include "launcher/opts.h"
#include "launcher/rundir.h"
#include "launcher/runstore.h"

#define TENSORS_SHOWN 8
#define JSON_BYTES    ((size_t)64 << 20)

struct side {
    struct rundir run;
    struct config_file *file; // NULL: it has no config.yaml
    struct metrics_table metrics;
    struct store *store;
    struct ckpt_entry *saves; // newest first
    size_t n_saves;
};

struct diff {
    struct side a, b;
    bool as_json;
    struct json_writer w;
    struct buf text;
    // what was found
    int64_t same_metrics, same_saves;        // how many common steps agree before they part
    int64_t last_same;                       // newest step that is known to agree, -1 none
    const struct metrics_row *row_a, *row_b; // where the metrics part; NULL: they do not
    int64_t save_step;                       // where the checkpoints part, -1: they do not
    int64_t tensors;                         // that differ there
    bool samples_part;                       // the order of samples is another
    int config_keys;
};

// ---- opening

static int open_config(struct side *s, struct err *e) {
    char path[RUNDIR_PATH_BYTES + 16];
    int rc = rundir_join(&s->run, "config.yaml", path, sizeof path, e);
    if (rc || access(path, F_OK)) return rc;
    return config_load(&s->file, path, NULL, 0, e);
}

static int open_side(struct side *s, const char *name, struct err *e) {
    struct store_options options = {.path_style = true};
    int rc = rundir_open(&s->run, name, false, e);
    if (!rc) rc = open_config(s, e);
    if (!rc) rc = metrics_read(&s->metrics, s->run.path, e);
    if (!rc) rc = runstore_open(&s->store, s->run.path, &options, e);
    if (!rc) rc = ckpt_list(s->store, &s->saves, &s->n_saves, e);
    if (!rc && s->metrics.unread)
        fprintf(stderr, "orrery: warning: %s/metrics.jsonl: %zu lines are no metrics and are passed over\n",
                s->run.given, s->metrics.unread);
    if (!rc && !s->metrics.n && !s->n_saves)
        rc = err_set(e, ERR_MISSING, "%s has neither metrics nor checkpoints: nothing to compare",
                     s->run.given);
    return rc;
}

static void close_side(struct side *s) {
    free(s->saves);
    store_close(s->store);
    metrics_table_fini(&s->metrics);
    config_close(s->file);
    rundir_close(&s->run);
}

// ---- the config

static void tell_key(void *arg, const char *key, const char *was, const char *now,
                     enum config_change change) {
    struct diff *d = arg;
    if (change == CHANGE_FREE) return;
    d->config_keys++;
    if (!d->as_json) {
        printf("config       %s: %s / %s\n", key, was, now);
        return;
    }
    json_put_object(&d->w, NULL);
    json_put_string(&d->w, "key", key);
    json_put_string(&d->w, "a", was);
    json_put_string(&d->w, "b", now);
    json_close(&d->w, '}');
}

static void compare_configs(struct diff *d) {
    if (d->as_json) json_put_array(&d->w, "config");
    if (d->a.file && d->b.file) config_diff(config_values(d->a.file), config_values(d->b.file), tell_key, d);
    if (d->as_json) json_close(&d->w, ']');
}

// ---- metrics

static bool same_number(double x, double y) {
    return x == y || (isnan(x) && isnan(y));
}

static bool same_row(const struct metrics_row *x, const struct metrics_row *y) {
    bool same = x->n == y->n;
    for (int i = 0; same && i < x->n; i++) {
        double other;
        same = metrics_row_get(y, x->values[i].name, &other) && same_number(x->values[i].value, other);
    }
    return same;
}

static void compare_metrics(struct diff *d) {
    for (size_t i = 0; i < d->a.metrics.n && !d->row_a; i++) {
        const struct metrics_row *x = &d->a.metrics.rows[i], *y = metrics_find(&d->b.metrics, x->step);
        if (!y) continue;
        if (same_row(x, y)) {
            d->same_metrics++;
            d->last_same = x->step;
        } else {
            d->row_a = x;
            d->row_b = y;
        }
    }
}

static void show_value(struct diff *d, const char *name, double x, double y) {
    char a[BYTES_F64_BYTES], b[BYTES_F64_BYTES];
    if (!d->as_json) {
        printf("             %-20s %s / %s\n", name, bytes_format_f64(x, a), bytes_format_f64(y, b));
        return;
    }
    json_put_object(&d->w, NULL);
    json_put_string(&d->w, "name", name);
    json_put_double(&d->w, "a", x);
    json_put_double(&d->w, "b", y);
    json_close(&d->w, '}');
}

static void show_values(struct diff *d) {
    for (int i = 0; i < d->row_a->n; i++) {
        const struct metrics_value *v = &d->row_a->values[i];
        double other = NAN;
        metrics_row_get(d->row_b, v->name, &other);
        if (!same_number(v->value, other)) show_value(d, v->name, v->value, other);
    }
}

static void show_metrics(struct diff *d) {
    if (d->as_json) {
        json_put_int(&d->w, "metrics_equal", d->same_metrics);
        json_put_int(&d->w, "metrics_part_at", d->row_a ? d->row_a->step : -1);
        json_put_array(&d->w, "metrics");
        if (d->row_a) show_values(d);
        json_close(&d->w, ']');
        return;
    }
    printf("metrics      %" PRId64 " common steps agree", d->same_metrics);
    if (d->same_metrics) printf(", the last is %" PRId64, d->last_same);
    printf(d->row_a ? "; the first that differs is step %" PRId64 ":\n" : "\n",
           d->row_a ? d->row_a->step : 0);
    if (d->row_a) show_values(d);
}

// ---- checkpoints

static void show_tensor(void *arg, const struct tensor_diff *t) {
    struct diff *d = arg;
    d->tensors++;
    if (d->as_json) {
        json_put_object(&d->w, NULL);
        json_put_string(&d->w, "name", t->name);
        if (t->why) json_put_string(&d->w, "why", t->why);
        json_put_string(&d->w, "file", t->where);
        json_put_int(&d->w, "differing", t->differing);
        json_put_int(&d->w, "elems", t->elems);
        json_put_double(&d->w, "largest", t->largest);
        json_close(&d->w, '}');
    } else if (d->tensors <= TENSORS_SHOWN && t->why) {
        printf("             %s (%s): %s\n", t->name, t->where, t->why);
    } else if (d->tensors <= TENSORS_SHOWN) {
        printf("             %s (%s): %" PRId64 " of %" PRId64 " numbers, by up to %g\n", t->name, t->where,
               t->differing, t->elems, t->largest);
    }
}

static void ignore_tensor(void *arg, const struct tensor_diff *t) {
    *(int64_t *)arg += t != NULL;
}

// One pair; when it differs and `show` is set, its tensors are told.
static int compare_pair(struct diff *d, const char *id_a, const char *id_b, bool show, int64_t *differing,
                        struct err *e) {
    struct ckpt *x = NULL, *y = NULL;
    int rc = ckpt_open(&x, d->a.store, id_a, e);
    if (!rc) rc = ckpt_open(&y, d->b.store, id_b, e);
    if (!rc && show) rc = ckpt_tools_compare(x, y, show_tensor, d, e);
    if (!rc && !show) rc = ckpt_tools_compare(x, y, ignore_tensor, differing, e);
    if (!rc && strcmp(ckpt_state_of(x)->sample_sha256, ckpt_state_of(y)->sample_sha256) != 0)
        d->samples_part = true;
    ckpt_close(x);
    ckpt_close(y);
    return rc;
}

static const struct ckpt_entry *find_save(const struct side *s, int64_t step) {
    for (size_t i = 0; i < s->n_saves; i++)
        if (s->saves[i].step == step && !s->saves[i].broken) return &s->saves[i];
    return NULL;
}

static void show_saves_head(const struct diff *d) {
    if (d->as_json) return;
    printf("checkpoints  %" PRId64 " common steps agree bit for bit", d->same_saves);
    printf(d->save_step >= 0 ? "; the first that differs is step %" PRId64 ":\n" : "\n", d->save_step);
}

static int compare_saves(struct diff *d, struct err *e) {
    const struct ckpt_entry *x = NULL, *y = NULL;
    int rc = 0;
    for (size_t i = d->a.n_saves; i-- > 0 && !rc && d->save_step < 0;) {
        int64_t differing = 0;
        x = &d->a.saves[i];
        y = x->broken ? NULL : find_save(&d->b, x->step);
        if (!y) continue;
        rc = compare_pair(d, x->id, y->id, false, &differing, e);
        if (rc) break;
        if (differing || d->samples_part) {
            d->save_step = x->step;
        } else {
            d->same_saves++;
            bool later = x->step > d->last_same && (!d->row_a || x->step < d->row_a->step);
            if (later) d->last_same = x->step;
        }
    }
    if (!rc) show_saves_head(d);
    if (d->as_json) {
        json_put_int(&d->w, "checkpoints_equal", d->same_saves);
        json_put_int(&d->w, "checkpoints_part_at", d->save_step);
        json_put_array(&d->w, "tensors");
    }
    if (!rc && d->save_step >= 0) rc = compare_pair(d, x->id, y->id, true, NULL, e);
    if (d->as_json) json_close(&d->w, ']');
    if (!d->as_json && d->tensors > TENSORS_SHOWN)
        printf("             ... %" PRId64 " tensors in all; the rest: orrery ckpt diff %s@%" PRId64
               " %s@%" PRId64 "\n",
               d->tensors, d->a.run.given, d->save_step, d->b.run.given, d->save_step);
    return rc;
}

// ---- the answer

static int64_t part_step(const struct diff *d) {
    int64_t step = d->row_a ? d->row_a->step : -1;
    return d->save_step >= 0 && (step < 0 || d->save_step < step) ? d->save_step : step;
}

static void conclude(struct diff *d) {
    int64_t step = part_step(d);
    bool common = d->same_metrics || d->same_saves || step >= 0;
    if (d->as_json) {
        json_put_bool(&d->w, "samples_part", d->samples_part);
        json_put_int(&d->w, "last_equal_step", d->last_same);
        json_put_int(&d->w, "first_different_step", step);
        return;
    }
    if (d->samples_part) printf("samples      the two saw different ones, or in another order\n");
    if (!common) {
        printf("answer       no step in common: they cannot be compared\n");
        return;
    }
    if (step < 0) {
        printf("answer       the same in all that both have\n");
        return;
    }
    printf("answer       they part after step %" PRId64 " and by step %" PRId64,
           d->last_same < 0 ? 0 : d->last_same, step);
    printf("; look closer: orrery replay %s --step %" PRId64 ", and the same for %s\n", d->a.run.given,
           d->last_same < 0 ? 1 : d->last_same + 1, d->b.run.given);
}

static int compare(struct diff *d, struct err *e) {
    buf_init(&d->text, JSON_BYTES);
    json_begin(&d->w, &d->text);
    json_put_object(&d->w, NULL);
    compare_configs(d);
    compare_metrics(d);
    show_metrics(d);
    int rc = compare_saves(d, e);
    if (!rc) conclude(d);
    json_close(&d->w, '}');
    int ended = json_end(&d->w, e);
    if (!rc) rc = ended;
    if (!rc && d->as_json) printf("%s\n", d->text.data);
    buf_fini(&d->text);
    return rc ? rc : part_step(d) >= 0;
}

int cmd_diff(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct diff d = {.a.run.lock_fd = -1, .b.run.lock_fd = -1, .last_same = -1, .save_step = -1};
    const struct opt table[] = {{"json", 0, OPT_FLAG, NULL, "as JSON", &d.as_json, 0, 0}};
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 2, 2, &rest, e);
    if (rc || rest.help) return rc;
    rc = open_side(&d.a, rest.words[0], e);
    if (!rc) rc = open_side(&d.b, rest.words[1], e);
    if (!rc) rc = compare(&d, e);
    close_side(&d.a);
    close_side(&d.b);
    return rc;
}
