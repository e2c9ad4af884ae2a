// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_record.h"

#include <math.h>
#include <string.h>

#include "trainer/metrics_image.h"
#include "trainer/metrics_signal.h"

struct names {
    const char *name, *label;
};
#define X(id, name, label) {name, label},
static const struct names rows[EVAL_ROWS] = {EVAL_ROW_TABLE(X)};
static const struct names probes[EVAL_PROBES] = {EVAL_PROBE_TABLE(X)};
#undef X

static struct names names_of(const struct names *list, int n, int i) {
    return i >= 0 && i < n ? list[i] : (struct names){"?", "?"};
}

const char *eval_row_name(int row) {
    return names_of(rows, EVAL_ROWS, row).name;
}

const char *eval_row_label(int row) {
    return names_of(rows, EVAL_ROWS, row).label;
}

const char *eval_probe_name(int probe) {
    return names_of(probes, EVAL_PROBES, probe).name;
}

const char *eval_probe_label(int probe) {
    return names_of(probes, EVAL_PROBES, probe).label;
}

static int64_t cell_at(int64_t horizon, int row, int64_t h) {
    return (row * horizon + h) * EVAL_SUMS;
}

static int64_t probe_at(int64_t horizon, int probe) {
    return cell_at(horizon, EVAL_ROWS, 0) + probe * 2;
}

int64_t eval_record_elems(int64_t horizon) {
    return probe_at(horizon, EVAL_PROBES);
}

double *eval_record_cell(double *record, int64_t horizon, int row, int64_t h) {
    return record + cell_at(horizon, row, h);
}

double *eval_record_probe(double *record, int64_t horizon, int probe) {
    return record + probe_at(horizon, probe);
}

// ---- metrics. 0 / 0 is NaN: nothing was measured.
static double ratio(double a, double b) {
    return b > 0 || isnan(b) ? a / b : NAN;
}

static double psnr(const double *c, const double *copy) {
    return metrics_psnr(ratio(c[SUM_ERROR], c[SUM_PIXELS]));
}

static double psnr_near(const double *c, const double *copy) {
    return metrics_psnr(ratio(c[SUM_NEAR_ERROR], c[SUM_NEAR_PIXELS]));
}

static double psnr_moving(const double *c, const double *copy) {
    return metrics_psnr(ratio(c[SUM_MOVING_ERROR], c[SUM_MOVING_PIXELS]));
}

static double ssim(const double *c, const double *copy) {
    return ratio(c[SUM_SSIM], c[SUM_FRAMES]);
}

static double skill(const double *c, const double *copy) {
    return 1.0 - ratio(ratio(c[SUM_ERROR], c[SUM_PIXELS]), ratio(copy[SUM_ERROR], copy[SUM_PIXELS]));
}

static double pusher(const double *c, const double *copy) {
    return ratio(c[SUM_PUSHER], c[SUM_OBJECT_FRAMES]);
}

static double puck(const double *c, const double *copy) {
    return ratio(c[SUM_PUCK], c[SUM_OBJECT_FRAMES]);
}

static double contact_f1(const double *c, const double *copy) {
    return metrics_f1(c[SUM_CONTACT_THERE], c[SUM_CONTACT_CLAIMED], c[SUM_CONTACT_BOTH]);
}

static double touch_r2(const double *c, const double *copy) {
    return 1.0 - ratio(c[SUM_TOUCH_ERROR], c[SUM_TOUCH_POWER]);
}

static double force_rmse(const double *c, const double *copy) {
    return sqrt(ratio(c[SUM_FORCE_ERROR], c[SUM_TOUCH_FRAMES]));
}

static double audio_r2(const double *c, const double *copy) {
    return 1.0 - ratio(c[SUM_AUDIO_ERROR], c[SUM_AUDIO_POWER]);
}

static double audio_distance(const double *c, const double *copy) {
    return ratio(c[SUM_AUDIO_DISTANCE], c[SUM_AUDIO_FRAMES]);
}

static double onset_f1(const double *c, const double *copy) {
    return metrics_f1(c[SUM_ONSET_THERE], c[SUM_ONSET_CLAIMED], c[SUM_ONSET_BOTH]);
}

static const struct eval_metric metrics[EVAL_METRICS] = {
    [METRIC_PSNR] = {"psnr", "PSNR", "dB", true, 2, psnr},
    [METRIC_PSNR_NEAR] = {"psnr_near_pusher", "PSNR near pusher", "dB", true, 2, psnr_near},
    [METRIC_PSNR_MOVING] = {"psnr_moving", "PSNR where it moves", "dB", true, 2, psnr_moving},
    [METRIC_SSIM] = {"ssim", "SSIM", "", true, 3, ssim},
    [METRIC_SKILL] = {"skill", "skill", "", true, 3, skill},
    [METRIC_PUSHER] = {"pusher_px", "pusher error", "px", false, 2, pusher},
    [METRIC_PUCK] = {"puck_px", "puck error", "px", false, 2, puck},
    [METRIC_CONTACT_F1] = {"contact_f1", "contact F1", "", true, 3, contact_f1},
    [METRIC_TOUCH_R2] = {"touch_r2", "touch R2", "", true, 3, touch_r2},
    [METRIC_FORCE_RMSE] = {"force_rmse", "force RMSE", "N", false, 3, force_rmse},
    [METRIC_AUDIO_R2] = {"audio_r2", "audio R2", "", true, 3, audio_r2},
    [METRIC_AUDIO_DISTANCE] = {"audio_distance", "log-mel distance", "dB", false, 2, audio_distance},
    [METRIC_ONSET_F1] = {"onset_f1", "onset F1", "", true, 3, onset_f1},
};

