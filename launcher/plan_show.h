// SPDX-License-Identifier: Apache-2.0
// The plan of orrery-rank (JSON) with what the launcher knows beside it, for people or as JSON, on stdout.
#ifndef ORRERY_LAUNCHER_PLAN_SHOW_H
#define ORRERY_LAUNCHER_PLAN_SHOW_H

#include "base/json.h"
#include "launcher/estimate.h"
#include "launcher/strv.h"

struct plan_show {
    const struct json_value *plan;
    const char *config_path;
    const struct estimate_gpu *gpu; // NULL: no estimate
    enum estimate_precision precision;
    const char *const *overrides; // as they were given
    size_t n_overrides;
    const struct strv *command; // what `orrery run` would start here
    int threads;                // of a rank here
    const char *warning;        // why the command cannot run here; empty: it can
};

// CONFIG when the kernels of the named GPU do not know a shape of this config.
int plan_show_refusal(const struct plan_show *s, struct err *e) ERR_CHECK;
int plan_show_people(const struct plan_show *s, struct err *e) ERR_CHECK;
int plan_show_json(const struct plan_show *s, struct err *e) ERR_CHECK;

#endif
