// SPDX-License-Identifier: Apache-2.0
// Films made by FFmpeg's encoders read back: pictures, order and times; hostile bytes and odd wishes are
// refused; the model's frames are the pictures nearest to them. Tables of frames (storage/film.h) are
// compared with what FFmpeg says of the same films.
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "lib/mp4_make.h"
#include "lib/mp4_set.h"
#include "storage/film.h"
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
    struct mp4_make m = {encoder, WIDTH, HEIGHT, PICTURES, b_frames, times, fragment, false};
    return mp4_encode(&m, n);
}

static char *film(size_t *n) {
    char *bytes = film_of("mpeg4", even_ms, 0, false, n);
    assert_non_null(bytes);
    return bytes;
}

static const struct media_mp4_want grey = {.height = SIDE,
                                           .width = SIDE,
                                           .channels = 1,
                                           .rate_hz = 10,
                                           .max_pixels = 1 << 20,
                                           .max_pictures = PICTURES};

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
    struct mp4_make m = {"mpeg2video", WIDTH, HEIGHT, 4, 0, even_ms, false, false};
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

// ---- tables of frames

// What FFmpeg's demuxer tells, in order of time: twice the ticks, plus 1 for a key frame.
struct told {
    int n;
    int64_t times[PICTURES];
    int timescale, width, height;
};

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void ask_ffmpeg(const char *bytes, size_t n, struct told *out) {
    char path[] = "/tmp/orrery-film-XXXXXX";
    AVFormatContext *format = NULL;
    AVPacket *packet = av_packet_alloc();
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && !close(fd));
    assert_true(avformat_open_input(&format, path, NULL, NULL) >= 0);
    assert_true(avformat_find_stream_info(format, NULL) >= 0); // sizes out of the pictures themselves
    const AVStream *s = format->streams[0];
    *out = (struct told){
        .timescale = s->time_base.den, .width = s->codecpar->width, .height = s->codecpar->height};
    assert_int_equal(s->time_base.num, 1);
    while (av_read_frame(format, packet) >= 0) {
        assert_true(out->n < PICTURES && packet->pts != AV_NOPTS_VALUE);
        if (!(packet->flags & AV_PKT_FLAG_DISCARD))
            out->times[out->n++] = packet->pts * 2 + !!(packet->flags & AV_PKT_FLAG_KEY);
        av_packet_unref(packet);
    }
    qsort(out->times, (size_t)out->n, sizeof *out->times, by_number);
    avformat_close_input(&format);
    av_packet_free(&packet);
    assert_int_equal(unlink(path), 0);
}

static bool is_key(const struct film_table *t, int64_t picture) {
    for (int64_t i = 0; i < t->n_keys; i++)
        if (t->keys[i] == picture) return true;
    return t->key_step && picture % t->key_step == 0;
}

static void compare(const char *name, const char *bytes, size_t n) {
    struct err e = {0};
    struct seen s = {0};
    struct film_table t;
    struct told told;
    int64_t at = 0;
    ask_ffmpeg(bytes, n, &told);
    assert_int_equal(film_read(bytes, n, &t, &e), 0);
    if (t.frames != told.n) fail_msg("%s: %d pictures, not %d: %s", name, (int)t.frames, told.n, t.why);
    assert_int_equal(t.timescale, told.timescale);
    assert_int_equal(t.width, told.width);
    assert_int_equal(t.height, told.height);
    if (decode(bytes, n, &grey, &s, &e)) fail_msg("%s: %s", name, e.text);
    // FFmpeg's wrapper of dav1d hands over a picture that the edit list cuts off, too.
    if (s.n != t.frames && (s.n < t.frames || strcmp(name, "libaom-av1") != 0))
        fail_msg("%s: %d pictures decoded, not %d", name, s.n, (int)t.frames);
    for (int i = 0; i < told.n; i++) {
        if (at != (told.times[i] >> 1) - (told.times[0] >> 1))
            fail_msg("%s: picture %d is at %d", name, i, (int)at);
        if (is_key(&t, i) != (told.times[i] & 1)) fail_msg("%s: picture %d is a key frame or not", name, i);
        assert_true(s.at[i] == (double)at * grey.rate_hz / (double)t.timescale); // to the last bit
        if (i + 1 < told.n) at += film_step(&t, i);
    }
    assert_int_equal(at, t.last);
    film_fini(&t);
}

