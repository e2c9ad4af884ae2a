// SPDX-License-Identifier: Apache-2.0
// The table world's inside: what its physics hands to its senses. Used by table*.c alone.
//
// A square table of edge 1 with walls. A heavy pusher follows velocity commands; pucks slide, slow down,
// bounce off the walls, the pusher and each other. A puck's mass and friction cannot be seen; its sound tells
// of the mass.
#ifndef ORRERY_TRAINER_WORLDS_TABLE_H
#define ORRERY_TRAINER_WORLDS_TABLE_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define TABLE_FRAME_HZ      10
#define TABLE_STEPS         20 // physics steps per frame
#define TABLE_TOUCH_HZ      100
#define TABLE_AUDIO_HZ      16000
#define TABLE_SIDE          32 // pixels
#define TABLE_PUCKS_MAX     3
#define TABLE_MODES         2
#define TABLE_PUSHER_RADIUS 0.11
#define TABLE_PUCK_RADIUS   0.12
#define TABLE_PUSHER_MASS   3.0
#define TABLE_TOUCH_SCALE   0.1 // asinh(impulse / scale) is O(1)

struct table_knobs {
    double pucks, mass, friction, dish, restitution, latency, lighting, texture, camera_x, camera_y,
        sensor_noise;
};

struct table_puck {
    double mass, damping;     // kg, 1/s
    double dish;              // 1/s^2
    double pitch_hz, decay_s; // of its lowest mode
};

// What happened in one episode. Frame f is the state at the end of the interval in which command f acted.
struct table_trace {
    int64_t frames;
    int pucks;
    struct table_puck puck[TABLE_PUCKS_MAX];
    float *action;                               // [frames][2], as commanded
    float *place;                                // [frames][1 + pucks][2], pusher first
    float *touch;                                // [frames * 10][2], impulse on the pusher
    float *strike[TABLE_PUCKS_MAX][TABLE_MODES]; // [frames * TABLE_STEPS], blows that make a mode ring
};

int table_simulate(uint64_t seed, int64_t episode, int64_t frames, const struct table_knobs *knobs,
                   struct table_trace *out, struct err *e) ERR_CHECK;
void table_trace_fini(struct table_trace *t);

// Senses, each appended to `out` as the bytes of its member. Noise is a pure function of (seed, episode).
int table_video(const struct table_trace *t, const struct table_knobs *knobs, uint64_t seed, int64_t episode,
                struct buf *out, struct err *e) ERR_CHECK;
int table_audio(const struct table_trace *t, const struct table_knobs *knobs, uint64_t seed, int64_t episode,
                struct buf *out, struct err *e) ERR_CHECK;
int table_touch(const struct table_trace *t, const struct table_knobs *knobs, uint64_t seed, int64_t episode,
                struct buf *out, struct err *e) ERR_CHECK;

#endif
