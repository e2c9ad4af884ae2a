// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>

#include "base/bytes.h"
#include "launcher/opts.h"

int cmd_version(const struct cmd *self, int argc, char **argv, struct err *e) {
    bool json = false;
    const struct opt table[] = {{"json", 0, OPT_FLAG, NULL, "as JSON", &json, 0, 0}};
    struct opts_rest rest;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 0, 0, &rest, e);
    if (rc || rest.help) return rc;
    printf(json ? "{\"version\": \"%s\"}\n" : "orrery %s\n", ORRERY_VERSION);
    return 0;
}
