// SPDX-License-Identifier: Apache-2.0
// Films made by FFmpeg's encoders read back: pictures, order and times; hostile bytes and odd wishes are
// refused; the model's frames are the pictures nearest to them.
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "lib/mp4_make.h"
#include "trainer/media_mp4.h"
#include "trainer/modality.h"

enum { PICTURES = 40, WIDTH = 64, HEIGHT = 48, SIDE = 16 };

static int64_t even_ms[PICTURES], uneven_ms[PICTURES];

struct seen {
    int n, stop_at;
    bool ended;
    double at[PICTURES];
    int left[PICTURES], right[PICTURES]; // levels in the middle of either half
    int channels, width, height;
    uint64_t sum;
};

static int see(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct seen *s = arg;
    size_t row = (size_t)(s->width * s->channels), middle = (size_t)s->height / 2 * row;
    assert_false(s->ended);
    s->ended = !pixels;
    if (!pixels) return 0;
    assert_true(s->n < PICTURES);
    s->at[s->n] = at;
    s->left[s->n] = pixels[middle + row / 4 / (size_t)s->channels * (size_t)s->channels];
    s->right[s->n] = pixels[middle + row * 3 / 4 / (size_t)s->channels * (size_t)s->channels];
    for (size_t i = 0; i < row * (size_t)s->height; i++) s->sum = s->sum * 31 + pixels[i];
    return ++s->n == s->stop_at;
}

static char *film_of(const char *encoder, const int64_t *times, int b_frames, bool fragment, size_t *n) {
    struct mp4_make m = {encoder, WIDTH, HEIGHT, PICTURES, b_frames, times, fragment};
    return mp4_encode(&m, n);
}

static char *film(size_t *n) {
    char *bytes = film_of("mpeg4", even_ms, 0, false, n);
    assert_non_null(bytes);
    return bytes;
}

static const struct media_mp4_want grey = {SIDE, SIDE, 1, 10, 1 << 20, PICTURES};

static int decode(const char *bytes, size_t n, const struct media_mp4_want *want, struct seen *s,
                  struct err *e) {
    int stop = s->stop_at;
    *s = (struct seen){.channels = (int)want->channels,
                       .width = (int)want->width,
                       .height = (int)want->height,
                       .stop_at = stop};
    return media_mp4_decode(bytes, n, want, see, s, e);
}

// What a grey of this luma is, from the range 16 .. 235 to 0 .. 255, or as it is.
static int level_of(int luma, bool wide) {
    return wide ? luma : (int)lround((luma - 16) * 255.0 / 219.0);
}

static void check_film(const char *encoder, const int64_t *times, int b_frames, bool fragment, int channels) {
    struct err e = {0};
    struct seen s = {0};
    size_t n;
    struct media_mp4_want want = grey;
    want.channels = channels;
    char *bytes = film_of(encoder, times, b_frames, fragment, &n);
    if (!bytes) {
        printf("no encoder %s here\n", encoder);
        return;
    }
    if (decode(bytes, n, &want, &s, &e)) fail_msg("%s: %s", encoder, e.text);
    assert_true(s.ended);
    if (s.n != PICTURES) fail_msg("%s: %d pictures", encoder, s.n);
    for (int i = 0; i < PICTURES; i++) {
        bool wide = !strcmp(encoder, "mjpeg");
        assert_true(fabs(s.at[i] - (double)(times[i] - times[0]) / 100) < 1e-9);
        if (abs(s.right[i] - level_of(mp4_level(i), wide)) > 6 ||
            abs(s.left[i] - level_of(mp4_level(i) + 40, wide)) > 6)
            fail_msg("%s: picture %d is %d, %d, not %d", encoder, i, s.left[i], s.right[i],
                     level_of(mp4_level(i), wide));
    }
    free(bytes);
}

static void pictures_come_back(void **state) {
    (void)state;
    check_film("mpeg4", even_ms, 0, false, 1);
    check_film("mpeg4", even_ms, 0, false, 3);
    check_film("mpeg4", uneven_ms, 2, false, 1); // coded in another order than shown
    check_film("mpeg4", uneven_ms, 0, true, 3);
    check_film("mjpeg", uneven_ms, 0, false, 1);
    check_film("libx264", uneven_ms, 2, false, 3);
    check_film("libx265", even_ms, 2, false, 1);
    check_film("libvpx-vp9", even_ms, 0, false, 1);
    check_film("libaom-av1", even_ms, 0, false, 1);
}

