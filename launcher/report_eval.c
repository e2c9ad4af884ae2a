// SPDX-License-Identifier: Apache-2.0
// The report's part about the evaluation: bars, model against baselines, skill over the horizon. Reads
// eval.json, which may be of another version or broken: what does not fit is left out.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "launcher/report.h"

#define ROWS_MAX 16

static int put_value(struct buf *out, double v, int digits, struct err *e) {
    return isfinite(v) ? buf_appendf(out, e, "%.*f", digits, v) : buf_appends(out, "&ndash;", e);
}

static int put_interval(struct buf *out, const struct json_value *v, int digits, struct err *e) {
    double lo = json_double_or(v, "lo", NAN), hi = json_double_or(v, "hi", NAN);
    if (!isfinite(lo) || !isfinite(hi)) return 0;
    return buf_appendf(out, e, "<small>%.*f to %.*f</small>", digits, lo, digits, hi);
}

// ---- bars
static int put_bar(const struct json_value *bar, struct buf *out, struct err *e) {
    bool pass = json_bool_or(bar, "pass", false);
    int rc = buf_appendf(out, e, "<tr><td class=\"%s\">%s</td><td>", pass ? "pass" : "miss",
                         pass ? "pass" : "miss");
    if (!rc) rc = report_escape(out, json_string_or(bar, "label", "?"), e);
    if (!rc) rc = buf_appends(out, "</td><td class=\"n\"><b>", e);
    if (!rc) rc = put_value(out, json_double_or(bar, "value", NAN), 3, e);
    if (!rc) rc = buf_appends(out, "</b>", e);
    if (!rc) rc = put_interval(out, bar, 3, e);
    if (!rc)
        rc = buf_appendf(out, e, "</td><td class=\"n\">%s %g</td></tr>\n",
                         strcmp(json_string_or(bar, "relation", ""), "<=") ? "at least" : "at most",
                         json_double_or(bar, "threshold", NAN));
    return rc;
}

static int put_bars(const struct json_value *bars, struct buf *out, struct err *e) {
    if (!json_size(bars)) return 0;
    int rc =
        buf_appends(out,
                    "<h2>Bars</h2><table><thead><tr><th></th><th>what</th><th>measured, 95 % interval</th>"
                    "<th>wanted</th></tr></thead><tbody>\n",
                    e);
    for (size_t i = 0; i < json_size(bars) && !rc; i++) rc = put_bar(json_at(bars, i), out, e);
    return rc ? rc : buf_appends(out, "</tbody></table>\n", e);
}

// ---- rows against metrics
static double value_of(const struct json_value *row, const char *metric) {
    return json_double_or(json_get(json_get(row, "metrics"), metric), "value", NAN);
}

// The best row's value of a metric, over the rows that were made.
static double best_of(const struct json_value *rows, const char *metric, bool more) {
    double best = NAN;
    for (size_t i = 0; i < json_size(rows); i++) {
        double v = value_of(json_at(rows, i), metric);
        if (isfinite(v) && (!isfinite(best) || (more ? v > best : v < best))) best = v;
    }
    return best;
}

static int put_head(const struct json_value *metrics, struct buf *out, struct err *e) {
    int rc = buf_appends(out, "<thead><tr><th>all horizons</th>", e);
    for (size_t i = 0; i < json_size(metrics) && !rc; i++) {
        const char *unit = json_string_or(json_at(metrics, i), "unit", "");
        rc = buf_appends(out, "<th class=\"n\">", e);
        if (!rc) rc = report_escape(out, json_string_or(json_at(metrics, i), "label", "?"), e);
        if (!rc && *unit) rc = buf_appends(out, ", ", e);
        if (!rc) rc = report_escape(out, unit, e);
        if (!rc) rc = buf_appends(out, "</th>", e);
    }
    return rc ? rc : buf_appends(out, "</tr></thead>", e);
}

static int put_row(const struct json_value *rows, const struct json_value *row,
                   const struct json_value *metrics, struct buf *out, struct err *e) {
    bool model = !strcmp(json_string_or(row, "name", ""), "model");
    double steps = json_double_or(row, "steps", NAN);
    int rc = buf_appendf(out, e, "<tr%s><td>", model ? " class=\"model\"" : "");
    if (!rc) rc = report_escape(out, json_string_or(row, "label", "?"), e);
    if (!rc && isfinite(steps)) rc = buf_appendf(out, e, ", K = %.0f", steps);
    if (!rc) rc = buf_appends(out, "</td>", e);
    for (size_t i = 0; i < json_size(metrics) && !rc; i++) {
        const struct json_value *m = json_at(metrics, i);
        const char *name = json_string_or(m, "name", "");
        double v = value_of(row, name), d = json_double_or(m, "digits", NAN);
        int digits = d >= 0 && d <= 6 ? (int)d : 3;
        bool best = isfinite(v) && v == best_of(rows, name, !strcmp(json_string_or(m, "better", ""), "more"));
        rc = buf_appendf(out, e, "<td class=\"n%s\">", best ? " best" : "");
        if (!rc) rc = put_value(out, v, digits, e);
        if (!rc) rc = put_interval(out, json_get(json_get(row, "metrics"), name), digits, e);
        if (!rc) rc = buf_appends(out, "</td>", e);
    }
    return rc ? rc : buf_appends(out, "</tr>\n", e);
}

