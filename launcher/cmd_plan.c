// SPDX-License-Identifier: Apache-2.0
// orrery plan: asks orrery-rank's task plan (one process, no GPU, no data) and prints its JSON for people.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "launcher/job.h"
#include "launcher/load.h"
#include "launcher/opts.h"
#include "launcher/proc.h"
#include "launcher/strv.h"

#define PLAN_MS    30000
#define PLAN_BYTES (4 << 20)
#define DEPTH_MAX  8

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static void print_bytes(double bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int u = 0;
    for (; bytes >= 1024 && u < 5; u++) bytes /= 1024;
    printf(u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
}

static void print_scalar(const struct json_value *v, bool bytes) {
    const char *text;
    int64_t whole;
    double real;
    bool truth;
    if (json_as_int(v, &whole) && bytes)
        print_bytes((double)whole);
    else if (json_as_int(v, &whole))
        printf("%" PRId64, whole);
    else if (json_as_double(v, &real))
        printf("%.6g", real);
    else if (json_as_string(v, &text))
        printf("%s", text);
    else
        printf("%s", json_as_bool(v, &truth) ? (truth ? "yes" : "no") : "-");
}

// An object of scalars on one line: "rank 0  weights 278.6 KiB  ...".
static void print_row(const struct json_value *v, bool bytes) {
    printf(" ");
    for (size_t i = 0; i < json_size(v); i++) {
        const char *key;
        const struct json_value *member;
        if (!json_member(v, i, &key, &member)) continue;
        printf(" %s ", key);
        print_scalar(member, (bytes && strcmp(key, "rank") != 0) || ends_with(key, "bytes"));
        printf(i + 1 < json_size(v) ? "," : "\n");
    }
}

static void print_members(const struct json_value *v, int depth);

static void print_value(const char *key, const struct json_value *v, int depth) {
    if (depth > DEPTH_MAX) return;
    if (json_is_array(v)) {
        printf("%*s%s\n", 2 * depth, "", key);
        for (size_t i = 0; i < json_size(v); i++) print_row(json_at(v, i), !strcmp(key, "memory"));
    } else if (json_is_object(v)) {
        printf("%*s%s\n", 2 * depth, "", key);
        print_members(v, depth + 1);
    } else {
        int width = 30 - 2 * depth;
        printf("%*s%-*s ", 2 * depth, "", width > 1 ? width : 1, key);
        print_scalar(v, ends_with(key, "bytes"));
        printf("\n");
    }
}

static void print_members(const struct json_value *v, int depth) {
    for (size_t i = 0; i < json_size(v); i++) {
        const char *key;
        const struct json_value *member;
        if (json_member(v, i, &key, &member)) print_value(key, member, depth);
    }
}

static int print_plan(const struct buf *out, bool as_json, struct err *e) {
    struct json *doc = NULL;
    int rc = json_parse(&doc, out->data ? out->data : "", out->len, "the plan of orrery-rank", e);
    if (!rc && as_json) fwrite(out->data, 1, out->len, stdout);
    if (!rc && !as_json) print_members(json_root(doc), 0);
    json_destroy(doc);
    return rc;
}

// What the failed task said last, as our own error.
static int pass_failure(const struct buf *err_text, int status, struct err *e) {
    enum err_code code = err_from_exit_code(status);
    const char *text = err_text->data ? err_text->data : "";
    size_t n = strlen(text);
    while (n && text[n - 1] == '\n') n--;
    size_t begin = n;
    while (begin && text[begin - 1] != '\n') begin--;
    return err_set(e, code ? code : ERR_BUG, "orrery-rank (exit code %d): %.*s", status, (int)(n - begin),
                   text + begin);
}

static int ask_rank(const struct strv *argv, bool as_json, struct err *e) {
    struct buf out, err_text;
    int status = 0;
    buf_init(&out, PLAN_BYTES);
    buf_init(&err_text, PLAN_BYTES);
    int rc = proc_capture(argv->items, PLAN_MS, &out, &err_text, &status, e);
    if (!rc && status) rc = pass_failure(&err_text, status, e);
    if (!rc) rc = print_plan(&out, as_json, e);
    buf_fini(&out);
    buf_fini(&err_text);
    return rc;
}

int cmd_plan(const struct cmd *self, int argc, char **argv, struct err *e) {
    bool as_json = false;
    int64_t ranks = 0;
    char program[4096];
    const struct opt table[] = {
        {"ranks", 'n', OPT_INT, "N", "ranks to plan for (default: as run would start)", &ranks, 1, 1048576},
        {"json", 0, OPT_FLAG, NULL, "as JSON", &as_json, 0, 0},
    };
    struct opts_rest rest;
    struct strv command = {0};
    struct config_file *file = NULL;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    rc = load_config(&file, rest.words[0], rest.overrides, rest.n_overrides, e);
    if (!rc) ranks = job_ranks(config_values(file), ranks);
    config_close(file);
    if (!rc) rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, e);
    const char *const head[] = {program, "--config", rest.words[0], "--task", "plan"};
    if (!rc) rc = strv_add_all(&command, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_add_all(&command, rest.overrides, rest.n_overrides, e);
    if (!rc) rc = strv_addf(&command, e, "launch.ranks=%lld", (long long)ranks);
    if (!rc) rc = ask_rank(&command, as_json, e);
    strv_fini(&command);
    return rc;
}
