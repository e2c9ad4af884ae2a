// SPDX-License-Identifier: Apache-2.0
#include "trainer/rollout_show.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/eval_measure.h"
#include "trainer/evaluate.h"
#include "trainer/metrics_signal.h"
#include "trainer/rollout_draw.h"

#define CANDIDATES 16 // windows looked at for each one shown
#define FILE_MAX   ((size_t)256 << 20)

struct show {
    const struct rollout_show_request *q;
    int64_t n, context, frames, strip;  // sequences; frames given, of a sequence, in the strip
    int64_t *episode, *first_frame;     // [n], chosen
    const struct eval_windows *windows; // to choose from
    struct batch truth;
    float *model[OPS_MODALITIES_MAX];
};

static int64_t longest(const struct eval_source *s) {
    int64_t most = 0;
    for (int64_t i = 0; i < s->episodes; i++) {
        int64_t n = s->frames(s->arg, i);
        most = n > most ? n : most;
    }
    return most;
}

static bool is_touched(const struct show *s, const struct batch *b, int touch) {
    const struct modality_spec *spec = &s->q->set->spec[touch];
    int64_t channels =
        spec->stream.rank > 0 && spec->stream.shape[0] > 0 ? spec->stream.shape[0] : spec->frame_elems;
    for (int64_t f = s->context; f < s->strip; f++)
        if (metrics_contact_level(b->x[touch] + f * spec->frame_elems, spec->frame_elems / channels,
                                  channels) > METRICS_CONTACT_TRUE)
            return true;
    return false;
}

// How much the picture changes from the last given one to the last of the strip, of those that are there; of
// objects, all but the pusher.
static double change(const struct show *s, const struct batch *b, int video) {
    const struct modality_spec *spec = &s->q->set->spec[video];
    int64_t given = baseline_last_there(b->valid[video], s->context);
    int64_t last = baseline_last_there(b->valid[video], s->strip);
    if (given < 0) return 0;
    const float *from = b->x[video] + given * spec->frame_elems, *to = b->x[video] + last * spec->frame_elems;
    int64_t skip = spec->grid.channels == 2 ? 1 : 0;
    double sum = 0;
    for (int64_t i = 0; i < spec->frame_elems; i++)
        if (i % spec->grid.channels >= skip) sum += fabs((double)to[i] - (double)from[i]);
    return sum;
}

// All doubles, as ranks tell each other.
struct look {
    double moved, touched, broken;
};

// A broken window is marked where data.on_error says so.
static int look_at(void *arg, int64_t window, double *block, struct err *e) {
    const struct show *s = arg;
    int touch = eval_find(s->q->set, "touch");
    struct batch b = {0};
    struct look look = {0};
    const struct eval_source *source = &s->q->source;
    int rc = source->window(source->arg, s->windows->episode + window, s->windows->first_frame + window, 1,
                            s->frames, &b, e);
    if (!rc) {
        look.moved = change(s, &b, eval_find(s->q->set, "video"));
        look.touched = touch >= 0 && is_touched(s, &b, touch);
    }
    batch_fini(&b);
    look.broken = rc && data_passes_over(s->q->config, e);
    memcpy(block, &look, sizeof look);
    if (look.broken == 0) return rc;
    err_clear(e);
    return 0;
}

// One point for a contact, one for more motion than half of the candidates have: typical events, not extreme
// ones.
static int points(const struct look *looks, int64_t n, int64_t i) {
    int64_t calmer = 0;
    for (int64_t k = 0; k < n; k++) calmer += looks[k].moved < looks[i].moved;
    return (looks[i].touched != 0) + (2 * calmer >= n);
}

// The first windows with two points, then those with one, then the rest. Fewer than asked for where more are
// broken.
static int pick(struct show *s, const struct eval_windows *w, const struct look *looks, struct err *e) {
    int64_t found = 0;
    for (int want = 2; want >= 0; want--)
        for (int64_t i = 0; i < w->n && found < s->n; i++) {
            if (looks[i].broken != 0 || points(looks, w->n, i) != want) continue;
            s->episode[found] = w->episode[i];
            s->first_frame[found++] = w->first_frame[i];
        }
    s->n = found;
    return found ? 0
                 : err_set(e, ERR_DATA,
                           "all %lld windows of data.eval that might be drawn are in broken samples",
                           (long long)w->n);
}

static int choose(struct show *s, struct err *e) {
    struct eval_windows w;
    int64_t n = s->n * CANDIDATES;
    int rc = eval_windows_init(&w, &s->q->source, n, s->frames, EVAL_SEED, e);
    if (rc) return rc;
    double *looks = NULL;
    struct eval_deal deal = {.coll = s->q->coll,
                             .watch = s->q->watch,
                             .name = "rollout: windows",
                             .of = "windows",
                             .count = n,
                             .each = 1,
                             .block_elems = sizeof(struct look) / sizeof(double),
                             .fn = look_at,
                             .arg = s};
    s->windows = &w;
    rc = eval_deal_run(&deal, &looks, e);
    if (!rc) rc = pick(s, &w, (const struct look *)looks, e);
    s->windows = NULL;
    free(looks);
    eval_windows_fini(&w);
    return rc;
}

