// SPDX-License-Identifier: Apache-2.0
// orrery bench: runs a bench task of orrery-rank on this machine's CPUs or GPUs and shows its table.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "launcher/load.h"
#include "launcher/opts.h"
#include "launcher/proc.h"
#include "launcher/strv.h"

enum { COLUMNS = 6, BENCH_BYTES = 4 << 20 };
#define BENCH_MS 1800000

static const struct {
    const char *word, *task;
} benches[] = {{"kernels", "bench-kernels"}, {"comm", "bench-comm"}, {"step", "step-bench"}};

static int find_task(const char *word, const char **out, struct err *e) {
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++) {
        if (strcmp(word, benches[i].word)) continue;
        *out = benches[i].task;
        return 0;
    }
    return err_set(e, ERR_USAGE, "bench %s: kernels, comm or step", word);
}

static int build_command(struct strv *argv, const char *task, const struct opts_rest *rest, int64_t ranks,
                         struct err *e) {
    char program[4096], mpirun[4096], count[32];
    int rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, e);
    if (rc) return rc;
    if (ranks > 1 && !proc_find("mpirun", mpirun, sizeof mpirun))
        return err_set(e, ERR_MISSING, "several ranks need mpirun: apt-get install openmpi-bin");
    snprintf(count, sizeof count, "%lld", (long long)ranks);
    const char *const peers[] = {mpirun, "--oversubscribe", "-n", count};
    const char *const words[] = {program, "--config", rest->words[1], "--task", task};
    if (ranks > 1) rc = strv_add_all(argv, peers, sizeof peers / sizeof *peers, e);
    if (!rc) rc = strv_add_all(argv, words, sizeof words / sizeof *words, e);
    // The config's number of steps is a training's, not a measurement's.
    bool counted = false;
    for (size_t i = 0; i < rest->n_overrides; i++)
        counted = counted || !strncmp(rest->overrides[i], "train.steps=", 12);
    if (!rc && !counted) rc = strv_add(argv, "train.steps=50", e);
    return rc ? rc : strv_add_all(argv, rest->overrides, rest->n_overrides, e);
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

static double number(const struct json_value *o, const char *key) {
    double value = 0;
    json_as_double(json_get(o, key), &value);
    return value;
}

// The step's one line of JSON as rows like those of the other benches: the median step, then its parts, then
// how soon the first one was done.
static int step_rows(const struct buf *line, struct buf *rows, struct err *e) {
    static const char *const parts[] = {"noise", "forward", "backward", "reduce", "update", "gather"};
    struct json *doc = NULL;
    int rc = json_parse(&doc, line->data, line->len, "the step's figures", e);
    if (rc) return rc;
    const struct json_value *o = json_root(doc), *ms = json_get(o, "ms");
    double whole = number(o, "ms_per_step");
    rc = buf_appendf(
        rows, e, "what,shape,ms,rate,unit,share\nstep (median),%.0f steps on %.0f ranks,%.4f,%.3f,TFLOP/s,\n",
        number(o, "steps"), number(o, "ranks"), number(o, "ms_median"), 1e-3 * number(o, "gflop_per_s"));
    for (size_t i = 0; !rc && i < sizeof parts / sizeof *parts; i++)
        rc = buf_appendf(rows, e, "%s,mean,%.4f,,,%.3f\n", parts[i], number(ms, parts[i]),
                         number(ms, parts[i]) / (whole > 0 ? whole : 1));
    if (!rc)
        rc = buf_appendf(rows, e, "first step done,from the process's start,%.0f,,,\n",
                         1e3 * number(o, "s_to_first_step"));
    double busy = number(o, "comm_busy_ms"), wait = number(o, "comm_wait_ms");
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

static int run(const struct strv *argv, bool csv, struct err *e) {
    struct buf out, rows;
    int status = 0;
    buf_init(&out, BENCH_BYTES);
    buf_init(&rows, BENCH_BYTES);
    if (geteuid() == 0) { // mpirun asks root for both
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    }
    int rc = proc_capture(argv->items, BENCH_MS, &out, NULL, &status, e);
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
    struct strv command = {0};
    const char *task = NULL;
    const struct opt table[] = {
        {"ranks", 'n', OPT_INT, "N", "ranks on this machine", &ranks, 1, 4096},
        {"csv", 0, OPT_FLAG, NULL, "comma-separated values as the ranks print them", &csv, 0, 0},
    };
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 2, 2, &rest, e);
    if (rc || rest.help) return rc;
    rc = find_task(rest.words[0], &task, e);
    if (!rc) rc = build_command(&command, task, &rest, ranks, e);
    if (!rc) rc = run(&command, csv, e);
    strv_fini(&command);
    return rc;
}
