// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/metrics_image.h"
#include "trainer/metrics_signal.h"

#define ONSET_SHARE 0.5               // of the audio's spread: a rise above it is an onset
#define AUDIO_DB    8.685889638065036 // the features are half the natural log of power: 20 / ln 10 dB a unit

int eval_find(const struct modality_set *set, const char *name) {
    for (int m = 0; m < set->n; m++)
        if (strcmp(set->spec[m].modality->name, name) == 0) return m;
    return -1;
}

void eval_picture(const float *x, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) {
        float v = 0.5f * x[i];
        out[i] = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
    }
}

int eval_measure_init(struct eval_measure *m, const struct modality_set *set,
                      const struct baseline_means *truth, bool objects, int64_t frames, int64_t context,
                      struct err *e) {
    *m = (struct eval_measure){
        .set = set, .truth = truth, .objects = objects, .frames = frames, .context = context};
    m->video = eval_find(set, "video");
    m->touch = eval_find(set, "touch");
    m->audio = eval_find(set, "audio");
    m->action = set->action;
    if (m->video < 0) return 0;
    size_t n = (size_t)set->spec[m->video].frame_elems;
    m->last = calloc(n, sizeof(float));
    m->there = calloc(n, sizeof(float));
    m->guess = calloc(n, sizeof(float));
    m->near = calloc(n, 1);
    m->moving = calloc(n, 1);
    if (m->last && m->there && m->guess && m->near && m->moving) return 0;
    eval_measure_fini(m);
    return err_set(e, ERR_MEMORY, "no memory for pictures of %zu values", n);
}

void eval_measure_fini(struct eval_measure *m) {
    free(m->last);
    free(m->there);
    free(m->guess);
    free(m->near);
    free(m->moving);
    m->last = m->there = m->guess = NULL;
    m->near = m->moving = NULL;
}

static bool is_valid(const struct eval_sequence *q, int modality, int64_t f) {
    return !q->valid[modality] || q->valid[modality][f];
}

// ---- video.
static struct image_shape shape_of(const struct eval_measure *m) {
    const struct patch_grid *g = &m->set->spec[m->video].grid;
    return (struct image_shape){g->height, g->width, g->channels};
}

static double centroid_distance(const struct eval_measure *m, int channel) {
    double a[2], b[2];
    metrics_centroid(m->there, shape_of(m), channel, a);
    metrics_centroid(m->guess, shape_of(m), channel, b);
    return hypot(a[0] - b[0], a[1] - b[1]);
}

static int add_picture(struct eval_measure *m, const float *guess, double *cell, struct err *e) {
    struct image_shape s = shape_of(m);
    int64_t n = s.height * s.width * s.channels;
    double count, similarity;
    eval_picture(guess, n, m->guess);
    cell[SUM_PIXELS] += (double)n;
    cell[SUM_ERROR] += metrics_squared_error(m->guess, m->there, n);
    cell[SUM_MOVING_ERROR] += metrics_region_error(m->guess, m->there, s, m->moving, -1, &count);
    cell[SUM_MOVING_PIXELS] += count;
    int rc = metrics_ssim(m->guess, m->there, s, &similarity, e);
    if (rc) return rc;
    cell[SUM_SSIM] += similarity;
    cell[SUM_FRAMES] += 1;
    if (!m->objects) return 0;
    cell[SUM_NEAR_ERROR] += metrics_region_error(m->guess, m->there, s, m->near, 0, &count);
    cell[SUM_NEAR_PIXELS] += count;
    cell[SUM_PUSHER] += centroid_distance(m, 0);
    cell[SUM_PUCK] += centroid_distance(m, 1);
    cell[SUM_OBJECT_FRAMES] += 1;
    return 0;
}

static int add_video(struct eval_measure *m, const struct eval_sequence *q, int64_t f, double *record,
                     struct err *e) {
    struct image_shape s = shape_of(m);
    int64_t n = s.height * s.width * s.channels;
    eval_picture(q->truth[m->video] + f * n, n, m->there);
    const float *before = m->given ? m->last : m->there; // without a given picture nothing is known to move
    metrics_moving_region(m->there, before, s, m->moving);
    if (m->objects) metrics_object_region(m->there, before, s, 0, m->near);
    for (int row = 0; row < EVAL_ROWS; row++) {
        const float *guess = q->guess[row][m->video];
        if (!guess) continue;
        double *cell = eval_record_cell(record, m->frames - m->context, row, f - m->context);
        int rc = add_picture(m, guess + f * n, cell, e);
        if (rc) return rc;
    }
    return 0;
}

// Is it claimed that something is there? What is no number claims the wrong thing.
static bool claims(double level, double threshold, bool there) {
    return there ? level > threshold : !(level <= threshold);
}