// Sequences [first, first + count): no more at a time than an evaluation has, which plans of memory count.
static int generate_some(struct show *s, int64_t first, int64_t count, struct err *e) {
    const struct rollout_show_request *q = s->q;
    uint64_t sample[EVALUATE_CHUNK];
    struct rollout_request r = {.mode = ROLLOUT_SIMULATE,
                                .sequences = count,
                                .frames = s->frames,
                                .context = s->context,
                                .window = q->config->data_frames,
                                .steps = 1,
                                .seed = (uint64_t)q->config->run_seed,
                                .sample = sample};
    for (int64_t i = 0; i < count; i++) sample[i] = (uint64_t)(first + i);
    for (int m = 0; m < q->set->n; m++) {
        r.x[m] = s->model[m] + first * s->frames * q->set->spec[m].frame_elems;
        r.valid[m] = s->truth.valid[m] + first * s->frames;
    }
    return rollout_run(&q->predictor, q->set, &r, e);
}

static int generate(struct show *s, struct err *e) {
    const struct rollout_show_request *q = s->q;
    int rc = q->source.window(q->source.arg, s->episode, s->first_frame, s->n, s->frames, &s->truth, e);
    for (int m = 0; m < q->set->n && !rc; m++) {
        size_t bytes = sizeof(float) * (size_t)(s->n * s->frames * q->set->spec[m].frame_elems);
        s->model[m] = malloc(bytes);
        if (!s->model[m])
            rc = err_set(e, ERR_MEMORY, "no memory for %zu bytes of rollout", bytes);
        else
            memcpy(s->model[m], s->truth.x[m], bytes);
    }
    for (int64_t i = 0; i < s->n && !rc; i += EVALUATE_CHUNK)
        rc = generate_some(s, i, s->n - i < EVALUATE_CHUNK ? s->n - i : EVALUATE_CHUNK, e);
    return rc;
}

static int write_picture(const char *run_dir, const char *name, struct buf *bytes, struct err *e) {
    char path[CONFIG_TEXT_BYTES + 64];
    snprintf(path, sizeof path, "%s/rollouts", run_dir);
    int rc = bytes_make_dirs(path, e);
    snprintf(path, sizeof path, "%s/rollouts/%s", run_dir, name);
    if (!rc) rc = bytes_write_file(path, bytes->data, bytes->len, e);
    buf_clear(bytes);
    return rc;
}

static int draw(struct show *s, const char *run_dir, struct err *e) {
    struct rollout_draw d = {.set = s->q->set, .count = s->n, .frames = s->frames, .context = s->context};
    struct buf bytes;
    for (int m = 0; m < s->q->set->n; m++) {
        d.truth[m] = s->truth.x[m];
        d.model[m] = s->model[m];
        d.valid[m] = s->truth.valid[m];
    }
    buf_init(&bytes, FILE_MAX);
    int rc = rollout_draw_strip(&d, s->strip, &bytes, e);
    if (!rc) rc = write_picture(run_dir, "strip.png", &bytes, e);
    if (!rc) rc = rollout_draw_gif(&d, &bytes, e);
    if (!rc) rc = write_picture(run_dir, "rollout.gif", &bytes, e);
    buf_fini(&bytes);
    return rc;
}

static int show_init(struct show *s, struct err *e) {
    const struct config *c = s->q->config;
    int64_t most = longest(&s->q->source);
    s->n = c->rollout_sequences;
    s->context = c->eval_context;
    s->frames = c->eval_context + (c->rollout_frames > c->eval_horizon ? c->rollout_frames : c->eval_horizon);
    if (s->frames > most && most > s->context) s->frames = most;
    s->strip = c->eval_context + c->eval_horizon < s->frames ? c->eval_context + c->eval_horizon : s->frames;
    s->episode = calloc((size_t)s->n, sizeof *s->episode);
    s->first_frame = calloc((size_t)s->n, sizeof *s->first_frame);
    return s->episode && s->first_frame
               ? 0
               : err_set(e, ERR_MEMORY, "no memory for %lld sequences", (long long)s->n);
}

static void show_fini(struct show *s) {
    for (int m = 0; m < OPS_MODALITIES_MAX; m++) free(s->model[m]);
    batch_fini(&s->truth);
    free(s->episode);
    free(s->first_frame);
}

int rollout_show(const struct rollout_show_request *q, const char *run_dir, struct err *e) {
    struct show s = {.q = q};
    if (eval_find(q->set, "video") < 0) return err_set(e, ERR_BUG, "pictures without video");
    int rc = show_init(&s, e);
    if (!rc) rc = choose(&s, e);
    bool draws = !q->coll || coll_rank(q->coll) == 0;
    if (!rc && draws) rc = generate(&s, e);
    if (!rc && draws) rc = draw(&s, run_dir, e);
    show_fini(&s);
    return rc;
}