const struct eval_metric *eval_metric_at(int metric) {
    return metric >= 0 && metric < EVAL_METRICS ? &metrics[metric] : NULL;
}

// ---- all numbers of one sum.
int64_t eval_number_metric(int64_t horizon, int row, int metric, int64_t h) {
    return (row * EVAL_METRICS + metric) * (horizon + 1) + h;
}

int64_t eval_number_probe(int64_t horizon, int probe) {
    return EVAL_ROWS * EVAL_METRICS * (horizon + 1) + probe;
}

int64_t eval_number_bar(int64_t horizon, int bar) {
    return eval_number_probe(horizon, EVAL_PROBES) + bar;
}

int64_t eval_numbers_count(int64_t horizon) {
    return eval_number_bar(horizon, EVAL_BARS);
}

static void sum_over_horizons(const double *record, int64_t horizon, int row, double *cell) {
    memset(cell, 0, sizeof(double) * EVAL_SUMS);
    for (int64_t h = 0; h < horizon; h++) {
        const double *one = record + cell_at(horizon, row, h);
        for (int i = 0; i < EVAL_SUMS; i++) cell[i] += one[i];
    }
}

static void row_numbers(const double *sum, int64_t horizon, int row, double *out) {
    double all[EVAL_SUMS], all_copy[EVAL_SUMS];
    sum_over_horizons(sum, horizon, row, all);
    sum_over_horizons(sum, horizon, EVAL_COPY_LAST, all_copy);
    for (int m = 0; m < EVAL_METRICS; m++) {
        out[eval_number_metric(horizon, row, m, 0)] = metrics[m].value(all, all_copy);
        for (int64_t h = 0; h < horizon; h++)
            out[eval_number_metric(horizon, row, m, h + 1)] =
                metrics[m].value(sum + cell_at(horizon, row, h), sum + cell_at(horizon, EVAL_COPY_LAST, h));
    }
}

// ---- bars.
#define BAR_HORIZON 6

static double value_of(const double *numbers, int64_t horizon, int row, int metric, int64_t h) {
    return h <= horizon ? numbers[eval_number_metric(horizon, row, metric, h)] : NAN;
}

static const struct eval_bar bars[EVAL_BARS] = {
    {"psnr_over_constant_velocity", "PSNR above constant velocity, dB", true, EVAL_HAS_OBJECTS, 6.0},
    {"skill_h1", "skill at h = 1", true, EVAL_HAS_VIDEO, 0.92},
    {"skill_h6", "skill at h = 6", true, EVAL_HAS_VIDEO | EVAL_HAS_H6, 0.82},
    {"puck_ratio", "puck error / constant velocity's", false, EVAL_HAS_OBJECTS, 0.5},
    {"pusher_ratio", "pusher error / constant velocity's", false, EVAL_HAS_OBJECTS, 0.15},
    {"action_following", "true minus wrong action, PSNR near pusher, dB", true,
     EVAL_HAS_OBJECTS | EVAL_HAS_WRONG, 12.0},
    {"inverse_dynamics", "inverse dynamics R2", true, EVAL_HAS_ACTION, 0.93},
    {"contact_f1", "contact F1", true, EVAL_HAS_TOUCH, 0.8},
    {"touch_r2", "touch R2", true, EVAL_HAS_TOUCH, 0.78},
    {"audio_r2", "audio R2", true, EVAL_HAS_AUDIO, 0.78},
};

static void bar_numbers(double *n, int64_t horizon) {
    double *bar = n + eval_number_bar(horizon, 0);
#define OF(row, metric, h) value_of(n, horizon, EVAL_##row, METRIC_##metric, h)
    bar[0] = OF(MODEL, PSNR, 0) - OF(VELOCITY, PSNR, 0);
    bar[1] = OF(MODEL, SKILL, 1);
    bar[2] = OF(MODEL, SKILL, BAR_HORIZON);
    bar[3] = OF(MODEL, PUCK, 0) / OF(VELOCITY, PUCK, 0);
    bar[4] = OF(MODEL, PUSHER, 0) / OF(VELOCITY, PUSHER, 0);
    bar[5] = OF(MODEL, PSNR_NEAR, 0) - OF(WRONG, PSNR_NEAR, 0);
    bar[6] = n[eval_number_probe(horizon, PROBE_INVERSE)];
    bar[7] = OF(MODEL, CONTACT_F1, 0);
    bar[8] = OF(MODEL, TOUCH_R2, 0);
    bar[9] = OF(MODEL, AUDIO_R2, 0);
#undef OF
}

const struct eval_bar *eval_bar_at(int bar) {
    return bar >= 0 && bar < EVAL_BARS ? &bars[bar] : NULL;
}

bool eval_bar_passes(int bar, double value) {
    const struct eval_bar *b = eval_bar_at(bar);
    if (!b) return false;
    return b->at_least ? value >= b->threshold : value <= b->threshold;
}

void eval_numbers(const double *sum, int64_t horizon, double *out) {
    for (int row = 0; row < EVAL_ROWS; row++) row_numbers(sum, horizon, row, out);
    for (int p = 0; p < EVAL_PROBES; p++) {
        const double *probe = sum + probe_at(horizon, p);
        out[eval_number_probe(horizon, p)] = 1.0 - ratio(probe[0], probe[1]);
    }
    bar_numbers(out, horizon);
}
