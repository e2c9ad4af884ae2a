// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "launcher/opts.h"
#include "launcher/report.h"
#include "launcher/report_task.h"
#include "storage/store_config.h"

#define PAGE_MAX ((size_t)1 << 30)

static bool has_file(const char *run_dir, const char *name) {
    char path[4096];
    return snprintf(path, sizeof path, "%s/%s", run_dir, name) < (int)sizeof path && !access(path, R_OK);
}

static int make(const char *run_dir, const char *path, struct err *e) {
    struct report_input in;
    struct buf page;
    struct stat st;
    if (stat(run_dir, &st) || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_MISSING, "no run folder %s; the folder is run.dir of the config", run_dir);
    if (!has_file(run_dir, "run.json") && !has_file(run_dir, "metrics.jsonl") &&
        !has_file(run_dir, "eval.json"))
        return err_set(e, ERR_MISSING,
                       "%s has no run.json, metrics.jsonl or eval.json: it is no run folder, or nothing has "
                       "run in it yet",
                       run_dir);
    int rc = report_read(&in, run_dir, e);
    if (rc) return rc;
    buf_init(&page, PAGE_MAX);
    rc = report_write(&in, &page, e);
    if (!rc) rc = bytes_write_file(path, page.data, page.len, e);
    buf_fini(&page);
    report_input_fini(&in);
    return rc;
}

// A line for each thing of the run that is there.
static void say_path(const char *words, const char *run_dir, const char *name) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", run_dir, name) < (int)sizeof path && !access(path, R_OK))
        printf("%-12s%s\n", words, path);
}

// Where checkpoints go stands in the run's config; a run folder without one has none.
static void say_checkpoint(const char *run_dir) {
    char path[4096], url[4096];
    struct config_file *file = NULL;
    struct err none = {0};
    if (snprintf(path, sizeof path, "%s/config.yaml", run_dir) >= (int)sizeof path ||
        config_load(&file, path, NULL, 0, &none))
        return;
    bool known = !store_config_checkpoints(config_values(file), run_dir, url, sizeof url, &none);
    const char *folder = known ? store_local_path(url) : NULL;
    if (known && (!folder || !access(folder, R_OK))) printf("%-12s%s\n", "checkpoints", url);
    config_close(file);
}

static void say(const char *run_dir, const char *page) {
    struct err none = {0};
    if (!report_task_print(run_dir, "eval.txt", &none)) printf("\n");
    printf("%-12s%s\n", "report", page);
    say_path("animation", run_dir, "rollouts/rollout.gif");
    say_path("strip", run_dir, "rollouts/strip.png");
    say_checkpoint(run_dir);
}

int cmd_report(const struct cmd *self, int argc, char **argv, struct err *e) {
    const char *out = NULL;
    char path[4096];
    struct opts_rest rest;
    const struct opt table[] = {
        {"out", 'o', OPT_TEXT, "FILE", "where the page goes (default: RUN/report.html)", &out, 0, 0},
    };
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    if (!out && snprintf(path, sizeof path, "%s/report.html", rest.words[0]) >= (int)sizeof path)
        return err_set(e, ERR_USAGE, "the run folder's path is too long");
    rc = make(rest.words[0], out ? out : path, e);
    if (!rc) say(rest.words[0], out ? out : path);
    return rc;
}
