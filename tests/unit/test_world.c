// SPDX-License-Identifier: Apache-2.0
// The table world: a pure function of (seed, episode, knobs) whose physics holds together.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/rng.h"
#include "trainer/media_npy.h"
#include "trainer/media_png.h"
#include "trainer/worlds/table.h"
#include "trainer/worlds/world.h"

#define SEED 11

static uint64_t mix(uint64_t h, const void *data, size_t n) {
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) h = rng_mix64(h ^ p[i]);
    return h;
}

static uint64_t digest(uint64_t seed, int64_t episode, const char *knobs) {
    const struct world *w = world_find("table");
    double values[16];
    struct err e = {0};
    struct world_episode ep;
    uint64_t h = 1;
    assert_int_equal(world_parse_knobs(w, knobs, values, &e), 0);
    assert_int_equal(w->make(seed, episode, 40, values, "train", &ep, &e), 0);
    for (int i = 0; i < ep.n; i++) h = mix(h, ep.members[i].bytes.data, ep.members[i].bytes.len);
    world_episode_fini(&ep);
    return h;
}

static struct table_trace simulate(int64_t episode, int64_t frames, const char *knobs) {
    const struct world *w = world_find("table");
    double v[16];
    struct err e = {0};
    struct table_trace t;
    assert_int_equal(world_parse_knobs(w, knobs, v, &e), 0);
    struct table_knobs k = {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10]};
    assert_int_equal(table_simulate(SEED, episode, frames, &k, &t, &e), 0);
    return t;
}

static const float *place(const struct table_trace *t, int64_t frame, int object) {
    return t->place + (frame * (1 + t->pucks) + object) * 2;
}

static void same_bytes_in_any_process(void **state) {
    (void)state;
    uint64_t here = digest(SEED, 3, "pucks=2,texture=0.2,sensor_noise=0.05"), there = 0;
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (!child) {
        digest(SEED + 1, 99, ""); // what was made before must not matter
        uint64_t h = digest(SEED, 3, "pucks=2,texture=0.2,sensor_noise=0.05");
        _exit(write(ends[1], &h, sizeof h) != sizeof h);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(read(ends[0], &there, sizeof there), sizeof there);
    close(ends[0]);
    close(ends[1]);
    assert_true(here == there);
    assert_true(here == digest(SEED, 3, "pucks=2,texture=0.2,sensor_noise=0.05"));
}

static void every_input_matters(void **state) {
    (void)state;
    static const char *const knobs[] = {"",
                                        "pucks=2",
                                        "mass=2",
                                        "friction=2",
                                        "dish=0",
                                        "latency=2",
                                        "lighting=0.5",
                                        "texture=0.1",
                                        "camera_x=0.1",
                                        "camera_y=0.1",
                                        "sensor_noise=0.1",
                                        "restitution=0.5"};
    enum { N = sizeof knobs / sizeof *knobs };
    uint64_t seen[N + 2];
    for (int i = 0; i < N; i++) seen[i] = digest(SEED, 3, knobs[i]);
    seen[N] = digest(SEED + 1, 3, "");
    seen[N + 1] = digest(SEED, 4, "");
    for (int i = 0; i < N + 2; i++)
        for (int k = 0; k < i; k++) assert_true(seen[i] != seen[k]);
}

static void knobs_are_checked(void **state) {
    (void)state;
    static const char *const bad[] = {
        "pucks",   "pucks=2.5",    "latency=0.5", "pucks=",   "pucks=four",   "pucks=4",
        "speed=1", "friction=nan", "=1",          "mass=1,,", "camera_x=0.31"};
    const struct world *w = world_find("table");
    double v[16];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        assert_int_equal(world_parse_knobs(w, bad[i], v, &e), -ERR_CONFIG);
    }
    struct err e = {0};
    assert_int_equal(world_parse_knobs(w, "friction=0.5,pucks=3", v, &e), 0);
    assert_true(v[0] == 3 && v[1] == 1 && v[2] == 0.5);
    assert_null(world_find("chair"));
    assert_ptr_equal(world_at(0), w);
}

