// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"

// ---- eval.json
static void put_number(struct json_writer *w, const struct eval_result *r, int64_t at) {
    json_put_double(w, "value", r->value[at]);
    json_put_double(w, "lo", r->lo[at]);
    json_put_double(w, "hi", r->hi[at]);
}

static void put_horizons(struct json_writer *w, const char *key, const double *numbers, int64_t horizon) {
    json_put_array(w, key);
    for (int64_t h = 0; h < horizon; h++) json_put_double(w, NULL, numbers[h]);
    json_close(w, ']');
}

static void put_row(struct json_writer *w, const struct eval_result *r, int row) {
    json_put_object(w, NULL);
    json_put_string(w, "name", eval_row_name(row));
    json_put_string(w, "label", eval_row_label(row));
    if (row == EVAL_SAMPLED) json_put_int(w, "steps", r->samples);
    json_put_object(w, "metrics");
    for (int m = 0; m < EVAL_METRICS; m++) {
        int64_t at = eval_number_metric(r->horizon, row, m, 0);
        json_put_object(w, eval_metric_at(m)->name);
        put_number(w, r, at);
        put_horizons(w, "horizon", r->value + at + 1, r->horizon);
        put_horizons(w, "horizon_lo", r->lo + at + 1, r->horizon);
        put_horizons(w, "horizon_hi", r->hi + at + 1, r->horizon);
        json_close(w, '}');
    }
    json_close(w, '}');
    json_close(w, '}');
}

static void put_metrics(struct json_writer *w) {
    json_put_array(w, "metrics");
    for (int m = 0; m < EVAL_METRICS; m++) {
        const struct eval_metric *metric = eval_metric_at(m);
        json_put_object(w, NULL);
        json_put_string(w, "name", metric->name);
        json_put_string(w, "label", metric->label);
        json_put_string(w, "unit", metric->unit);
        json_put_string(w, "better", metric->more_is_better ? "more" : "less");
        json_put_int(w, "digits", metric->digits);
        json_close(w, '}');
    }
    json_close(w, ']');
}

static void put_probes(struct json_writer *w, const struct eval_result *r) {
    json_put_array(w, "probes");
    for (int p = 0; p < EVAL_PROBES; p++) {
        json_put_object(w, NULL);
        json_put_string(w, "name", eval_probe_name(p));
        json_put_string(w, "label", eval_probe_label(p));
        put_number(w, r, eval_number_probe(r->horizon, p));
        json_close(w, '}');
    }
    json_close(w, ']');
}

static bool bar_stands(const struct eval_result *r, int bar) {
    return r->bars && (eval_bar_at(bar)->needs & ~r->has) == 0;
}

static int bars_standing(const struct eval_result *r, int *passed) {
    int n = 0;
    *passed = 0;
    for (int b = 0; b < EVAL_BARS; b++) {
        if (!bar_stands(r, b)) continue;
        n++;
        *passed += eval_bar_passes(b, r->value[eval_number_bar(r->horizon, b)]);
    }
    return n;
}

static void put_bar(struct json_writer *w, const struct eval_result *r, int b) {
    const struct eval_bar *bar = eval_bar_at(b);
    int64_t at = eval_number_bar(r->horizon, b);
    json_put_object(w, NULL);
    json_put_string(w, "name", bar->name);
    json_put_string(w, "label", bar->label);
    put_number(w, r, at);
    json_put_string(w, "relation", bar->at_least ? ">=" : "<=");
    json_put_double(w, "threshold", bar->threshold);
    json_put_bool(w, "pass", eval_bar_passes(b, r->value[at]));
    json_close(w, '}');
}

static void put_bars(struct json_writer *w, const struct eval_result *r) {
    int passed, standing = bars_standing(r, &passed);
    json_put_array(w, "bars");
    for (int b = 0; b < EVAL_BARS; b++)
        if (bar_stands(r, b)) put_bar(w, r, b);
    json_close(w, ']');
    json_put_int(w, "bars_passed", passed);
    if (standing)
        json_put_bool(w, "pass", passed == standing);
    else
        json_put_double(w, "pass", NAN); // null
}

