// SPDX-License-Identifier: Apache-2.0
// Senses: specs from config and streams, and every decoder against a straightforward computation.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "trainer/media_audio.h"
#include "trainer/media_npy.h"
#include "trainer/media_png.h"
#include "trainer/modality.h"
#include "trainer/modality_mel.h"

static const struct stream_schema streams[] = {
    {.modality = "action",
     .name = "action",
     .member = "action.npy",
     .dtype = "f32",
     .rank = 1,
     .shape = {2},
     .rate_hz = 10,
     .t0 = -0.1,
     .scale = 0.6},
    {.modality = "touch",
     .name = "touch",
     .member = "touch.npy",
     .dtype = "f32",
     .rank = 1,
     .shape = {2},
     .rate_hz = 100,
     .t0 = -0.1,
     .scale = 0.1},
    {.modality = "audio",
     .name = "audio",
     .member = "audio.flac",
     .dtype = "i16",
     .rate_hz = 16000,
     .t0 = -0.1},
    {.modality = "video",
     .name = "video",
     .member = "video.png",
     .dtype = "u8",
     .rank = 3,
     .shape = {32, 32, 2},
     .rate_hz = 10},
    {.modality = "state",
     .name = "state",
     .member = "state.npy",
     .dtype = "f32",
     .rank = 2,
     .shape = {2, 2},
     .rate_hz = 10},
};
enum { ACTION, TOUCH, AUDIO, VIDEO, STREAMS = 5 };

static struct config_file *config_with(const char *override) {
    struct config_file *f = NULL;
    struct err e = {0};
    if (config_load(&f, NULL, &override, override ? 1 : 0, &e)) fail_msg("%s", e.text);
    return f;
}

static struct modality_set set_with(const char *override) {
    struct config_file *f = config_with(override);
    struct modality_set set;
    struct err e = {0};
    assert_int_equal(modality_set_init(&set, config_values(f), streams, STREAMS, &e), 0);
    config_close(f);
    return set;
}

static int set_fails(const char *override, const struct stream_schema *s, int n, struct err *e) {
    struct config_file *f = config_with(override);
    struct modality_set set;
    err_clear(e);
    int rc = modality_set_init(&set, config_values(f), s, n, e);
    config_close(f);
    return rc;
}

static void the_recipe_has_19_tokens(void **state) {
    (void)state;
    struct modality_set set = set_with(NULL);
    assert_int_equal(set.n, 4);
    assert_int_equal(set.action, 0);
    assert_int_equal(set.tokens_per_frame, 19);
    static const int64_t elems[] = {2, 4, 8, 2048}, tokens[] = {1, 1, 1, 16}, value[] = {2, 4, 8, 128},
                         seen[] = {0, 4, 8, 512};
    for (int m = 0; m < 4; m++) {
        assert_int_equal(set.spec[m].frame_elems, elems[m]);
        assert_int_equal(set.spec[m].tokens, tokens[m]);
        assert_int_equal(set.spec[m].value_width, value[m]);
        assert_int_equal(set.spec[m].seen_width, seen[m]);
        assert_int_equal(set.spec[m].history, m ? 2 : 0);
        assert_int_equal(set.slot_first[m], m);
    }
    for (int t = 0; t < 19; t++) assert_int_equal(set.slot_modality[t], t < 3 ? t : 3);
}

static void a_plan_needs_no_streams(void **state) {
    (void)state;
    struct config_file *f = config_with("audio.bins=2");
    struct modality_set set;
    struct err e = {0};
    assert_int_equal(modality_set_init(&set, config_values(f), NULL, 0, &e), 0);
    assert_int_equal(set.tokens_per_frame, 20);
    config_close(f);
}

