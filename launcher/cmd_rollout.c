// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>

#include "launcher/opts.h"
#include "launcher/report_task.h"

int cmd_rollout(const struct cmd *self, int argc, char **argv, struct err *e) {
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, NULL, 0, 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    rc = report_task_run("rollout", &rest, 1, NULL, e); // one rank draws; more would wait for it
    if (!rc) printf("%s/rollouts/strip.png\n%s/rollouts/rollout.gif\n", rest.words[0], rest.words[0]);
    return rc;
}