static void walls_contain_everything(void **state) {
    (void)state;
    for (int64_t episode = 0; episode < 40; episode++) {
        struct table_trace t =
            simulate(episode, 100, episode % 2 ? "pucks=3,restitution=1.1,friction=0" : "");
        for (int64_t f = 0; f < t.frames; f++) {
            for (int i = 0; i <= t.pucks; i++) {
                double r = i ? TABLE_PUCK_RADIUS : TABLE_PUSHER_RADIUS;
                for (int k = 0; k < 2; k++) {
                    double x = place(&t, f, i)[k];
                    assert_true(x > r - 0.02 && x < 1 - r + 0.02);
                }
            }
        }
        table_trace_fini(&t);
    }
}

// After 0.1 s under one command the pusher's velocity is 0.8 of it, but at the gantry's ends and in contact.
static void pusher_follows_its_commands(void **state) {
    (void)state;
    struct table_trace t = simulate(5, 200, "");
    int compared = 0;
    for (int64_t f = 1; f < t.frames; f++) {
        const float *now = place(&t, f, 0), *before = place(&t, f - 1, 0);
        double felt = 0;
        for (int64_t i = 20 * (f - 1); i < 20 * (f + 1); i++) felt += fabsf(t.touch[i]);
        for (int k = 0; k < 2; k++) {
            double old = 0.8 * t.action[2 * (f - 1) + k], wanted = 0.8 * t.action[2 * f + k];
            double expect = before[k] + 0.1 * wanted + 0.02 * (old - wanted);
            if (felt > 0 || before[k] < 0.12 || before[k] > 0.88 || expect < 0.12 || expect > 0.88) continue;
            assert_true(fabs(now[k] - expect) < 0.004);
            compared++;
        }
    }
    assert_true(compared > 100);
    table_trace_fini(&t);
}

static void latency_delays_the_pusher(void **state) {
    (void)state;
    struct table_trace t = simulate(5, 12, "latency=10");
    for (int64_t f = 1; f < 10; f++)
        for (int k = 0; k < 2; k++) assert_true(fabsf(place(&t, f, 0)[k] - place(&t, 0, 0)[k]) < 1e-3f);
    table_trace_fini(&t);
}

// On a flat table without friction, what a single clean hit gives the puck is the impulse felt over its mass.
static void hits_transfer_momentum(void **state) {
    (void)state;
    int compared = 0;
    for (int64_t episode = 0; episode < 60; episode++) {
        struct table_trace t = simulate(episode, 60, "dish=0,friction=0");
        for (int64_t f = 2; f + 2 < t.frames; f++) {
            double jx = 0, jy = 0, around = 0;
            for (int64_t i = 10 * (f - 1); i < 10 * (f + 2); i++) {
                double x = t.touch[2 * i], y = t.touch[2 * i + 1];
                if (i / 10 == f) jx += x, jy += y;
                if (i / 10 != f) around += fabs(x) + fabs(y);
            }
            bool wall = false;
            for (int64_t g = f - 2; g <= f + 1; g++)
                for (int k = 0; k < 2; k++) wall |= fabsf(place(&t, g, 1)[k] - 0.5f) > 0.3f;
            if (wall || around > 0 || jx * jx + jy * jy < 0.01) continue;
            for (int k = 0; k < 2; k++) {
                double before = (place(&t, f - 1, 1)[k] - place(&t, f - 2, 1)[k]) * 10;
                double after = (place(&t, f + 1, 1)[k] - place(&t, f, 1)[k]) * 10;
                assert_true(fabs((after - before) * t.puck[0].mass + (k ? jy : jx)) < 0.02);
            }
            compared++;
        }
        table_trace_fini(&t);
    }
    assert_true(compared > 20);
}