static void a_subset_of_senses(void **state) {
    (void)state;
    struct modality_set set = set_with("model.modalities=video, touch");
    assert_int_equal(set.n, 2);
    assert_int_equal(set.action, -1);
    assert_string_equal(set.spec[0].modality->name, "touch");
    assert_int_equal(set.slot_first[1], 1);
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    struct err e = {0};
    assert_int_equal(set_fails(NULL, streams + 2, 3, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "'action'"));
    assert_non_null(strstr(e.text, "action,touch,audio,video"));
    assert_non_null(strstr(e.text, "audio,video,state"));
    static const char *const bad[] = {"model.modalities=action,smell",
                                      "model.modalities=touch,video,touch",
                                      "model.modalities=",
                                      "action.width=3",
                                      "touch.channels=3",
                                      "touch.subsamples=11",
                                      "audio.bins=11",
                                      "video.height=64",
                                      "video.channels=3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(set_fails(bad[i], streams, STREAMS, &e), -ERR_CONFIG);
    assert_int_equal(set_fails("video.patch=1", streams, STREAMS, &e), -ERR_CONFIG); // 1027 tokens
}

static struct buf npy_of(int64_t rows, int64_t columns, const float *data) {
    struct buf b;
    struct err e = {0};
    buf_init(&b, 1 << 24);
    assert_int_equal(media_npy_write(&b, 2, (int64_t[]){rows, columns}, data, &e), 0);
    return b;
}

static void decode(const struct modality_set *set, int m, const struct buf *b, int64_t frames, void *cells,
                   unsigned char *valid) {
    struct err e = {0};
    const struct modality_spec *spec = &set->spec[m];
    memset(cells, 0, (size_t)(frames * spec->frame_elems) * spec->modality->cell);
    int rc = spec->modality->decode(spec, b->data, b->len, frames, cells, valid, &e);
    if (rc) fail_msg("%s", e.text);
}

static void actions_are_scaled(void **state) {
    (void)state;
    struct modality_set set = set_with(NULL);
    float data[10], cells[12];
    unsigned char valid[6];
    for (int i = 0; i < 10; i++) data[i] = (float)i * 0.3f;
    struct buf b = npy_of(5, 2, data);
    decode(&set, ACTION, &b, 6, cells, valid); // one frame more than there are commands
    for (int i = 0; i < 10; i++) assert_true(fabsf(cells[i] - data[i] / 0.6f) < 1e-6f);
    for (int f = 0; f < 6; f++) assert_int_equal(valid[f], f < 5);
    assert_true(cells[10] == 0 && cells[11] == 0);
    buf_fini(&b);
}

static void commands_of_an_interval_are_averaged(void **state) {
    (void)state;
    struct modality_set set = set_with(NULL);
    set.spec[ACTION].stream.rate_hz = 20;
    const float data[12] = {0, 0, 6, 1.2f, 3, 3, 3, 3, 0, 6, 0, 0};
    float cells[6];
    unsigned char valid[3];
    struct buf b = npy_of(6, 2, data);
    decode(&set, ACTION, &b, 3, cells, valid);
    static const float want[6] = {5, 1, 5, 5, 0, 5};
    for (int i = 0; i < 6; i++) assert_true(fabsf(cells[i] - want[i]) < 1e-6f);
    buf_fini(&b);
}

static void touch_is_summed_and_compressed(void **state) {
    (void)state;
    struct modality_set set = set_with(NULL);
    enum { FRAMES = 7 };
    float data[FRAMES * 20], cells[FRAMES * 4];
    unsigned char valid[FRAMES];
    struct rng_stream r;
    rng_stream_init(&r, rng_key(1, RNG_TEST, 0), 0, 0);
    for (int i = 0; i < FRAMES * 20; i++) data[i] = (float)rng_next_normal(&r);
    struct buf b = npy_of(FRAMES * 10, 2, data);
    decode(&set, TOUCH, &b, FRAMES, cells, valid);
    for (int f = 0; f < FRAMES; f++) {
        assert_int_equal(valid[f], 1);
        for (int part = 0; part < 2; part++) {
            for (int k = 0; k < 2; k++) {
                double sum = 0;
                for (int i = 0; i < 5; i++) sum += data[(f * 10 + part * 5 + i) * 2 + k];
                assert_true(fabs(cells[f * 4 + part * 2 + k] - asinh(sum / 0.1)) < 1e-5);
            }
        }
    }
    buf_fini(&b);
}

// The definition, in double precision: a DFT of every window, triangles, means, logarithm.
static double audio_reference(const int16_t *pcm, int64_t n, int64_t frame, int bands, int band) {
    double mean = 0, lo = 1127 * log1p(50 / 700.0), step = (1127 * log1p(8000 / 700.0) - lo) / (bands + 1);
    for (int h = 0; h < 10; h++) {
        double power = 0, sum = 0, x[400];
        for (int i = 0; i < 400; i++) {
            int64_t at = frame * 1600 + (h + 1) * 160 - 400 + i;
            double w = 0.5 - 0.5 * cos(2 * M_PI * (i + 0.5) / 400);
            sum += w * w;
            x[i] = at >= 0 && at < n ? pcm[at] / 32768.0 * w : 0;
        }
        for (int k = 0; k <= 256; k++) {
            double at = (1127 * log1p(k * 16000.0 / 512 / 700) - lo) / step - 1, re = 0, im = 0;
            at = fmin(fmax(at, 0), bands - 1);
            double weight = fmax(0, 1 - fabs(at - band));
            if (weight == 0) continue;
            for (int i = 0; i < 400; i++) {
                re += x[i] * cos(2 * M_PI * k * i / 512);
                im -= x[i] * sin(2 * M_PI * k * i / 512);
            }
            power += weight * (re * re + im * im);
        }
        mean += power * 2 / (512 * sum) / 10;
    }
    return 0.5 * log1p(mean / 5e-5);
}

static void audio_is_log_mel(void **state) {
    (void)state;
    struct modality_set set = set_with(NULL);
    enum { FRAMES = 4, N = FRAMES * 1600 };
    int16_t *pcm = calloc(N, sizeof *pcm);
    float cells[FRAMES * 8];
    unsigned char valid[FRAMES];
    struct err e = {0};
    struct buf b;
    struct rng_stream r;
    rng_stream_init(&r, rng_key(2, RNG_TEST, 0), 0, 0);
    for (int i = 1700; i < 4700; i++)
        pcm[i] = (int16_t)(8000 * sin(i * 0.4) * exp(-(i - 1700) / 900.0) + 300 * rng_next_normal(&r));
    buf_init(&b, 1 << 20);
    assert_int_equal(media_audio_write_flac(&b, pcm, N, 16000, &e), 0);
    decode(&set, AUDIO, &b, FRAMES, cells, valid);
    for (int f = 0; f < FRAMES; f++) {
        assert_int_equal(valid[f], 1);
        for (int k = 0; k < 8; k++)
            assert_true(fabs(cells[f * 8 + k] - audio_reference(pcm, N, f, 8, k)) < 1e-3);
    }
    for (int k = 0; k < 8; k++) assert_true(cells[k] == 0); // silence is exactly 0
    float loudest = 0;
    for (int k = 0; k < 8; k++) loudest = fmaxf(loudest, cells[8 + k]);
    assert_true(loudest > 1 && loudest < 6);
    free(pcm);
    buf_fini(&b);
}

// Bins of one frame are parts of its interval, in order.
static void audio_bins_follow_time(void **state) {
    (void)state;
    struct modality_set set = set_with("audio.bins=3");
    enum { FRAMES = 2, N = FRAMES * 1600 };
    int16_t *pcm = calloc(N, sizeof *pcm);
    float cells[FRAMES * 3 * 8];
    unsigned char valid[FRAMES];
    struct err e = {0};
    struct buf b;
    assert_int_equal(set.spec[AUDIO].tokens, 3);
    for (int i = 1600 + 1130; i < 1600 + 1600; i++) pcm[i] = (int16_t)(8000 * sin(i * 0.4));
    buf_init(&b, 1 << 20);
    assert_int_equal(media_audio_write_flac(&b, pcm, N, 16000, &e), 0);
    decode(&set, AUDIO, &b, FRAMES, cells, valid);
    for (int i = 0; i < 5 * 8; i++)
        assert_true(cells[i] == 0); // hops 0..6 of frame 1 end at 1120: bins 0 and 1
    float last = 0;
    for (int i = 5 * 8; i < 6 * 8; i++) last = fmaxf(last, cells[i]);
    assert_true(last > 1);
    free(pcm);
    buf_fini(&b);
}

static void a_sine_keeps_its_power(void **state) {
    (void)state;
    float sound[2000], power[3 * 40];
    struct err e = {0};
    struct mel *m;
    for (int i = 0; i < 2000; i++) sound[i] = 0.5f * sinf((float)i * 0.9f);
    assert_int_equal(mel_create(&m, 16000, 40, &e), 0);
    assert_int_equal(mel_window(m), 400);
    mel_power(m, sound, 2000, (int64_t[]){500, 1200, 2000}, 3, power);
    for (int w = 0; w < 3; w++) {
        double sum = 0;
        for (int k = 0; k < 40; k++) sum += power[w * 40 + k];
        assert_true(fabs(sum - 0.125) < 2e-3);
    }
    mel_destroy(m);
}

static void video_is_cut_and_scaled(void **state) {
    (void)state;
    struct modality_set set = set_with(NULL);
    const struct modality_spec *spec = &set.spec[VIDEO];
    enum { FRAMES = 3, ELEMS = FRAMES * 2048 };
    unsigned char *pixels = malloc(ELEMS), *cells = malloc(ELEMS + 2048), valid[FRAMES + 1];
    float *x = malloc(ELEMS * sizeof *x);
    struct err e = {0};
    struct buf b;
    for (int i = 0; i < ELEMS; i++) pixels[i] = (unsigned char)(i * 31 / 7);
    buf_init(&b, 1 << 20);
    assert_int_equal(media_png_write(&b, pixels, FRAMES * 32, 32, 2, 1, &e), 0);
    decode(&set, VIDEO, &b, FRAMES + 1, cells, valid);
    assert_memory_equal(cells, pixels, ELEMS);
    for (int f = 0; f <= FRAMES; f++) assert_int_equal(valid[f], f < FRAMES);
    spec->modality->expand(spec, cells, ELEMS, x);
    for (int i = 0; i < ELEMS; i++) assert_true(fabsf(x[i] - (float)pixels[i] / 127.5f) < 1e-6f);
    pixels[0] = 0;
    spec->modality->expand(spec, pixels, 1, x);
    assert_true(x[0] == 0);
    free(pixels);
    free(cells);
    free(x);
    buf_fini(&b);
}

static void wrong_shapes_are_bad_data(void **state) {
    (void)state;
    struct modality_set set = set_with(NULL);
    struct err e = {0};
    float cells[2 * 2048];
    unsigned char valid[2], pixels[40 * 32 * 2] = {0};
    const float zeros[600] = {0};
    struct buf three = npy_of(2, 3, zeros), endless = npy_of(200, 2, zeros), strip;
    buf_init(&strip, 1 << 20);
    assert_int_equal(media_png_write(&strip, pixels, 40, 32, 2, 1, &e), 0);
    const struct {
        int m;
        const struct buf *b;
    } rows[] = {{ACTION, &three}, {ACTION, &endless}, {TOUCH, &three}, {VIDEO, &strip}, {AUDIO, &strip}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct modality_spec *spec = &set.spec[rows[i].m];
        err_clear(&e);
        assert_int_equal(spec->modality->decode(spec, rows[i].b->data, rows[i].b->len, 2, cells, valid, &e),
                         -ERR_DATA);
    }
    buf_fini(&three);
    buf_fini(&endless);
    buf_fini(&strip);
}

static void numbers_that_are_none_are_bad_data(void **state) {
    (void)state;
    struct modality_set set = set_with(NULL);
    enum { FRAMES = 7 };
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float data[FRAMES * 10 * 2] = {0}, cells[FRAMES * 64];
    unsigned char valid[FRAMES];
    for (int m = ACTION; m <= TOUCH; m++)
        for (int i = 0; i < 3; i++) {
            struct err e = {0};
            int64_t rows = m == ACTION ? FRAMES : FRAMES * 10;
            data[2 * 3 + 1] = bad[i];
            struct buf b = npy_of(rows, 2, data);
            const struct modality_spec *spec = &set.spec[m];
            assert_int_equal(spec->modality->decode(spec, b.data, b.len, FRAMES, cells, valid, &e),
                             -ERR_DATA);
            assert_non_null(strstr(e.text, "row 3 holds "));
            buf_fini(&b);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_recipe_has_19_tokens),
        cmocka_unit_test(a_plan_needs_no_streams),
        cmocka_unit_test(a_subset_of_senses),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(actions_are_scaled),
        cmocka_unit_test(commands_of_an_interval_are_averaged),
        cmocka_unit_test(touch_is_summed_and_compressed),
        cmocka_unit_test(numbers_that_are_none_are_bad_data),
        cmocka_unit_test(audio_is_log_mel),
        cmocka_unit_test(audio_bins_follow_time),
        cmocka_unit_test(a_sine_keeps_its_power),
        cmocka_unit_test(video_is_cut_and_scaled),
        cmocka_unit_test(wrong_shapes_are_bad_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