static int put_rows(const struct json_value *eval, struct buf *out, struct err *e) {
    const struct json_value *rows = json_get(eval, "rows"), *metrics = json_get(eval, "metrics");
    int rc = buf_appends(out, "<h2>Model against baselines</h2><div class=\"wide\"><table>", e);
    if (!rc) rc = put_head(metrics, out, e);
    if (!rc) rc = buf_appends(out, "<tbody>\n", e);
    for (size_t i = 0; i < json_size(rows) && !rc; i++) rc = put_row(rows, json_at(rows, i), metrics, out, e);
    return rc ? rc : buf_appends(out, "</tbody></table></div>\n", e);
}

static int put_probes(const struct json_value *probes, struct buf *out, struct err *e) {
    int rc = buf_appends(out, "<h2>One sense from the others</h2><table><tbody>\n", e);
    for (size_t i = 0; i < json_size(probes) && !rc; i++) {
        const struct json_value *p = json_at(probes, i);
        rc = buf_appends(out, "<tr><td>", e);
        if (!rc) rc = report_escape(out, json_string_or(p, "label", "?"), e);
        if (!rc) rc = buf_appends(out, "</td><td class=\"n\"><b>", e);
        if (!rc) rc = put_value(out, json_double_or(p, "value", NAN), 3, e);
        if (!rc) rc = buf_appends(out, "</b>", e);
        if (!rc) rc = put_interval(out, p, 3, e);
        if (!rc) rc = buf_appends(out, "</td></tr>\n", e);
    }
    return rc ? rc : buf_appends(out, "</tbody></table>\n", e);
}

// ---- charts over the horizon
static int colour_of(const char *row) {
    static const char *const order[] = {"model",         "sampled",   "constant_velocity",
                                        "training_mean", "copy_last", "wrong_action"};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (!strcmp(order[i], row)) return (int)i;
    return 7;
}

static int take_row(const struct json_value *row, const char *metric, struct report_series *s,
                    struct err *e) {
    const struct json_value *list = json_get(json_get(json_get(row, "metrics"), metric), "horizon");
    int rc = 0;
    snprintf(s->name, sizeof s->name, "%s", json_string_or(row, "label", "?"));
    s->colour = colour_of(json_string_or(row, "name", ""));
    for (size_t h = 0; h < json_size(list) && !rc; h++) {
        double v;
        rc = report_series_add(s, (double)(h + 1), json_as_double(json_at(list, h), &v) ? v : NAN, e);
    }
    return rc;
}

#define SKILL_FLOOR (-0.5) // the training mean's first frames would flatten everything else

static int put_chart(const struct json_value *eval, const char *metric, const char *title, const char *label,
                     bool from_zero, struct buf *out, struct err *e) {
    const struct json_value *rows = json_get(eval, "rows");
    struct report_series series[ROWS_MAX] = {0};
    size_t n = json_size(rows) < ROWS_MAX ? json_size(rows) : ROWS_MAX;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) rc = take_row(json_at(rows, i), metric, &series[i], e);
    struct report_chart chart = {.title = title,
                                 .x_label = "horizon, frames",
                                 .y_label = label,
                                 .y_zero = from_zero,
                                 .dots = true,
                                 .cut = !strcmp(metric, "skill"),
                                 .floor = SKILL_FLOOR,
                                 .series = series,
                                 .n = n};
    if (!rc) rc = report_chart_write(&chart, out, e);
    for (size_t i = 0; i < n; i++) report_series_fini(&series[i]);
    return rc;
}

static int put_charts(const struct json_value *eval, struct buf *out, struct err *e) {
    int rc = buf_appends(out, "<div class=\"charts\">\n", e);
    if (!rc)
        rc = put_chart(eval, "skill", "Skill by horizon: 1 is perfect, 0 is copy-last, below -0.5 not shown",
                       "skill", false, out, e);
    if (!rc) rc = put_chart(eval, "psnr", "PSNR by horizon", "dB", false, out, e);
    if (!rc) rc = put_chart(eval, "pusher_px", "Pusher: how far off", "pixels", true, out, e);
    if (!rc) rc = put_chart(eval, "puck_px", "Puck: how far off", "pixels", true, out, e);
    return rc ? rc : buf_appends(out, "</div>\n", e);
}

static int put_left_out(const struct json_value *list, struct buf *out, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < json_size(list) && !rc; i++) {
        const char *why;
        if (!json_as_string(json_at(list, i), &why)) continue;
        rc = buf_appends(out, "<p class=\"note\">Left out: ", e);
        if (!rc) rc = report_escape(out, why, e);
        if (!rc) rc = buf_appends(out, "</p>\n", e);
    }
    return rc;
}

// "averaged weights"; results that do not say which have just weights.
static const char *weights_of(const struct json_value *eval) {
    const char *which = json_string_or(eval, "weights", "");
    return !strcmp(which, "average") ? "averaged weights" : !strcmp(which, "raw") ? "raw weights" : "weights";
}

int report_write_eval(const struct json_value *eval, struct buf *out, struct err *e) {
    int rc = put_bars(json_get(eval, "bars"), out, e);
    if (!rc) rc = put_rows(eval, out, e);
    if (!rc)
        rc = buf_appendf(
            out, e,
            "<p class=\"note\">%.0f held-out sequences, %.0f frames given, %.0f predicted; %s of step %.0f. "
            "Small print: 95 %% bootstrap intervals over sequences. K = 1 is the one-step answer, a "
            "regression: it scores well where the world is nearly deterministic.</p>\n",
            json_double_or(eval, "sequences", NAN), json_double_or(eval, "context", NAN),
            json_double_or(eval, "horizon", NAN), weights_of(eval), json_double_or(eval, "step", NAN));
    if (!rc) rc = put_left_out(json_get(eval, "left_out"), out, e);
    if (!rc) rc = put_charts(eval, out, e);
    return rc ? rc : put_probes(json_get(eval, "probes"), out, e);
}
