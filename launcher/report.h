// SPDX-License-Identifier: Apache-2.0
// RUN/report.html: one file that needs nothing else, made of what the run folder holds: eval.json,
// metrics.jsonl, events.jsonl, rollouts/, config.yaml, run.json. What is missing is said in its place, with
// the command that makes it.
#ifndef ORRERY_LAUNCHER_REPORT_H
#define ORRERY_LAUNCHER_REPORT_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "launcher/report_chart.h"

#define REPORT_MODALITIES 16

// metrics.jsonl as curves over the step.
struct report_curves {
    struct report_series loss[REPORT_MODALITIES]; // the total first, then one per modality
    size_t n_loss;
    struct report_series lr, speed, grad_norm, wait;
};

// What is known of a run; absent parts are NULL or empty.
struct report_input {
    const char *run_dir;
    struct json *eval, *run; // eval.json, run.json
    struct report_curves curves;
    struct json *ledger; // the last "ledger" event of events.jsonl
    struct buf strip, gif, config;
};

int report_read(struct report_input *in, const char *run_dir, struct err *e) ERR_CHECK;
void report_input_fini(struct report_input *in);

// The whole page.
int report_write(const struct report_input *in, struct buf *out, struct err *e) ERR_CHECK;
// Its part about the evaluation.
int report_write_eval(const struct json_value *eval, struct buf *out, struct err *e) ERR_CHECK;

#endif