static void put_left_out(struct json_writer *w, const struct eval_result *r) {
    json_put_array(w, "left_out");
    if (r->no_objects) {
        char text[160];
        snprintf(text, sizeof text, "pusher, puck and constant velocity: %s", r->no_objects);
        json_put_string(w, NULL, text);
    }
    if (!r->made[EVAL_WRONG]) json_put_string(w, NULL, "wrong action: needs actions and two sequences");
    if (!r->made[EVAL_SAMPLED]) json_put_string(w, NULL, "sampled: eval.samples is 1");
    json_close(w, ']');
}

// The episodes of windows that were passed over, each once, in order. The caller frees it; NULL: no memory.
static int64_t *episodes_of(const struct eval_skipped *s, int64_t *n) {
    int64_t *list = calloc((size_t)s->windows.n + 1, sizeof *list);
    *n = 0;
    for (int64_t i = 0; list && i < s->windows.n; i++) {
        int64_t at = *n;
        while (at > 0 && list[at - 1] > s->windows.episode[i]) at--;
        if (at > 0 && list[at - 1] == s->windows.episode[i]) continue;
        memmove(list + at + 1, list + at, sizeof *list * (size_t)(*n - at));
        list[at] = s->windows.episode[i];
        ++*n;
    }
    return list;
}

static void put_skipped(struct json_writer *w, const struct eval_result *r) {
    json_put_array(w, "skipped");
    for (int i = 0; i < EVAL_DATA; i++) {
        const struct eval_skipped *s = &r->skipped[i];
        int64_t n, *episodes = s->windows.n ? episodes_of(s, &n) : NULL;
        if (!episodes) continue;
        json_put_object(w, NULL);
        json_put_string(w, "data", eval_data_name(i));
        json_put_int(w, "windows", s->windows.n);
        json_put_int(w, "of", s->of);
        json_put_array(w, "episodes");
        for (int64_t k = 0; k < n; k++) json_put_int(w, NULL, episodes[k]);
        json_close(w, ']');
        json_put_string(w, "why", s->why);
        json_close(w, '}');
        free(episodes);
    }
    json_close(w, ']');
}

static const char *weights_name(const struct eval_result *r) {
    return r->weights.average ? "average" : "raw";
}

static void put_head(struct json_writer *w, const struct eval_result *r) {
    char when[CLOCK_ISO_BYTES];
    json_put_string(w, "format", "orrery-eval");
    json_put_int(w, "version", EVAL_JSON_VERSION);
    json_put_string(w, "made", clock_iso(clock_utc_ns(), when));
    json_put_int(w, "step", r->weights.step);
    json_put_string(w, "weights", weights_name(r));
    json_put_int(w, "sequences", r->sequences);
    json_put_int(w, "context", r->context);
    json_put_int(w, "horizon", r->horizon);
    json_put_int(w, "samples", r->samples);
    json_put_int(w, "seed", (int64_t)r->seed);
    json_put_int(w, "ranks", r->ranks);
    json_put_double(w, "seconds", r->seconds);
}

int eval_write_json(const struct eval_result *r, struct buf *out, struct err *e) {
    struct json_writer w;
    json_begin(&w, out);
    json_put_object(&w, NULL);
    put_head(&w, r);
    put_metrics(&w);
    json_put_array(&w, "rows");
    for (int row = 0; row < EVAL_ROWS; row++)
        if (r->made[row]) put_row(&w, r, row);
    json_close(&w, ']');
    put_probes(&w, r);
    put_bars(&w, r);
    put_left_out(&w, r);
    put_skipped(&w, r);
    json_close(&w, '}');
    int rc = json_end(&w, e);
    return rc ? rc : buf_append(out, "\n", 1, e);
}

// ---- the table
#define CELL_BYTES 32

static const char *cell(char *out, double v, int digits) {
    if (isnan(v))
        snprintf(out, CELL_BYTES, "-");
    else
        snprintf(out, CELL_BYTES, "%.*f", digits, v);
    return out;
}

