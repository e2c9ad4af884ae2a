// SPDX-License-Identifier: Apache-2.0
#include "launcher/opts.h"

int cmd_submit(const struct cmd *self, int argc, char **argv, struct err *e) {
    bool ignored = false;
    const struct opt table[] = {
        {"slurm", 0, OPT_FLAG, NULL, "to Slurm", &ignored, 0, 0},
        {"k8s", 0, OPT_FLAG, NULL, "to Kubernetes", &ignored, 0, 0},
        {"dry-run", 0, OPT_FLAG, NULL, "write the job file only", &ignored, 0, 0},
    };
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 0, 1, &rest, e);
    if (rc || rest.help) return rc;
    return err_set(e, ERR_UNAVAILABLE,
                   "submitting to Slurm or Kubernetes is not there yet; on one machine: orrery run %s",
                   rest.n_words ? rest.words[0] : "CONFIG");
}
