// SPDX-License-Identifier: Apache-2.0
// The table world's row: its knobs, and an episode as members of a sample.
#include "trainer/worlds/table.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "trainer/media_npy.h"
#include "trainer/worlds/world.h"

#define MEMBER_MAX ((size_t)1 << 30)

// In the order of struct table_knobs.
static const struct world_knob table_knob_rows[] = {
    {"pucks", 1, 1, TABLE_PUCKS_MAX, true, "how many pucks lie on the table"},
    {"mass", 1, 0.25, 4, false, "the pucks' masses (0.4 to 2.5) times this; their sounds stay"},
    {"friction", 1, 0, 4, false, "the pucks' damping (0.2 to 1.2 per second) times this"},
    {"dish", 1.2, -2, 4, false, "pull of the dished table on a puck towards the middle, 1/s^2; 0: flat"},
    {"restitution", 1, 0, 1.1, false, "every bounce (0.9 wall, 0.6 pusher) times this, at most 1"},
    {"latency", 0, 0, 10, true, "frames between a command and its acting"},
    {"lighting", 1, 0.1, 1, false, "brightness of the pictures"},
    {"texture", 0, 0, 1, false, "height of a pattern behind the objects, of full brightness"},
    {"camera_x", 0, -0.3, 0.3, false, "the camera's offset to the right, in table widths"},
    {"camera_y", 0, -0.3, 0.3, false, "the camera's offset down, in table heights"},
    {"sensor_noise", 0, 0, 1, false,
     "standard deviation of noise on pictures (of full brightness), touch and sound"},
};
#define KNOBS (sizeof table_knob_rows / sizeof *table_knob_rows)

static struct table_knobs table_knobs_of(const double *v) {
    struct table_knobs k = {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10]};
    return k;
}

// A stream of intervals (action, touch, sound) begins a frame before the first picture: its t0 is -1 / rate.
static int table_streams(struct stream_schema *out, int pucks) {
    const double before = -1.0 / TABLE_FRAME_HZ;
    const struct stream_schema streams[] = {
        {"action", "action", "action.npy", "f32", 1, {2}, TABLE_FRAME_HZ, before, "of full speed", 0.6},
        {"touch", "touch", "touch.npy", "f32", 1, {2}, TABLE_TOUCH_HZ, before, "N s", TABLE_TOUCH_SCALE},
        {"audio", "audio", "audio.flac", "i16", 0, {0}, TABLE_AUDIO_HZ, before, "full scale", 0},
        {"video", "video", "video.png", "u8", 3, {TABLE_SIDE, TABLE_SIDE, 2}, TABLE_FRAME_HZ, 0, "of 255", 0},
        {"state", "state", "state.npy", "f32", 2, {1 + pucks, 2}, TABLE_FRAME_HZ, 0, "table edge", 0},
    };
    memcpy(out, streams, sizeof streams);
    return (int)(sizeof streams / sizeof *streams);
}

static void table_write_objects(struct json_writer *w, const struct table_trace *t) {
    json_put_array(w, "objects");
    json_put_object(w, NULL);
    json_put_string(w, "kind", "pusher");
    json_put_double(w, "radius", TABLE_PUSHER_RADIUS);
    json_put_double(w, "mass", TABLE_PUSHER_MASS);
    json_close(w, '}');
    for (int i = 0; i < t->pucks; i++) {
        json_put_object(w, NULL);
        json_put_string(w, "kind", "puck");
        json_put_double(w, "radius", TABLE_PUCK_RADIUS);
        json_put_double(w, "mass", t->puck[i].mass);
        json_put_double(w, "damping", t->puck[i].damping);
        json_put_double(w, "pitch_hz", t->puck[i].pitch_hz);
        json_put_double(w, "decay_s", t->puck[i].decay_s);
        json_close(w, '}');
    }
    json_close(w, ']');
}

static int table_write_simulator(const struct table_trace *t, uint64_t seed, int64_t episode,
                                 const double *knob_values, struct buf *out, struct err *e) {
    struct json_writer w;
    json_begin(&w, out);
    json_put_object(&w, NULL);
    json_put_string(&w, "world", "table");
    json_put_int(&w, "seed", (int64_t)seed);
    json_put_int(&w, "episode", episode);
    json_put_object(&w, "knobs");
    for (size_t i = 0; i < KNOBS; i++) json_put_double(&w, table_knob_rows[i].name, knob_values[i]);
    json_close(&w, '}');
    table_write_objects(&w, t);
    json_close(&w, '}');
    return json_end(&w, e);
}

static int table_metadata(const struct table_trace *t, uint64_t seed, int64_t episode,
                          const double *knob_values, const char *split, struct buf *out, struct err *e) {
    struct sample_meta meta = {
        .embodiment = "table-pusher", .licence = "CC0-1.0", .frames = t->frames, .rate_hz = TABLE_FRAME_HZ};
    struct buf simulator;
    snprintf(meta.id, sizeof meta.id, "table-%llu-%lld", (unsigned long long)seed, (long long)episode);
    snprintf(meta.split, sizeof meta.split, "%s", split);
    meta.n_streams = table_streams(meta.streams, t->pucks);
    buf_init(&simulator, SAMPLE_META_BYTES_MAX);
    int rc = table_write_simulator(t, seed, episode, knob_values, &simulator, e);
    if (!rc) rc = sample_meta_write(&meta, simulator.data, out, e);
    buf_fini(&simulator);
    return rc;
}

static struct buf *table_member(struct world_episode *ep, const char *name) {
    struct world_member *m = &ep->members[ep->n++];
    snprintf(m->name, sizeof m->name, "%s", name);
    buf_init(&m->bytes, MEMBER_MAX);
    return &m->bytes;
}

static int table_make(uint64_t seed, int64_t episode, int64_t frames, const double *knob_values,
                      const char *split, struct world_episode *out, struct err *e) {
    struct table_knobs knobs = table_knobs_of(knob_values);
    struct table_trace t;
    memset(out, 0, sizeof *out);
    int rc = table_simulate(seed, episode, frames, &knobs, &t, e);
    if (rc) return rc;
    int64_t action[2] = {frames, 2}, state[3] = {frames, 1 + t.pucks, 2};
    rc = table_metadata(&t, seed, episode, knob_values, split, table_member(out, "json"), e);
    if (!rc) rc = media_npy_write(table_member(out, "action.npy"), 2, action, t.action, e);
    if (!rc) rc = table_touch(&t, &knobs, seed, episode, table_member(out, "touch.npy"), e);
    if (!rc) rc = table_audio(&t, &knobs, seed, episode, table_member(out, "audio.flac"), e);
    if (!rc) rc = table_video(&t, &knobs, seed, episode, table_member(out, "video.png"), e);
    if (!rc) rc = media_npy_write(table_member(out, "state.npy"), 3, state, t.place, e);
    table_trace_fini(&t);
    if (rc) world_episode_fini(out);
    return rc;
}

extern const struct world world_table;
const struct world world_table = {
    .name = "table",
    .version = 2,
    .help = "a pusher moved by the action, pucks with hidden mass and material, walls; seen, felt and heard",
    .knobs = table_knob_rows,
    .n_knobs = KNOBS,
    .make = table_make,
};