// ---- touch. Channels are the stream's; what is left of the frame's numbers are sub-samples.
static void add_touch(const struct eval_measure *m, const float *there, const float *guess, double *cell) {
    const struct modality_spec *spec = &m->set->spec[m->touch];
    int64_t channels =
        spec->stream.rank > 0 && spec->stream.shape[0] > 0 ? spec->stream.shape[0] : spec->frame_elems;
    int64_t subsamples = spec->frame_elems / channels;
    double force = (spec->stream.scale > 0 ? spec->stream.scale : 1.0) * spec->frame_hz;
    for (int64_t i = 0; i < spec->frame_elems; i++) {
        double d = (double)guess[i] - (double)there[i];
        cell[SUM_TOUCH_ERROR] += d * d;
        cell[SUM_TOUCH_POWER] += (double)there[i] * (double)there[i];
    }
    bool hit = metrics_contact_level(there, subsamples, channels) > METRICS_CONTACT_TRUE;
    bool claim = claims(metrics_contact_level(guess, subsamples, channels), METRICS_CONTACT_PRED, hit);
    cell[SUM_CONTACT_THERE] += hit;
    cell[SUM_CONTACT_CLAIMED] += claim;
    cell[SUM_CONTACT_BOTH] += hit && claim;
    cell[SUM_FORCE_ERROR] += force * force * metrics_impulse_error(there, guess, subsamples, channels);
    cell[SUM_TOUCH_FRAMES] += 1;
}

// ---- audio.
static void add_audio(const struct eval_measure *m, const float *there, const float *guess, double *cell) {
    int64_t n = m->set->spec[m->audio].frame_elems;
    const float *mean = m->truth->mean[m->audio];
    for (int64_t i = 0; i < n; i++) {
        double d = (double)guess[i] - (double)there[i], p = (double)there[i] - (double)mean[i];
        cell[SUM_AUDIO_ERROR] += d * d;
        cell[SUM_AUDIO_POWER] += p * p;
    }
    cell[SUM_AUDIO_DISTANCE] += AUDIO_DB * metrics_spectral_distance(there, guess, n);
    cell[SUM_AUDIO_FRAMES] += 1;
}

// Against the frame before, which must have been heard too.
static void add_onset(const struct eval_measure *m, const float *there, const float *guess, double *cell) {
    int64_t n = m->set->spec[m->audio].frame_elems;
    double level = ONSET_SHARE * m->truth->spread[m->audio];
    bool onset = metrics_rise(there - n, there, n) > level;
    bool claim = claims(metrics_rise(guess - n, guess, n), level, onset);
    cell[SUM_ONSET_THERE] += onset;
    cell[SUM_ONSET_CLAIMED] += claim;
    cell[SUM_ONSET_BOTH] += onset && claim;
}

typedef void add_fn(const struct eval_measure *m, const float *there, const float *guess, double *cell);

static void add_signal(struct eval_measure *m, const struct eval_sequence *q, int modality, add_fn *add,
                       int64_t f, double *record) {
    int64_t n = m->set->spec[modality].frame_elems;
    for (int row = 0; row < EVAL_ROWS; row++) {
        const float *guess = q->guess[row][modality];
        if (guess)
            add(m, q->truth[modality] + f * n, guess + f * n,
                eval_record_cell(record, m->frames - m->context, row, f - m->context));
    }
}

int eval_measure_forecast(struct eval_measure *m, const struct eval_sequence *q, double *record,
                          struct err *e) {
    if (m->video >= 0) {
        int64_t n = m->set->spec[m->video].frame_elems;
        int64_t last = baseline_last_there(q->valid[m->video], m->context);
        m->given = last >= 0;
        if (m->given) eval_picture(q->truth[m->video] + last * n, n, m->last);
    }
    for (int64_t f = m->context; f < m->frames; f++) {
        int rc = m->video >= 0 && is_valid(q, m->video, f) ? add_video(m, q, f, record, e) : 0;
        if (rc) return rc;
        if (m->touch >= 0 && is_valid(q, m->touch, f)) add_signal(m, q, m->touch, add_touch, f, record);
        bool heard = m->audio >= 0 && is_valid(q, m->audio, f);
        if (heard) add_signal(m, q, m->audio, add_audio, f, record);
        if (heard && is_valid(q, m->audio, f - 1)) add_signal(m, q, m->audio, add_onset, f, record);
    }
    return 0;
}

void eval_measure_probe(const struct eval_measure *m, int modality, const float *truth, const float *guess,
                        const unsigned char *valid, int64_t from, int64_t to, double *pair) {
    int64_t n = m->set->spec[modality].frame_elems;
    const float *mean = m->truth->mean[modality];
    for (int64_t f = from; f < to; f++) {
        if (valid && !valid[f]) continue;
        for (int64_t i = 0; i < n; i++) {
            double x = truth[f * n + i], d = (double)guess[f * n + i] - x, p = x - (double)mean[i];
            pair[0] += d * d;
            pair[1] += p * p;
        }
    }
}