// Changes the edit list, which says ticks of 1/1000 s in 32 bits, to show 1.2 s.
static void cut_tail(char *bytes, size_t n) {
    char *edit = memmem(bytes, n, "elst\0\0\0\0\0\0\0\1", 12);
    assert_non_null(edit);
    memcpy(edit + 12, "\0\0\4\xb0", 4);
}

// The whole film, then with its edit list changed to cut its tail off.
static void compare_film(const char *encoder, const int64_t *times, int b_frames) {
    size_t n;
    char *bytes = film_of(encoder, times, b_frames, false, &n);
    if (!bytes) {
        printf("no encoder %s here\n", encoder);
        return;
    }
    compare(encoder, bytes, n);
    cut_tail(bytes, n);
    compare(encoder, bytes, n);
    free(bytes);
}

static void tables_are_ffmpegs(void **state) {
    (void)state;
    static int64_t late_ms[PICTURES];
    static const char *const encoders[] = {"mpeg4",   "mjpeg",      "libx264",
                                           "libx265", "libvpx-vp9", "libaom-av1"};
    for (int i = 0; i < PICTURES; i++) late_ms[i] = uneven_ms[i] + 700;
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++) {
        bool reorders = i == 0 || i == 2 || i == 3;
        for (int b_frames = 0; b_frames <= (reorders ? 2 : 0); b_frames += 2) {
            compare_film(encoders[i], even_ms, b_frames);
            compare_film(encoders[i], uneven_ms, b_frames);
        }
    }
    size_t n;
    char *bytes = film_of("mpeg4", late_ms, 2, false, &n); // an empty edit in front
    assert_non_null(bytes);
    compare("late", bytes, n);
    free(bytes);
}

static void a_film_in_fragments_has_no_table(void **state) {
    (void)state;
    struct err e = {0};
    struct film_table t;
    size_t n;
    char *bytes = film_of("mpeg4", even_ms, 0, true, &n);
    assert_non_null(bytes);
    assert_int_equal(film_read(bytes, n, &t, &e), 0);
    assert_int_equal(t.frames, 0);
    assert_non_null(strstr(t.why, "in fragments"));
    free(bytes);
}

