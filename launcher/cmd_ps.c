// SPDX-License-Identifier: Apache-2.0
// orrery ps: the jobs of this user on this host, from their private folders.
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "launcher/boxdir.h"
#include "launcher/opts.h"

#define JOB_BYTES 65536

struct listing {
    bool as_json;
    int shown;
    struct json_writer json;
    struct buf text;
};

// For a terminal.
static void take_text(const struct json_value *o, const char *key, char *out, size_t out_bytes) {
    snprintf(out, out_bytes, "%s", json_string_or(o, key, "?"));
    bytes_defuse(out);
}

static void show_job(struct listing *l, const struct json_value *o) {
    if (l->as_json) {
        json_put_object(&l->json, NULL);
        json_put_int(&l->json, "pid", json_int_or(o, "pid", 0));
        json_put_string(&l->json, "task", json_string_or(o, "task", "?"));
        json_put_int(&l->json, "ranks", json_int_or(o, "ranks", 0));
        json_put_string(&l->json, "started", json_string_or(o, "started", "?"));
        json_put_string(&l->json, "run", json_string_or(o, "run", "?"));
        json_close(&l->json, '}');
        return;
    }
    char task[32], started[32], run[4096];
    take_text(o, "task", task, sizeof task);
    take_text(o, "started", started, sizeof started);
    take_text(o, "run", run, sizeof run);
    if (!l->shown++) printf("%8s  %-10s %5s  %-24s  %s\n", "PID", "TASK", "RANKS", "STARTED", "RUN");
    printf("%8lld  %-10s %5lld  %-24s  %s\n", (long long)json_int_or(o, "pid", 0), task,
           (long long)json_int_or(o, "ranks", 0), started, run);
}

static void show_folder(void *arg, const char *path, bool alive) {
    char name[BOXDIR_PATH_BYTES + 16];
    struct buf text;
    struct json *doc = NULL;
    struct err ignored = {0};
    if (!alive) return;
    snprintf(name, sizeof name, "%s/job.json", path);
    buf_init(&text, JOB_BYTES);
    if (!bytes_read_file(name, JOB_BYTES, &text, &ignored) &&
        !json_parse(&doc, text.data, text.len, name, &ignored))
        show_job(arg, json_root(doc));
    json_destroy(doc);
    buf_fini(&text);
}

int cmd_ps(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct listing l = {0};
    const struct opt table[] = {{"json", 0, OPT_FLAG, NULL, "as JSON", &l.as_json, 0, 0}};
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 0, 0, &rest, e);
    if (rc || rest.help) return rc;
    buf_init(&l.text, 4 << 20);
    json_begin(&l.json, &l.text);
    json_put_array(&l.json, NULL);
    rc = boxdir_each(show_folder, &l, e);
    json_close(&l.json, ']');
    if (!rc) rc = json_end(&l.json, e);
    if (!rc && l.as_json) printf("%s\n", l.text.data);
    if (!rc && !l.as_json && !l.shown) fprintf(stderr, "no job of yours runs on this machine\n");
    buf_fini(&l.text);
    return rc;
}