struct column {
    const char *unit, *head;
    int metric, width;
};

static const struct column columns[] = {
    {"dB", "PSNR", METRIC_PSNR, 6},
    {"dB", "moving", METRIC_PSNR_MOVING, 7},
    {"dB", "pusher", METRIC_PSNR_NEAR, 7},
    {"", "SSIM", METRIC_SSIM, 6},
    {"px", "pusher", METRIC_PUSHER, 7},
    {"px", "puck", METRIC_PUCK, 6},
    {"F1", "contact", METRIC_CONTACT_F1, 8},
    {"R2", "touch", METRIC_TOUCH_R2, 7},
    {"RMSE", "force", METRIC_FORCE_RMSE, 7},
    {"R2", "audio", METRIC_AUDIO_R2, 7},
    {"dist.", "mel", METRIC_AUDIO_DISTANCE, 6},
    {"F1", "onset", METRIC_ONSET_F1, 6},
};
#define COLUMNS     (sizeof columns / sizeof *columns)
#define LABEL_WIDTH 18

static double value_in(const struct eval_result *r, int row, size_t column) {
    return r->value[eval_number_metric(r->horizon, row, columns[column].metric, 0)];
}

// A column that nothing was measured for is left out.
static void find_columns(const struct eval_result *r, bool shown[COLUMNS]) {
    for (size_t c = 0; c < COLUMNS; c++) {
        shown[c] = false;
        for (int row = 0; row < EVAL_ROWS; row++)
            shown[c] = shown[c] || (r->made[row] && !isnan(value_in(r, row, c)));
    }
}

static int write_label(const struct eval_result *r, int row, struct buf *out, struct err *e) {
    return row == EVAL_SAMPLED
               ? buf_appendf(out, e, "\nmodel, K = %-*lld", LABEL_WIDTH - 11, (long long)r->samples)
               : buf_appendf(out, e, "\n%-*s", LABEL_WIDTH, eval_row_label(row));
}

static int write_heads(const bool *shown, struct buf *out, struct err *e) {
    int rc = buf_appendf(out, e, "%-*s", LABEL_WIDTH, "");
    for (size_t c = 0; c < COLUMNS && !rc; c++)
        if (shown[c]) rc = buf_appendf(out, e, "%*s", columns[c].width, columns[c].unit);
    if (!rc) rc = buf_appendf(out, e, "\n%-*s", LABEL_WIDTH, "all horizons");
    for (size_t c = 0; c < COLUMNS && !rc; c++)
        if (shown[c]) rc = buf_appendf(out, e, "%*s", columns[c].width, columns[c].head);
    return rc;
}

static int write_rows(const struct eval_result *r, struct buf *out, struct err *e) {
    char text[CELL_BYTES];
    bool shown[COLUMNS];
    find_columns(r, shown);
    int rc = write_heads(shown, out, e);
    for (int row = 0; row < EVAL_ROWS && !rc; row++) {
        if (!r->made[row]) continue;
        rc = write_label(r, row, out, e);
        for (size_t c = 0; c < COLUMNS && !rc; c++)
            if (shown[c])
                rc = buf_appendf(out, e, "%*s", columns[c].width,
                                 cell(text, value_in(r, row, c), eval_metric_at(columns[c].metric)->digits));
    }
    return rc ? rc : buf_appends(out, "\n", e);
}

#define HORIZONS_SHOWN 10

// The horizon in the table's column i = 1 .. shown.
static int64_t horizon_in(const struct eval_result *r, int64_t i, int64_t shown) {
    return r->horizon <= shown ? i : i * r->horizon / shown;
}