// Of pictures that are not looked at the time comes, and the others are what they were.
static void what_is_not_looked_at_is_not_scaled(void **state) {
    (void)state;
    struct err e = {0};
    struct seen all = {0}, some = {0};
    unsigned char shown[PICTURES] = {0};
    struct media_mp4_want want = grey;
    size_t n;
    char *bytes = film_of("mpeg4", uneven_ms, 2, false, &n);
    assert_non_null(bytes);
    for (int i = 0; i < PICTURES; i += 3) shown[i] = 1;
    want.shown = shown;
    want.n_shown = PICTURES;
    assert_int_equal(decode(bytes, n, &grey, &all, &e), 0);
    assert_int_equal(decode(bytes, n, &want, &some, &e), 0);
    assert_int_equal(some.n, PICTURES);
    for (int i = 0; i < PICTURES; i++) {
        assert_true(some.at[i] == all.at[i]);
        if (shown[i]) assert_int_equal(some.right[i], all.right[i]);
    }
    assert_true(some.sum != all.sum);
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

enum { FRAMES_MAX = PICTURES * 3, ELEMS = SIDE * SIDE * 3 };

struct kept {
    int n;
    unsigned char pixels[PICTURES][ELEMS];
};

static int keep(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct kept *k = arg;
    if (pixels) memcpy(k->pixels[k->n++], pixels, ELEMS);
    return 0;
}

// Of a film that shows so many pictures. The frames' bits are those of the nearest pictures when all of them
// are decoded and scaled; some are nearest to no frame.
static void check_frames(const struct modality_spec *spec, const char *bytes, size_t n, int pictures) {
    struct err e = {0};
    struct kept all = {0};
    struct media_mp4_want want = grey;
    bool used[PICTURES] = {false};
    int unused = 0;
    // As many as begin before one step of the stream has gone by behind the last picture.
    int frames =
        (int)ceil(((double)uneven_ms[pictures - 1] / 1000 + 0.1 + stream.t0) * spec->frame_hz - 1e-6);
    unsigned char valid[FRAMES_MAX], *cells = calloc(FRAMES_MAX, ELEMS);
    assert_true(frames < FRAMES_MAX);
    want.channels = 3;
    if (media_mp4_decode(bytes, n, &want, keep, &all, &e)) fail_msg("%s", e.text);
    assert_int_equal(all.n, pictures);
    if (spec->modality->decode(spec, bytes, n, frames, cells, valid, &e)) fail_msg("%s", e.text);
    for (int f = 0; f < frames; f++) {
        double t = f / spec->frame_hz - stream.t0;
        int nearest = 0;
        for (int i = 1; i < pictures; i++)
            if (fabs((double)uneven_ms[i] / 1000 - t) <= fabs((double)uneven_ms[nearest] / 1000 - t) + 1e-9)
                nearest = i;
        bool in = t >= -0.05 - 1e-9 && t < (double)uneven_ms[pictures - 1] / 1000 + 0.05 - 1e-9;
        assert_int_equal(valid[f], in);
        used[nearest] = used[nearest] || in;
        if (in && memcmp(cells + (size_t)f * ELEMS, all.pixels[nearest], ELEMS) != 0)
            fail_msg("frame %d at %g s does not show picture %d", f, t, nearest);
    }
    for (int i = 0; i < pictures; i++) unused += !used[i];
    assert_true(unused > 0);
    assert_int_equal(spec->modality->decode(spec, bytes, n, frames + 1, cells, valid, &e), -ERR_DATA);
    char told[400];
    snprintf(told, sizeof told, "announces %d frames, the last one at %.3f s, but the film's %d pictures",
             frames + 1, frames / spec->frame_hz, pictures);
    if (!strstr(e.text, told)) fail_msg("%s, not: %s", told, e.text);
    free(cells);
}

// Says of the last pictures of an mpeg4 film (ISO/IEC 14496-2, 6.2.5) that they are not coded: none comes out
// of them, and no byte is missing. Returns how many.
static int drop_pictures(char *bytes, size_t n, int most) {
    int dropped = 0;
    for (size_t at = n - 8; at > 0 && dropped < most; at--) {
        unsigned char *p = (unsigned char *)bytes + at;
        if (memcmp(p, "\0\0\1\xb6", 4) != 0) continue;
        int bit = 2;
        while (p[4 + bit / 8] >> (7 - bit % 8) & 1) bit++; // whole seconds
        bit += 1 + 1 + 10 + 1;                             // their end, a mark, ticks of 1/1000 s, a mark
        p[4 + bit / 8] &= (unsigned char)~(1 << (7 - bit % 8));
        dropped++;
    }
    return dropped;
}

static void check_lost_pictures(const struct modality_spec *spec) {
    struct err e = {0};
    size_t n;
    char *bytes = film_of("mpeg4", even_ms, 0, false, &n), told[400];
    unsigned char valid[FRAMES_MAX], *cells = calloc(FRAMES_MAX, ELEMS);
    if (spec->modality->decode(spec, bytes, n, PICTURES, cells, valid, &e)) fail_msg("%s", e.text);
    assert_int_equal(drop_pictures(bytes, n, 2), 2);
    assert_int_equal(spec->modality->decode(spec, bytes, n, PICTURES, cells, valid, &e), -ERR_DATA);
    snprintf(told, sizeof told, "announces %d pictures, %d are in it", PICTURES, PICTURES - 2);
    if (!strstr(e.text, told)) fail_msg("%s, not: %s", told, e.text);
    free(cells);
    free(bytes);
}

// The decoder hands over other pictures than the table tells of: they count, as if there were no table.
static void check_astray(const struct modality_spec *spec) {
    struct err e = {0};
    struct seen s = {0};
    struct film_table t;
    size_t n;
    char *bytes = film_of("libaom-av1", uneven_ms, 0, false, &n);
    if (!bytes) {
        printf("no encoder libaom-av1 here\n");
        return;
    }
    cut_tail(bytes, n);
    assert_int_equal(film_read(bytes, n, &t, &e), 0);
    if (decode(bytes, n, &grey, &s, &e)) fail_msg("%s", e.text);
    if (s.n == t.frames) printf("dav1d obeys edit lists here\n");
    check_frames(spec, bytes, n, s.n);
    film_fini(&t);
    free(bytes);
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
    if (getenv("ORRERY_FFMPEG_PLUGIN")) {
        check_frames(&set.spec[0], bytes, n, PICTURES);
        check_astray(&set.spec[0]);
        check_lost_pictures(&set.spec[0]);
    }
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

// ---- parts of films

// Moves the header in front of the pictures, whose places it tells with 32 bits.
static void header_to_front(char *bytes, size_t n) {
    struct film_table t;
    struct film_scan s;
    struct err e = {0};
    film_scan_init(&s, true);
    assert_int_equal(film_scan_feed(&s, bytes, n, &e), 0);
    assert_int_equal(film_scan_end(&s, &t, &e), 0);
    size_t moov = (size_t)t.moov_at, size = (size_t)t.moov_bytes, ftyp = (unsigned char)bytes[3];
    char *copy = malloc(n), *at = copy + moov;
    memcpy(copy, bytes, n);
    while (memcmp(at, "stco", 4) != 0) at++;
    unsigned char *p = (unsigned char *)at + 12;
    for (int i = (unsigned char)at[11]; i > 0; i--, p += 4) {
        uint32_t place = ((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]);
        place += (uint32_t)size;
        for (int k = 0; k < 4; k++) p[k] = (unsigned char)(place >> 8 * (3 - k));
    }
    memcpy(bytes + ftyp, copy + moov, size);
    memcpy(bytes + ftyp + size, copy + ftyp, moov - ftyp);
    free(copy);
    film_fini(&t);
}

struct counted {
    struct dataset *set;
    int64_t bytes, wholes;
};

static int read_counted(void *arg, int64_t lo, int64_t hi, struct dataset_part *out, struct err *e) {
    struct counted *c = arg;
    int rc = dataset_read_part(c->set, 0, "cam.mp4", lo, hi, out, e);
    c->bytes += (int64_t)out->n;
    c->wholes += hi < 0;
    return rc;
}

static void open_film(struct modality_film *f, struct counted *c, const char *url) {
    struct err e = {0};
    *c = (struct counted){.bytes = 0};
    *f = (struct modality_film){.read = read_counted, .arg = c};
    if (dataset_open(&c->set, url, NULL, &e) || dataset_film(c->set, 0, "cam.mp4", &f->table, &e))
        fail_msg("%s", e.text);
    const struct film_table *t = &f->table;
    assert_true(t->n_crcs > 0);
    if (f->read(c, 0, t->lead, &f->lead, &e)) fail_msg("%s", e.text);
    if (t->moov_at > t->lead && f->read(c, t->moov_at, t->moov_at + t->moov_bytes, &f->moov, &e))
        fail_msg("%s", e.text);
}

static void close_film(struct modality_film *f, struct counted *c) {
    dataset_part_fini(&f->lead);
    dataset_part_fini(&f->moov);
    film_fini(&f->table);
    dataset_close(c->set);
}

// Every window shows what it shows when the film is decoded from its beginning.
static void check_windows(const struct modality_spec *spec, const char *encoder, const int64_t *times,
                          int b_frames, bool front) {
    enum { WINDOW = 5 };
    struct err e = {0};
    struct modality_film film;
    struct counted counted;
    struct mp4_make make = {encoder, WIDTH, HEIGHT, PICTURES, b_frames, times, false, true};
    size_t n;
    char *bytes = mp4_encode(&make, &n);
    if (!bytes) {
        printf("no encoder %s here\n", encoder);
        return;
    }
    if (front) header_to_front(bytes, n);
    int frames = (int)((double)(times[PICTURES - 1] - times[0]) / 100 + 2);
    unsigned char whole[FRAMES_MAX * ELEMS], part[WINDOW * ELEMS], valid[FRAMES_MAX], some[WINDOW];
    memset(whole, 0, sizeof whole);
    if (spec->modality->decode(spec, bytes, n, frames, whole, valid, &e)) fail_msg("%s: %s", encoder, e.text);
    mp4_set("mem:parts", bytes, n, frames, SIDE);
    open_film(&film, &counted, "mem:parts");
    for (int first = 0; first + WINDOW <= frames; first++) {
        memset(part, 0, sizeof part);
        if (spec->modality->decode_part(spec, &film, frames, first, WINDOW, part, some, &e))
            fail_msg("%s: %s", encoder, e.text);
        if (memcmp(some, valid + first, WINDOW) != 0 ||
            memcmp(part, whole + (size_t)first * ELEMS, sizeof part) != 0)
            fail_msg("%s, %d B frames: frames from %d on are others", encoder, b_frames, first);
    }
    if (counted.wholes)
        fail_msg("%s, %d B frames: %d windows needed the whole film", encoder, b_frames, (int)counted.wholes);
    close_film(&film, &counted);
    free(bytes);
}

static const struct modality_spec *video_spec(struct config_file **f, struct modality_set *set) {
    static const char *const overrides[] = {"video.height=16", "video.width=16", "video.channels=3",
                                            "model.modalities=video"};
    struct err e = {0};
    if (config_load(f, NULL, overrides, 4, &e)) fail_msg("%s", e.text);
    if (modality_set_init(set, config_values(*f), &stream, 1, &e)) fail_msg("%s", e.text);
    return &set->spec[0];
}

static void windows_are_those_of_the_whole_film(void **state) {
    (void)state;
    static const char *const encoders[] = {"mpeg4",      "libx264",    "libx265",
                                           "libvpx-vp9", "libaom-av1", "mjpeg"};
    struct config_file *f = NULL;
    struct modality_set set;
    int64_t late_ms[PICTURES];
    if (!getenv("ORRERY_FFMPEG_PLUGIN")) skip();
    const struct modality_spec *spec = video_spec(&f, &set);
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++) {
        check_windows(spec, encoders[i], even_ms, 0, false);
        check_windows(spec, encoders[i], uneven_ms, i < 3 ? 2 : 0, i % 2);
    }
    for (int i = 0; i < PICTURES; i++) late_ms[i] = 700 + even_ms[i];
    check_windows(spec, "mpeg4", late_ms, 2, true); // an empty edit in front
    config_close(f);
}

static int count_pictures(void *arg, double at, const unsigned char *pixels, struct err *e) {
    *(int *)arg += pixels != NULL;
    return 0;
}

// How many pictures come out of the decoder for a part, when all of the film's bytes are at hand.
static int count_part(const struct modality_film *film, const char *bytes, size_t n, int first, int last) {
    struct err e = {0};
    struct film_part where;
    struct media_mp4_want want = grey;
    int pictures = 0;
    if (film_part_of(&film->table, bytes + film->table.moov_at, first, last, &where, &e))
        fail_msg("%s", e.text);
    const struct media_mp4_piece whole = {0, n, bytes};
    const struct media_mp4_part part = {.pieces = &whole,
                                        .n = 1,
                                        .key_byte = where.key_byte,
                                        .last_byte = where.last_byte,
                                        .start = where.start,
                                        .key_ticks = where.key_ticks,
                                        .timescale = film->table.timescale};
    want.part = &part;
    if (media_mp4_decode(NULL, n, &want, count_pictures, &pictures, &e)) fail_msg("%s", e.text);
    return pictures;
}

// Late in a long film: what is read and decoded is what lies between the key frame and the window's end.
static void a_late_window_reads_little(void **state) {
    (void)state;
    enum { LONG = 1200, FIRST = 1100, WINDOW = 16 };
    struct config_file *f = NULL;
    struct modality_set set;
    struct modality_film film;
    struct counted counted;
    struct err e = {0};
    int64_t *times = calloc(LONG, sizeof *times);
    size_t n;
    int all = 0;
    if (!getenv("ORRERY_FFMPEG_PLUGIN")) skip();
    const struct modality_spec *spec = video_spec(&f, &set);
    for (int i = 0; i < LONG; i++) times[i] = 100 * i;
    struct mp4_make make = {"mpeg4", 320, 240, LONG, 0, times, false, true};
    char *bytes = mp4_encode(&make, &n);
    unsigned char *cells = calloc(WINDOW, ELEMS), valid[WINDOW];
    struct media_mp4_want want = grey;
    want.max_pictures = LONG;
    mp4_set("mem:late", bytes, n, LONG, SIDE);
    if (media_mp4_decode(bytes, n, &want, count_pictures, &all, &e)) fail_msg("%s", e.text);
    open_film(&film, &counted, "mem:late");
    int64_t header = counted.bytes;
    counted.bytes = 0;
    if (spec->modality->decode_part(spec, &film, LONG, FIRST, WINDOW, cells, valid, &e))
        fail_msg("%s", e.text);
    // Frame f shows picture f - 2.
    int first = FIRST - 2, last = first + WINDOW - 1, pictures = count_part(&film, bytes, n, first, last);
    printf("window %d .. %d of %d pictures in %zu bytes: %d bytes read, after %d of the header; %d pictures "
           "decoded, not %d\n",
           FIRST, FIRST + WINDOW, LONG, n, (int)counted.bytes, (int)header, pictures, all);
    assert_int_equal(counted.wholes, 0);
    assert_int_equal(pictures, last - first / 12 * 12 + 1);
    assert_true(counted.bytes < (int64_t)n / 20);
    close_film(&film, &counted);
    free(cells);
    free(times);
    free(bytes);
    config_close(f);
}

// A flipped bit in what a window reads is found and told of; elsewhere it is not met.
static void damage_in_a_part_is_found(void **state) {
    (void)state;
    struct config_file *f = NULL;
    struct modality_set set;
    struct modality_film film;
    struct counted counted;
    struct err e = {0};
    struct store *s;
    struct buf tar;
    size_t n;
    if (!getenv("ORRERY_FFMPEG_PLUGIN")) skip();
    const struct modality_spec *spec = video_spec(&f, &set);
    struct mp4_make make = {"mpeg4", 320, 240, PICTURES, 0, even_ms, false, true};
    char *bytes = mp4_encode(&make, &n);
    unsigned char *cells = calloc(8, ELEMS), valid[8];
    mp4_set("mem:damage", bytes, n, PICTURES, SIDE);
    open_film(&film, &counted, "mem:damage");
    buf_init(&tar, (size_t)64 << 20);
    assert_int_equal(store_open(&s, "mem:damage", NULL, &e), 0);
    assert_int_equal(store_get(s, "part.tar", (size_t)64 << 20, &tar, &e), 0);
    tar.data[film.lead.offset + (int64_t)n * 3 / 4] ^= 1;
    assert_int_equal(store_put(s, "part.tar", tar.data, tar.len, false, &e), 0);
    if (spec->modality->decode_part(spec, &film, PICTURES, 2, 2, cells, valid, &e)) fail_msg("%s", e.text);
    assert_int_equal(spec->modality->decode_part(spec, &film, PICTURES, 30, 8, cells, valid, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "part.tar: bytes "));
    assert_non_null(strstr(e.text, "CRC32C is "));
    store_close(s);
    buf_fini(&tar);
    close_film(&film, &counted);
    free(cells);
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
        cmocka_unit_test(tables_are_ffmpegs),
        cmocka_unit_test(a_film_in_fragments_has_no_table),
        cmocka_unit_test(what_is_not_looked_at_is_not_scaled),
        cmocka_unit_test(frames_are_the_nearest_pictures),
        cmocka_unit_test(windows_are_those_of_the_whole_film),
        cmocka_unit_test(a_late_window_reads_little),
        cmocka_unit_test(damage_in_a_part_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
