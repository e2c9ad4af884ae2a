// SPDX-License-Identifier: Apache-2.0
// orrery plan: asks orrery-rank's task plan (one process, no GPU, no peers), and adds what the launcher
// knows: the command that would be started, and an estimate for a GPU of a table.
#include <string.h>

#include "base/json.h"
#include "launcher/job.h"
#include "launcher/load.h"
#include "launcher/opts.h"
#include "launcher/plan_show.h"
#include "launcher/proc.h"
#include "launcher/strv.h"

#define PLAN_MS    30000
#define PLAN_BYTES (4 << 20)
// What the failed task said last, as our own error.
static int pass_failure(const struct buf *err_text, int status, struct err *e) {
    enum err_code code = err_from_exit_code(status);
    const char *text = err_text->data ? err_text->data : "";
    size_t n = strlen(text);
    while (n && text[n - 1] == '\n') n--;
    size_t begin = n;
    while (begin && text[begin - 1] != '\n') begin--;
    if (n - begin > 7 && !strncmp(text + begin, "error: ", 7)) begin += 7;
    if (n == begin)
        return err_set(e, code ? code : ERR_BUG, "orrery-rank ended with exit code %d and no word", status);
    return err_set(e, code ? code : ERR_BUG, "%.*s", (int)(n - begin), text + begin);
}

static int ask_rank(const struct strv *argv, struct buf *out, struct err *e) {
    struct buf err_text;
    int status = 0;
    buf_init(&err_text, PLAN_BYTES);
    int rc = proc_capture(argv->items, PLAN_MS, out, &err_text, &status, e);
    if (!rc && status) rc = pass_failure(&err_text, status, e);
    buf_fini(&err_text);
    return rc;
}

struct plan_words {
    bool as_json;
    int64_t ranks;
    const char *gpu;
};

static int find_gpu(const char *name, const struct estimate_gpu **out, struct err *e) {
    char names[256];
    *out = name ? estimate_find(name) : NULL;
    if (!name || *out) return 0;
    estimate_names(names, sizeof names);
    return err_set(e, ERR_USAGE, "--gpu %s: no such row in the table; one of %s", name, names);
}

static int show(const struct plan_words *words, const struct config_file *file, const struct opts_rest *rest,
                const struct buf *text, struct err *e) {
    struct json *doc = NULL;
    struct strv command = {0};
    struct err cannot = {0};
    struct plan_show s = {.config_path = rest->words[0],
                          .overrides = rest->overrides,
                          .n_overrides = rest->n_overrides,
                          .command = &command,
                          .precision = (enum estimate_precision)config_values(file)->cuda_precision};
    int rc = find_gpu(words->gpu, &s.gpu, e);
    if (!rc) rc = json_parse(&doc, text->data ? text->data : "", text->len, "the plan of orrery-rank", e);
    if (!rc && job_line(file, words->ranks, &command, &s.threads, &cannot)) s.warning = cannot.text;
    if (!s.warning) s.warning = "";
    s.plan = json_root(doc);
    if (!rc) rc = plan_show_refusal(&s, e);
    if (!rc) rc = words->as_json ? plan_show_json(&s, e) : plan_show_people(&s, e);
    json_destroy(doc);
    strv_fini(&command);
    return rc;
}

static int plan(struct plan_words *words, const struct opts_rest *rest, const struct config_file *file,
                struct err *e) {
    char program[4096];
    struct strv command = {0};
    struct buf out;
    buf_init(&out, PLAN_BYTES);
    words->ranks = job_ranks(config_values(file), words->ranks);
    int rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, e);
    const char *const head[] = {program, "--config", rest->words[0], "--task", "plan"};
    if (!rc) rc = strv_add_all(&command, head, sizeof head / sizeof *head, e);
    if (!rc) rc = strv_add_all(&command, rest->overrides, rest->n_overrides, e);
    if (!rc) rc = strv_addf(&command, e, "launch.ranks=%lld", (long long)words->ranks);
    if (!rc) rc = ask_rank(&command, &out, e);
    if (!rc) rc = show(words, file, rest, &out, e);
    strv_fini(&command);
    buf_fini(&out);
    return rc;
}

int cmd_plan(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct plan_words words = {0};
    const struct opt table[] = {
        {"ranks", 'n', OPT_INT, "N", "ranks to plan for (default: as run would start)", &words.ranks, 1,
         1048576},
        {"gpu", 0, OPT_TEXT, "NAME",
         "memory and an estimate of the step's time on this GPU: h200, h100, a100", &words.gpu, 0, 0},
        {"json", 0, OPT_FLAG, NULL, "as JSON", &words.as_json, 0, 0},
    };
    struct opts_rest rest;
    struct config_file *file = NULL;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    rc = load_config(&file, rest.words[0], rest.overrides, rest.n_overrides, e);
    if (!rc) rc = plan(&words, &rest, file, e);
    config_close(file);
    return rc;
}