static void *decode_in_thread(void *arg) {
    struct seen *s = arg;
    struct err e = {0};
    size_t n;
    char *bytes = film_of("mpeg4", even_ms, 2, false, &n);
    s->sum = bytes && !decode(bytes, n, &grey, s, &e) ? s->sum : 0;
    free(bytes);
    return NULL;
}

static void the_same_bits_in_every_thread(void **state) {
    (void)state;
    struct seen s[3] = {{0}, {0}, {0}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, decode_in_thread, &s[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    (void)decode_in_thread(&s[2]);
    assert_true(s[0].sum != 0 && s[0].sum == s[1].sum && s[0].sum == s[2].sum);
}

static void enough_is_enough(void **state) {
    (void)state;
    struct err e = {0};
    struct seen s = {.stop_at = 3};
    size_t n;
    char *bytes = film(&n);
    assert_int_equal(decode(bytes, n, &grey, &s, &e), 0);
    assert_int_equal(s.n, 3);
    free(bytes);
}

static void refuse(const char *bytes, size_t n, const struct media_mp4_want *want, const char *words) {
    struct err e = {0};
    struct seen s = {0};
    assert_int_equal(decode(bytes, n, want, &s, &e), -ERR_DATA);
    if (!strstr(e.text, words)) fail_msg("'%s' does not say '%s'", e.text, words);
}

static void what_is_out_of_bounds_is_refused(void **state) {
    (void)state;
    size_t n;
    char *bytes = film(&n);
    struct media_mp4_want want = grey;
    want.channels = 2;
    refuse(bytes, n, &want, "not 2");
    want = grey;
    want.max_pixels = WIDTH * HEIGHT - 1;
    refuse(bytes, n, &want, "more than 3071 pixels");
    free(bytes);
    bytes = film_of("mjpeg", even_ms, 0, false, &n);
    assert_non_null(bytes);
    refuse(bytes, n, &want, "more than 3071 pixels");
    want = grey;
    want.max_pictures = PICTURES - 1;
    refuse(bytes, n, &want, "more than 39 pictures");
    refuse("\0\0\0\x10"
           "ftypisom\0\0\0\0",
           16, &grey, "MP4");
    free(bytes);
    struct mp4_make m = {"mpeg2video", WIDTH, HEIGHT, 4, 0, even_ms, false};
    bytes = mp4_encode(&m, &n);
    assert_non_null(bytes);
    refuse(bytes, n, &grey, "mpeg2video; what is read: " MEDIA_MP4_CODECS);
    free(bytes);
}

static void a_film_that_is_cut_short_is_refused(void **state) {
    (void)state;
    struct err e = {0};
    struct seen s = {0};
    size_t n;
    char *bytes = film_of("mpeg4", even_ms, 0, true, &n); // with its table in front: every cut can be opened
    assert_non_null(bytes);
    assert_int_equal(decode(bytes, n, &grey, &s, &e), 0);
    for (size_t cut = 0; cut < n - 200; cut += 97) {
        char *part = malloc(cut + 1);
        memcpy(part, bytes, cut);
        err_clear(&e);
        int rc = decode(part, cut, &grey, &s, &e);
        free(part);
        if (rc != -ERR_DATA) fail_msg("cut at %zu: %d, %d pictures, %s", cut, rc, s.n, e.text);
    }
    free(bytes);
}

static void changed_bytes_do_no_harm(void **state) {
    (void)state;
    struct rng_stream r;
    struct seen s = {0};
    size_t n;
    char *bytes = film(&n);
    int bad = 0;
    rng_stream_init(&r, rng_key(1, RNG_TEST, 0), 0, 0);
    for (int i = 0; i < 300; i++) {
        struct err e = {0};
        size_t at = rng_next_below(&r, (uint32_t)n);
        char before = bytes[at];
        bytes[at] = (char)rng_next_u32(&r);
        int rc = decode(bytes, n, &grey, &s, &e);
        assert_true(rc == 0 || e.code == ERR_DATA || e.code == ERR_MEMORY);
        bad += rc != 0;
        bytes[at] = before;
    }
    assert_true(bad > 10);
    free(bytes);
}

// ---- the model's frames

static const struct stream_schema stream = {.modality = "video",
                                            .name = "cam",
                                            .member = "cam.mp4",
                                            .dtype = "u8",
                                            .rank = 3,
                                            .shape = {SIDE, SIDE, 3},
                                            .rate_hz = 10,
                                            .t0 = 0.2};

static void check_frames(const struct modality_spec *spec, const char *bytes, size_t n) {
    enum { FRAMES = PICTURES * 3, ELEMS = SIDE * SIDE * 3 };
    struct err e = {0};
    unsigned char valid[FRAMES], *cells = calloc(FRAMES, ELEMS);
    if (spec->modality->decode(spec, bytes, n, FRAMES, cells, valid, &e)) fail_msg("%s", e.text);
    for (int f = 0; f < FRAMES; f++) {
        double t = f / spec->frame_hz - stream.t0;
        int nearest = 0;
        for (int i = 1; i < PICTURES; i++)
            if (fabs((double)uneven_ms[i] / 1000 - t) <= fabs((double)uneven_ms[nearest] / 1000 - t) + 1e-9)
                nearest = i;
        bool in = t >= -0.05 - 1e-9 && t < (double)uneven_ms[PICTURES - 1] / 1000 + 0.05 - 1e-9;
        assert_int_equal(valid[f], in);
        int got = cells[f * ELEMS + SIDE / 2 * SIDE * 3 + SIDE * 3 / 4 / 3 * 3 + SIDE];
        if (in && abs(got - level_of(mp4_level(nearest), false)) > 6)
            fail_msg("frame %d at %g s shows %d, not picture %d", f, t, got, nearest);
    }
    free(cells);
}

static void frames_are_the_nearest_pictures(void **state) {
    (void)state;
    static const char *const overrides[] = {"video.height=16", "video.width=16", "video.channels=3",
                                            "model.modalities=video"};
    struct config_file *f = NULL;
    struct modality_set set;
    struct err e = {0};
    size_t n;
    char *bytes = film_of("mpeg4", uneven_ms, 2, false, &n);
    assert_non_null(bytes);
    if (config_load(&f, NULL, overrides, 4, &e)) fail_msg("%s", e.text);
    if (modality_set_init(&set, config_values(f), &stream, 1, &e)) fail_msg("%s", e.text);
    if (getenv("ORRERY_FFMPEG_PLUGIN")) check_frames(&set.spec[0], bytes, n);
    unsigned char valid[4], cells[4 * SIDE * SIDE * 3];
    const char *plugin = getenv("ORRERY_FFMPEG_PLUGIN");
    char *kept = plugin ? strdup(plugin) : NULL;
    setenv("ORRERY_FFMPEG_PLUGIN", "/nowhere/liborrery_ffmpeg.so", 1);
    int rc = set.spec[0].modality->decode(&set.spec[0], bytes, n, 4, cells, valid, &e);
    assert_int_equal(rc, -ERR_ABSENT);
    assert_non_null(strstr(e.text, "-DORRERY_FFMPEG=ON"));
    if (kept) setenv("ORRERY_FFMPEG_PLUGIN", kept, 1);
    free(kept);
    free(bytes);
    config_close(f);
}

int main(void) {
    for (int i = 0; i < PICTURES; i++) {
        even_ms[i] = 100 * i;
        uneven_ms[i] = i ? uneven_ms[i - 1] + 40 + i * 37 % 90 : 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_come_back),
        cmocka_unit_test(the_same_bits_in_every_thread),
        cmocka_unit_test(enough_is_enough),
        cmocka_unit_test(what_is_out_of_bounds_is_refused),
        cmocka_unit_test(a_film_that_is_cut_short_is_refused),
        cmocka_unit_test(changed_bytes_do_no_harm),
        cmocka_unit_test(frames_are_the_nearest_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