static void heavy_is_low(void **state) {
    (void)state;
    struct table_trace light = {0}, heavy = {0};
    for (int64_t episode = 0; !light.frames || !heavy.frames; episode++) {
        struct table_trace t = simulate(episode, 2, "");
        if (t.puck[0].mass < 0.6 && !light.frames)
            light = t;
        else if (t.puck[0].mass > 1.7 && !heavy.frames)
            heavy = t;
        else
            table_trace_fini(&t);
    }
    assert_true(light.puck[0].pitch_hz > 1.5 * heavy.puck[0].pitch_hz);
    assert_true(light.puck[0].decay_s < heavy.puck[0].decay_s);
    table_trace_fini(&light);
    table_trace_fini(&heavy);
}

// The share of frames with contact stays near the reference's, from an episode's beginning to its end.
static void episodes_stay_interesting(void **state) {
    (void)state;
    int64_t touched[2] = {0}, moving[2] = {0}, frames[2] = {0};
    for (int64_t episode = 0; episode < 150; episode++) {
        struct table_trace t = simulate(episode, 100, "");
        for (int64_t f = 1; f < t.frames; f++) {
            int half = f >= 50;
            double x = 0, y = 0;
            for (int64_t i = 10 * f; i < 10 * f + 10; i++) x += t.touch[2 * i], y += t.touch[2 * i + 1];
            const float *now = place(&t, f, 1), *before = place(&t, f - 1, 1);
            touched[half] += hypot(x, y) > 0.03;
            moving[half] += hypotf(now[0] - before[0], now[1] - before[1]) > 0.002f;
            frames[half]++;
        }
        table_trace_fini(&t);
    }
    for (int half = 0; half < 2; half++) {
        double share = (double)touched[half] / (double)frames[half];
        assert_true(share > 0.12 && share < 0.3);
        assert_true((double)moving[half] > 0.8 * (double)frames[half]);
    }
}

static const struct buf *member(const struct world_episode *ep, const char *name) {
    for (int i = 0; i < ep->n; i++)
        if (!strcmp(ep->members[i].name, name)) return &ep->members[i].bytes;
    fail_msg("no member %s", name);
    return NULL;
}

// Every pixel is where the recipe's formula puts it.
static void pictures_show_the_state(void **state) {
    (void)state;
    const struct world *w = world_find("table");
    struct err e = {0};
    double v[16];
    struct world_episode ep;
    struct media_image image;
    struct media_npy at;
    assert_int_equal(world_parse_knobs(w, "", v, &e), 0);
    assert_int_equal(w->make(SEED, 7, 30, v, "eval", &ep, &e), 0);
    const struct buf *png = member(&ep, "video.png"), *npy = member(&ep, "state.npy");
    assert_int_equal(media_png_read(png->data, png->len, 1 << 20, &image, &e), 0);
    assert_int_equal(media_npy_read(npy->data, npy->len, 1 << 20, &at, &e), 0);
    assert_int_equal(image.height, 30 * 32);
    assert_int_equal(image.channels, 2);
    for (int64_t i = 0; i < 30 * 32 * 32 * 2; i++) {
        int64_t c = i % 2, x = i / 2 % 32, y = i / 64 % 32, f = i / 2048;
        const float *p = at.data + (f * 2 + c) * 2;
        double d = hypot(((double)x + 0.5) / 32 - p[0], ((double)y + 0.5) / 32 - p[1]);
        double want = fmin(fmax(0.5 + ((c ? 0.12 : 0.11) - d) * 32 / 1.5, 0), 1) * 255;
        assert_true(fabs(image.pixels[i] - want) <= 1);
    }
    media_image_fini(&image);
    media_npy_fini(&at);
    world_episode_fini(&ep);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_in_any_process),   cmocka_unit_test(every_input_matters),
        cmocka_unit_test(knobs_are_checked),           cmocka_unit_test(walls_contain_everything),
        cmocka_unit_test(pusher_follows_its_commands), cmocka_unit_test(latency_delays_the_pusher),
        cmocka_unit_test(hits_transfer_momentum),      cmocka_unit_test(heavy_is_low),
        cmocka_unit_test(episodes_stay_interesting),   cmocka_unit_test(pictures_show_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
