// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl of a run as a table of numbers: what replay and diff compare with. Lines that are cut or no
// JSON are passed over.
#ifndef ORRERY_LAUNCHER_METRICS_READ_H
#define ORRERY_LAUNCHER_METRICS_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define METRICS_NAME_BYTES 40
#define METRICS_VALUES     20

struct metrics_value {
    char name[METRICS_NAME_BYTES]; // "loss", "losses.video", "grad_norm", "lr"
    double value;                  // NaN where the line has null
};

struct metrics_row {
    int64_t step;
    int n;
    struct metrics_value values[METRICS_VALUES]; // those that do not depend on the clock, in the line's order
};

struct metrics_table {
    struct metrics_row *rows; // by rising step; of two lines of one step the later
    size_t n;
    size_t unread; // whole lines that are no metrics: the file is damaged
};

// A missing file is an empty table.
int metrics_read(struct metrics_table *out, const char *run_dir, struct err *e) ERR_CHECK;
void metrics_table_fini(struct metrics_table *t);
const struct metrics_row *metrics_find(const struct metrics_table *t, int64_t step); // NULL: not there
bool metrics_row_get(const struct metrics_row *row, const char *name, double *out);

#endif
