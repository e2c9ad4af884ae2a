// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>

#include "launcher/opts.h"
#include "launcher/report_task.h"

int cmd_eval(const struct cmd *self, int argc, char **argv, struct err *e) {
    int64_t ranks = 0;
    bool json = false;
    struct opts_rest rest;
    char name[REPORT_NAME_BYTES], file[sizeof name + 8];
    const struct opt table[] = {
        {"ranks", 'n', OPT_INT, "N", "ranks that share the sequences (default: as the run's config says)",
         &ranks, 1, 4096},
        {"json", 0, OPT_FLAG, NULL, "print eval.json instead of the table", &json, 0, 0},
    };
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    rc = report_task_run("evaluate", &rest, ranks, name, e);
    if (rc) return rc;
    snprintf(file, sizeof file, "%s.%s", name, json ? "json" : "txt");
    return report_task_print(rest.words[0], file, e);
}
