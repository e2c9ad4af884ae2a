// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "launcher/report.h"

#define FILE_MAX       ((size_t)256 << 20)
#define PATH_MAX_BYTES 4096

// A file that is not there leaves `out` empty.
static int read_part(const char *run_dir, const char *name, struct buf *out, struct err *e) {
    char path[PATH_MAX_BYTES];
    struct err own = {0};
    buf_init(out, FILE_MAX);
    if (snprintf(path, sizeof path, "%s/%s", run_dir, name) >= (int)sizeof path)
        return err_set(e, ERR_USAGE, "the run folder's path is too long");
    int rc = bytes_read_file(path, FILE_MAX, out, &own);
    if (!rc || own.code == ERR_MISSING) return 0;
    *e = own;
    return rc;
}

static int read_json(const char *run_dir, const char *name, struct json **out, struct err *e) {
    char path[PATH_MAX_BYTES];
    struct buf text;
    *out = NULL;
    int rc = read_part(run_dir, name, &text, e);
    snprintf(path, sizeof path, "%s/%s", run_dir, name);
    if (!rc && text.len) rc = json_parse(out, text.data, text.len, path, e);
    buf_fini(&text);
    return rc;
}

// Calls `each` for every whole line that is JSON; a torn last line (the run may be writing) is passed over.
typedef int line_fn(void *arg, struct json *line, struct err *e);
static int for_lines(const struct buf *text, const char *name, line_fn *each, void *arg, struct err *e) {
    size_t at = 0;
    int rc = 0;
    while (at < text->len && !rc) {
        const char *end = memchr(text->data + at, '\n', text->len - at);
        size_t n = end ? (size_t)(end - text->data) - at : text->len - at;
        struct json *line = NULL;
        struct err own = {0};
        if (n && end && !json_parse(&line, text->data + at, n, name, &own)) rc = each(arg, line, e);
        at += n + 1;
    }
    return rc;
}

// ---- metrics.jsonl
static struct report_series *loss_of(struct report_curves *c, const char *name, size_t n) {
    for (size_t i = 0; i < c->n_loss; i++)
        if (strlen(c->loss[i].name) == n && !memcmp(c->loss[i].name, name, n)) return &c->loss[i];
    if (c->n_loss == REPORT_MODALITIES || n == 0 || n >= sizeof c->loss[0].name) return NULL;
    struct report_series *s = &c->loss[c->n_loss];
    memcpy(s->name, name, n);
    s->colour = (int)c->n_loss++;
    return s;
}

static int add_loss(struct report_curves *c, const char *name, double step, double value, struct err *e) {
    struct report_series *s = loss_of(c, name, strlen(name));
    return s ? report_series_add(s, step, value, e) : 0;
}

static int add_losses(struct report_curves *c, const struct json_value *object, double step, struct err *e) {
    const char *key;
    const struct json_value *v;
    double value;
    int rc = 0;
    for (size_t i = 0; json_member(object, i, &key, &v) && !rc; i++)
        if (json_as_double(v, &value)) rc = add_loss(c, key, step, value, e);
    return rc;
}

static int add_number(struct report_series *s, const struct json_value *line, const char *key, double step,
                      struct err *e) {
    double value;
    return json_as_double(json_get(line, key), &value) ? report_series_add(s, step, value, e) : 0;
}

static int take_metrics(void *arg, struct json *doc, struct err *e) {
    struct report_curves *c = arg;
    const struct json_value *line = json_root(doc);
    double step, loss;
    int rc = 0;
    if (json_as_double(json_get(line, "step"), &step)) {
        if (json_as_double(json_get(line, "loss"), &loss)) rc = add_loss(c, "all", step, loss, e);
        if (!rc) rc = add_losses(c, json_get(line, "losses"), step, e);
        if (!rc) rc = add_number(&c->lr, line, "lr", step, e);
        if (!rc) rc = add_number(&c->speed, line, "samples_per_s", step, e);
        if (!rc) rc = add_number(&c->grad_norm, line, "grad_norm", step, e);
        if (!rc) rc = add_number(&c->wait, line, "data_wait", step, e);
    }
    json_destroy(doc);
    return rc;
}

static int read_metrics(const char *run_dir, struct report_curves *c, struct err *e) {
    struct buf text;
    snprintf(c->lr.name, sizeof c->lr.name, "learning rate");
    snprintf(c->speed.name, sizeof c->speed.name, "sequences per second");
    snprintf(c->grad_norm.name, sizeof c->grad_norm.name, "gradient norm");
    snprintf(c->wait.name, sizeof c->wait.name, "share of time waiting for data");
    int rc = read_part(run_dir, "metrics.jsonl", &text, e);
    if (!rc) rc = for_lines(&text, "metrics.jsonl", take_metrics, c, e);
    buf_fini(&text);
    return rc;
}

// ---- events.jsonl: the last account.
static int take_event(void *arg, struct json *doc, struct err *e) {
    struct json **ledger = arg;
    (void)e;
    if (!strcmp(json_string_or(json_root(doc), "event", ""), "ledger")) {
        json_destroy(*ledger);
        *ledger = doc;
    } else {
        json_destroy(doc);
    }
    return 0;
}

static int read_events(const char *run_dir, struct json **ledger, struct err *e) {
    struct buf text;
    int rc = read_part(run_dir, "events.jsonl", &text, e);
    if (!rc) rc = for_lines(&text, "events.jsonl", take_event, ledger, e);
    buf_fini(&text);
    return rc;
}

int report_read(struct report_input *in, const char *run_dir, struct err *e) {
    *in = (struct report_input){.run_dir = run_dir};
    int rc = read_json(run_dir, "eval.json", &in->eval, e);
    if (!rc) rc = read_json(run_dir, "run.json", &in->run, e);
    if (!rc) rc = read_metrics(run_dir, &in->curves, e);
    if (!rc) rc = read_events(run_dir, &in->ledger, e);
    if (!rc) rc = read_part(run_dir, "rollouts/strip.png", &in->strip, e);
    if (!rc) rc = read_part(run_dir, "rollouts/rollout.gif", &in->gif, e);
    if (!rc) rc = read_part(run_dir, "config.yaml", &in->config, e);
    if (rc) report_input_fini(in);
    return rc;
}

void report_input_fini(struct report_input *in) {
    json_destroy(in->eval);
    json_destroy(in->run);
    json_destroy(in->ledger);
    for (size_t i = 0; i < REPORT_MODALITIES; i++) report_series_fini(&in->curves.loss[i]);
    report_series_fini(&in->curves.lr);
    report_series_fini(&in->curves.speed);
    report_series_fini(&in->curves.grad_norm);
    report_series_fini(&in->curves.wait);
    buf_fini(&in->strip);
    buf_fini(&in->gif);
    buf_fini(&in->config);
    in->eval = in->run = in->ledger = NULL;
}
