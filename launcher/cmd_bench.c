// SPDX-License-Identifier: Apache-2.0
// orrery bench: runs a bench task of orrery-rank on this machine's CPUs or GPUs and shows its table.
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/machine.h"
#include "launcher/bare.h"
#include "launcher/job.h"
#include "launcher/load.h"
#include "launcher/opts.h"
#include "launcher/proc.h"

enum { COLUMNS = 6, BENCH_BYTES = 4 << 20 };
#define BENCH_MS 1800000

static const struct {
    const char *word, *task;
} benches[] = {{"kernels", "kernels-bench"}, {"comm", "comm-bench"}, {"step", "step-bench"}};

static int find_task(const char *word, const char **out, struct err *e) {
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        if (strcmp(word, benches[i].word)) continue;
        *out = benches[i].task;
        return 0;
    }
    return err_set(e, ERR_USAGE, "bench %s: kernels, comm or step", word);
}

// What each rank executes.
static int rank_words(struct strv *words, const char *task, const struct opts_rest *rest, struct err *e) {
    char program[4096];
    int rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, e);
    const char *const head[] = {program, "--config", rest->words[1], "--task", task};
    if (!rc) rc = strv_add_all(words, head, sizeof head / sizeof *head, e);
    // The config's number of steps is a training's, not a measurement's.
    bool counted = false;
    for (size_t i = 0; i < rest->n_overrides; i++)
        counted = counted || !strncmp(rest->overrides[i], "train.steps=", 12);
    if (!rc && !counted) rc = strv_add(words, "train.steps=50", e);
    return rc ? rc : strv_add_all(words, rest->overrides, rest->n_overrides, e);
}

// As `orrery run` starts them here, or what is measured is not what a run gets.
static int start_words(struct bare *b, const char *task, const struct opts_rest *rest, int64_t ranks,
                       struct err *e) {
    struct config_file *file = NULL;
    struct strv words = {0};
    int rc = load_config(&file, rest->words[1], rest->overrides, rest->n_overrides, e);
    if (rc) return rc;
    const struct config *c = config_values(file);
    struct sched_request wanted = {.ranks = (int)ranks,
                                   .threads = machine_threads(c->train_threads, (int)ranks),
                                   .mpi = !job_is_single(c, ranks)};
    rc = rank_words(&words, task, rest, e);
    if (!rc) rc = bare_init(b, &sched_local, &wanted, &words, e);
    strv_fini(&words);
    config_close(file);
    return rc;
}

// A CSV line as columns.
static void print_row(char *line) {
    static const int widths[COLUMNS] = {20, 34, 12, 12, 8, 6};
    for (int i = 0; i < COLUMNS && line; i++) {
        char *comma = strchr(line, ',');
        if (comma) *comma = 0;
        if (i < 2)
            printf("%-*s ", widths[i], line);
        else
            printf("%*s ", widths[i], line);
        line = comma ? comma + 1 : NULL;
    }
    printf("\n");
}

// The step's one line of JSON as rows like those of the other benches: the median step, then its parts, then
// how soon the first one was done.
static int step_rows(const struct buf *line, struct buf *rows, struct err *e) {
    static const char *const parts[] = {"noise", "forward", "backward", "reduce", "update", "gather"};
    struct json *doc = NULL;
    int rc = json_parse(&doc, line->data, line->len, "the step's figures", e);
    if (rc) return rc;
    const struct json_value *o = json_root(doc), *ms = json_get(o, "ms");
    double whole = json_double_or(o, "ms_per_step", 0);
    rc = buf_appendf(
        rows, e, "what,shape,ms,rate,unit,share\nstep (median),%.0f steps on %.0f ranks,%.4f,%.3f,TFLOP/s,\n",
        json_double_or(o, "steps", 0), json_double_or(o, "ranks", 0), json_double_or(o, "ms_median", 0),
        1e-3 * json_double_or(o, "gflop_per_s", 0));
    for (size_t i = 0; !rc && i < sizeof parts / sizeof *parts; i++)
        rc = buf_appendf(rows, e, "%s,mean,%.4f,,,%.3f\n", parts[i], json_double_or(ms, parts[i], 0),
                         json_double_or(ms, parts[i], 0) / (whole > 0 ? whole : 1));
    if (!rc)
        rc = buf_appendf(rows, e, "first step done,from the process's start,%.0f,,,\n",
                         1e3 * json_double_or(o, "s_to_first_step", 0));
    double busy = json_double_or(o, "comm_busy_ms", 0), wait = json_double_or(o, "comm_wait_ms", 0);
    if (!rc)
        rc = buf_appendf(rows, e, "collectives,under way / waited for,%.4f,%.4f,ms,%.3f\n", busy, wait,
                         wait / (whole > 0 ? whole : 1));
    json_destroy(doc);
    return rc;
}

static void print_table(char *text) {
    for (char *line = text; line && *line;) {
        char *end = strchr(line, '\n');
        if (end) *end = 0;
        print_row(line);
        line = end ? end + 1 : NULL;
    }
}

static int run(const struct bare *b, bool csv, struct err *e) {
    struct buf out, rows;
    int status = 0;
    buf_init(&out, BENCH_BYTES);
    buf_init(&rows, BENCH_BYTES);
    int rc = proc_capture_env(b->argv.items, b->env.items, BENCH_MS, &out, NULL, &status, e);
    bool one_line = !rc && !status && out.len && out.data[0] == '{';
    if (one_line) rc = step_rows(&out, &rows, e);
    char *table = one_line ? rows.data : out.data;
    if (!rc && table && csv) fputs(table, stdout);
    if (!rc && table && !csv) print_table(table);
    buf_fini(&out);
    buf_fini(&rows);
    return rc ? rc : status;
}

int cmd_bench(const struct cmd *self, int argc, char **argv, struct err *e) {
    int64_t ranks = 1;
    bool csv = false;
    struct opts_rest rest;
    struct bare started = {.scratch = {.alive_fd = -1}};
    const char *task = NULL;
    const struct opt table[] = {
        {"ranks", 'n', OPT_INT, "N", "ranks on this machine", &ranks, 1, 4096},
        {"csv", 0, OPT_FLAG, NULL, "comma-separated values as the ranks print them", &csv, 0, 0},
    };
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 2, 2, &rest, e);
    if (rc || rest.help) return rc;
    rc = find_task(rest.words[0], &task, e);
    if (!rc) rc = start_words(&started, task, &rest, ranks, e);
    if (!rc) rc = run(&started, csv, e);
    bare_fini(&started);
    return rc;
}