static int write_skill(const struct eval_result *r, struct buf *out, struct err *e) {
    char text[CELL_BYTES];
    int64_t shown = r->horizon < HORIZONS_SHOWN ? r->horizon : HORIZONS_SHOWN;
    int rc = buf_appendf(out, e, "\n%-*s", LABEL_WIDTH, "skill by horizon");
    for (int64_t i = 1; i <= shown && !rc; i++)
        rc = buf_appendf(out, e, "%7lld", (long long)horizon_in(r, i, shown));
    for (int row = EVAL_MEAN; row < EVAL_ROWS && !rc; row++) {
        if (!r->made[row]) continue;
        rc = write_label(r, row, out, e);
        for (int64_t i = 1; i <= shown && !rc; i++) {
            double v = r->value[eval_number_metric(r->horizon, row, METRIC_SKILL, horizon_in(r, i, shown))];
            rc = buf_appendf(out, e, "%7s", cell(text, v, 2));
        }
    }
    return rc ? rc : buf_appends(out, "\n", e);
}

static int write_line(const struct eval_result *r, int64_t at, const char *mark, const char *label,
                      const char *want, struct buf *out, struct err *e) {
    char value[CELL_BYTES], lo[CELL_BYTES], hi[CELL_BYTES];
    return buf_appendf(out, e, "%-5s%-58s%8s  [%s, %s]%s\n", mark, label, cell(value, r->value[at], 3),
                       cell(lo, r->lo[at], 3), cell(hi, r->hi[at], 3), want);
}

static int write_bars(const struct eval_result *r, struct buf *out, struct err *e) {
    int passed, standing = bars_standing(r, &passed);
    if (!standing) return buf_appends(out, "\nno bars: they belong to configs/demo.yaml's table world\n", e);
    int rc = buf_appends(out, "\nbars (95 % intervals over sequences)\n", e);
    for (int b = 0; b < EVAL_BARS && !rc; b++) {
        const struct eval_bar *bar = eval_bar_at(b);
        int64_t at = eval_number_bar(r->horizon, b);
        char want[64];
        if (!bar_stands(r, b)) continue;
        snprintf(want, sizeof want, "  %s %g", bar->at_least ? "at least" : "at most", bar->threshold);
        rc = write_line(r, at, eval_bar_passes(b, r->value[at]) ? "pass" : "MISS", bar->label, want, out, e);
    }
    return rc ? rc : buf_appendf(out, e, "%d of %d bars passed\n", passed, standing);
}

#define EPISODES_SHOWN 12

static int write_skipped(const struct eval_skipped *s, const char *name, struct buf *out, struct err *e) {
    int64_t n, *episodes = s->windows.n ? episodes_of(s, &n) : NULL;
    if (!episodes) return 0;
    int rc = buf_appendf(out, e, "%lld of %lld windows of %s are left out, in broken samples: episode%s",
                         (long long)s->windows.n, (long long)s->of, name, n == 1 ? "" : "s");
    for (int64_t k = 0; k < n && k < EPISODES_SHOWN && !rc; k++)
        rc = buf_appendf(out, e, "%s %lld", k ? "," : "", (long long)episodes[k]);
    if (!rc) rc = buf_appendf(out, e, "%s\n  %s\n", n > EPISODES_SHOWN ? ", ..." : "", s->why);
    free(episodes);
    return rc;
}

int eval_write_table(const struct eval_result *r, struct buf *out, struct err *e) {
    int rc = buf_appendf(
        out, e, "%lld held-out sequences, %lld frames given, %lld predicted, weights of step %lld (%s)\n\n",
        (long long)r->sequences, (long long)r->context, (long long)r->horizon, (long long)r->weights.step,
        weights_name(r));
    if (!rc) rc = write_rows(r, out, e);
    if (!rc) rc = write_skill(r, out, e);
    if (!rc) rc = buf_appends(out, "\n", e);
    for (int p = 0; p < EVAL_PROBES && !rc; p++) {
        int64_t at = eval_number_probe(r->horizon, p);
        if (!isnan(r->value[at])) rc = write_line(r, at, "", eval_probe_label(p), "", out, e);
    }
    if (!rc && r->no_objects)
        rc = buf_appendf(out, e, "Pusher, puck and constant velocity are left out: %s.\n", r->no_objects);
    for (int i = 0; i < EVAL_DATA && !rc; i++) rc = write_skipped(&r->skipped[i], eval_data_name(i), out, e);
    return rc ? rc : write_bars(r, out, e);
}
