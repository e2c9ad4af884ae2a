// SPDX-License-Identifier: Apache-2.0
// What evaluation adds up per sequence, and the numbers that follow from sums over sequences. A record is a
// flat array of doubles: one cell per (row, horizon), then the probes. Records of different sequences add
// element by element, in sequence order, so that a number never depends on who made the records; a bootstrap
// replicate is another such sum.
#ifndef ORRERY_TRAINER_EVAL_RECORD_H
#define ORRERY_TRAINER_EVAL_RECORD_H

#include <stdbool.h>
#include <stdint.h>

// Who predicts.
#define EVAL_ROW_TABLE(X)                                                                                    \
    X(COPY_LAST, "copy_last", "copy-last")                                                                   \
    X(MEAN, "training_mean", "training mean")                                                                \
    X(VELOCITY, "constant_velocity", "constant velocity")                                                    \
    X(MODEL, "model", "model, K = 1")                                                                        \
    X(WRONG, "wrong_action", "wrong action")                                                                 \
    X(SAMPLED, "sampled", "model, sampled")
enum eval_row {
#define X(id, name, label) EVAL_##id,
    EVAL_ROW_TABLE(X)
#undef X
        EVAL_ROWS
};
const char *eval_row_name(int row);  // "copy_last"
const char *eval_row_label(int row); // "copy-last"

// What a cell adds up over frames. Video is in 0..1; touch, audio and action as the model sees them.
enum eval_sum {
    SUM_PIXELS,
    SUM_ERROR, // all pixels and channels
    SUM_MOVING_PIXELS,
    SUM_MOVING_ERROR, // where truth differs from the last given frame
    SUM_NEAR_PIXELS,
    SUM_NEAR_ERROR, // the pusher's channel, where the pusher is or was
    SUM_FRAMES,
    SUM_SSIM,
    SUM_OBJECT_FRAMES,
    SUM_PUSHER,
    SUM_PUCK, // distance of centroids, pixels
    SUM_TOUCH_FRAMES,
    SUM_TOUCH_ERROR,
    SUM_TOUCH_POWER,
    SUM_FORCE_ERROR,
    SUM_CONTACT_THERE,
    SUM_CONTACT_CLAIMED,
    SUM_CONTACT_BOTH,
    SUM_AUDIO_FRAMES,
    SUM_AUDIO_ERROR,
    SUM_AUDIO_POWER,
    SUM_AUDIO_DISTANCE,
    SUM_ONSET_THERE,
    SUM_ONSET_CLAIMED,
    SUM_ONSET_BOTH,
    EVAL_SUMS
};

// Questions that are not a forecast: R^2 of what one sense tells of another.
#define EVAL_PROBE_TABLE(X)                                                                                  \
    X(INVERSE, "inverse_dynamics", "inverse dynamics R2: actions from true observations")                    \
    X(OWN_VIDEO, "own_video_actions", "R2 of actions read back from the model's own future")                 \
    X(CROSS_TOUCH, "cross_touch", "touch R2 from video and action, touch and audio hidden")                  \
    X(CROSS_AUDIO, "cross_audio", "audio R2 from video and action, touch and audio hidden")
enum eval_probe {
#define X(id, name, label) PROBE_##id,
    EVAL_PROBE_TABLE(X)
#undef X
        EVAL_PROBES
};
const char *eval_probe_name(int probe);
const char *eval_probe_label(int probe);

int64_t eval_record_elems(int64_t horizon);
double *eval_record_cell(double *record, int64_t horizon, int row, int64_t h); // [EVAL_SUMS], h from 0
double *eval_record_probe(double *record, int64_t horizon, int probe);         // [2]: error, power

// One number per (row, horizons): a function of its cell and of copy-last's.
struct eval_metric {
    const char *name, *label, *unit; // "psnr", "PSNR", "dB"
    bool more_is_better;
    int digits;                                                   // after the point, for people
    double (*value)(const double *cell, const double *copy_last); // NaN: nothing to measure
};
enum eval_metric_number {
    METRIC_PSNR,
    METRIC_PSNR_NEAR,
    METRIC_PSNR_MOVING,
    METRIC_SSIM,
    METRIC_SKILL,
    METRIC_PUSHER,
    METRIC_PUCK,
    METRIC_CONTACT_F1,
    METRIC_TOUCH_R2,
    METRIC_FORCE_RMSE,
    METRIC_AUDIO_R2,
    METRIC_AUDIO_DISTANCE,
    METRIC_ONSET_F1,
    EVAL_METRICS
};
const struct eval_metric *eval_metric_at(int metric);

// What is wanted of the demo: the bars. They stand for its config and world alone (eval.bars), and each only
// where the data and the model have what it asks about.
enum { EVAL_BARS = 10 };
enum eval_has {
    EVAL_HAS_VIDEO = 1,
    EVAL_HAS_OBJECTS = 2,
    EVAL_HAS_ACTION = 4,
    EVAL_HAS_WRONG = 8,
    EVAL_HAS_TOUCH = 16,
    EVAL_HAS_AUDIO = 32,
    EVAL_HAS_H6 = 64, // six horizons
};
struct eval_bar {
    const char *name, *label;
    bool at_least;  // value >= threshold; else value <= threshold
    unsigned needs; // of enum eval_has
    double threshold;
};
const struct eval_bar *eval_bar_at(int bar);
// False where the value is NaN.
bool eval_bar_passes(int bar, double value);

// All numbers of one sum of records: metrics first, index ((row * EVAL_METRICS) + metric) * (horizon + 1) + h
// with h = 0 over all horizons and h = 1 .. horizon for one; then probes; then bars.
int64_t eval_numbers_count(int64_t horizon);
int64_t eval_number_metric(int64_t horizon, int row, int metric, int64_t h);
int64_t eval_number_probe(int64_t horizon, int probe);
int64_t eval_number_bar(int64_t horizon, int bar);
void eval_numbers(const double *sum, int64_t horizon, double *out);

#endif
