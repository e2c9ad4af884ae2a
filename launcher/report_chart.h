// SPDX-License-Identifier: Apache-2.0
// Line charts as inline SVG. Colours come from the page's style sheet (classes s0 .. s7), so that a chart
// follows the page's light or dark dress.
#ifndef ORRERY_LAUNCHER_REPORT_CHART_H
#define ORRERY_LAUNCHER_REPORT_CHART_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/err.h"

struct report_series {
    char name[64];
    int colour; // 0 .. 7
    size_t n, cap;
    double *x, *y; // points that are not finite break the line
};

int report_series_add(struct report_series *s, double x, double y, struct err *e) ERR_CHECK;
void report_series_fini(struct report_series *s);

struct report_chart {
    const char *title, *x_label, *y_label;
    bool log_y;  // only positive values are shown
    bool y_zero; // the axis begins at 0
    bool dots;   // mark every point
    bool cut;    // values below `floor` are not shown
    double floor;
    const struct report_series *series;
    size_t n;
};

// Appends a <figure>. Without a single finite point: a line that says so.
int report_chart_write(const struct report_chart *c, struct buf *out, struct err *e) ERR_CHECK;

// Appends text with HTML's special characters escaped; control characters become '?'.
int report_escape(struct buf *out, const char *text, struct err *e) ERR_CHECK;

#endif
