// SPDX-License-Identifier: Apache-2.0
// Encoders and decoders of media: what is written reads back; no hostile input harms or is believed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
// jpeglib.h needs stdio.h before it
#include <jpeglib.h>

#include "base/rng.h"
#include "trainer/media_audio.h"
#include "trainer/media_image.h"
#include "trainer/media_npy.h"
#include "trainer/media_png.h"

static struct buf text_npy(const char *header, const void *data, size_t n) {
    struct buf b;
    struct err e = {0};
    unsigned char head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 0, 0};
    bytes_put_le16(head + 8, (uint16_t)strlen(header));
    buf_init(&b, 1 << 20);
    assert_int_equal(buf_append(&b, head, 10, &e), 0);
    assert_int_equal(buf_appends(&b, header, &e), 0);
    assert_int_equal(buf_append(&b, data, n, &e), 0);
    return b;
}

static void npy_round_trip(void **state) {
    (void)state;
    struct err e = {0};
    struct buf b;
    struct media_npy a;
    const float data[6] = {0, -1.5f, 3e30f, 1e-30f, 7, 8};
    buf_init(&b, 1 << 20);
    assert_int_equal(media_npy_write(&b, 2, (int64_t[]){3, 2}, data, &e), 0);
    assert_int_equal(b.len % 64, 24);
    assert_int_equal(media_npy_read(b.data, b.len, 6, &a, &e), 0);
    assert_int_equal(a.rank, 2);
    assert_int_equal(a.shape[0], 3);
    assert_int_equal(a.shape[1], 2);
    assert_memory_equal(a.data, data, sizeof data);
    media_npy_fini(&a);
    assert_int_equal(media_npy_read(b.data, b.len, 5, &a, &e), -ERR_DATA);
    buf_fini(&b);
}

static void npy_reads_types(void **state) {
    (void)state;
    static const struct {
        const char *descr;
        size_t bytes;
        unsigned char data[8];
        float want;
    } rows[] = {{"|u1", 1, {200}, 200},
                {"|i1", 1, {200}, -56},
                {"<i2", 2, {0, 0x80}, -32768},
                {"<u2", 2, {0, 0x80}, 32768},
                {"<i4", 4, {0xff, 0xff, 0xff, 0xff}, -1},
                {"<u4", 4, {0, 0, 0, 0x80}, 2147483648.0f},
                {"<i8", 8, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, -2},
                {"<f8", 8, {0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, 1.5f}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char header[96];
        struct err e = {0};
        struct media_npy a;
        snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (1,), }\n",
                 rows[i].descr);
        struct buf b = text_npy(header, rows[i].data, rows[i].bytes);
        assert_int_equal(media_npy_read(b.data, b.len, 100, &a, &e), 0);
        assert_true(a.elems == 1 && a.data[0] == rows[i].want);
        media_npy_fini(&a);
        buf_fini(&b);
    }
}

static void npy_refuses(void **state) {
    (void)state;
    static const char *const headers[] = {
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296,4294967296,4294967296,2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,2), }",
        "{'descr': '<f4', 'shape': (2,), }",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } rubbish",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,",
        "{'descr': '<f4",
        "",
    };
    const float data[2] = {1, 2};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        struct err e = {0};
        struct media_npy a;
        struct buf b = text_npy(headers[i], data, sizeof data);
        assert_int_equal(media_npy_read(b.data, b.len, 1 << 20, &a, &e), -ERR_DATA);
        assert_null(a.data);
        buf_fini(&b);
    }
}

static void png_round_trip(void **state) {
    (void)state;
    struct rng_stream r;
    rng_stream_init(&r, rng_key(1, RNG_TEST, 0), 0, 0);
    for (int channels = 1; channels <= 4; channels++) {
        struct err e = {0};
        struct buf b;
        struct media_image image;
        unsigned char pixels[7 * 5 * 4];
        for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (unsigned char)rng_next_u32(&r);
        buf_init(&b, 1 << 20);
        assert_int_equal(media_png_write(&b, pixels, 7, 5, channels, 1, &e), 0);
        assert_int_equal(media_png_read(b.data, b.len, sizeof pixels, &image, &e), 0);
        assert_int_equal(image.height, 7);
        assert_int_equal(image.width, 5);
        assert_int_equal(image.channels, channels);
        assert_memory_equal(image.pixels, pixels, (size_t)(35 * channels));
        media_image_fini(&image);
        assert_int_equal(media_png_read(b.data, b.len, (size_t)(35 * channels - 1), &image, &e), -ERR_DATA);
        buf_fini(&b);
    }
}

static void png_full_buffer_is_an_error(void **state) {
    (void)state;
    struct err e = {0};
    struct buf b;
    unsigned char pixels[64] = {0};
    buf_init(&b, 40);
    assert_true(media_png_write(&b, pixels, 8, 8, 1, 1, &e) < 0);
    assert_int_not_equal(e.code, 0);
    buf_fini(&b);
}

static void flac_round_trip(void **state) {
    (void)state;
    enum { N = 16000 };
    struct err e = {0};
    struct buf b;
    struct media_sound s;
    int16_t *pcm = calloc(N, sizeof *pcm);
    for (int i = 4000; i < 9000; i++) pcm[i] = (int16_t)((i * 7919) % 65536 - 32768);
    buf_init(&b, 1 << 20);
    assert_int_equal(buf_append(&b, "front", 5, &e), 0); // the encoder seeks within its own part
    assert_int_equal(media_audio_write_flac(&b, pcm, N, 16000, &e), 0);
    assert_memory_equal(b.data, "frontfLaC", 9);
    assert_int_equal(media_audio_read(b.data + 5, b.len - 5, N, &s, &e), 0);
    assert_int_equal(s.samples, N);
    assert_int_equal(s.rate_hz, 16000);
    for (int i = 0; i < N; i++) assert_true(s.data[i] * 32768 == pcm[i]);
    media_sound_fini(&s);
    assert_int_equal(media_audio_read(b.data + 5, b.len - 5, N - 1, &s, &e), -ERR_DATA);
    free(pcm);
    buf_fini(&b);
}

static struct buf stereo_wav(uint32_t says_bytes) {
    struct buf b;
    struct err e = {0};
    unsigned char head[44] = "RIFF....WAVEfmt ";
    bytes_put_le32(head + 4, 36 + says_bytes);
    bytes_put_le32(head + 16, 16);
    bytes_put_le16(head + 20, 1);
    bytes_put_le16(head + 22, 2);
    bytes_put_le32(head + 24, 8000);
    bytes_put_le32(head + 28, 32000);
    bytes_put_le16(head + 32, 4);
    bytes_put_le16(head + 34, 16);
    memcpy(head + 36, "data", 4);
    bytes_put_le32(head + 40, says_bytes);
    const unsigned char data[8] = {0, 0x40, 0, 0, 0, 0x40, 0, 0xc0}; // (1/2, 0), (1/2, -1/2)
    buf_init(&b, 1 << 20);
    assert_int_equal(buf_append(&b, head, 44, &e), 0);
    assert_int_equal(buf_append(&b, data, 8, &e), 0);
    return b;
}

static void wav_is_averaged(void **state) {
    (void)state;
    struct err e = {0};
    struct media_sound s;
    struct buf b = stereo_wav(8);
    assert_int_equal(media_audio_read(b.data, b.len, 100, &s, &e), 0);
    assert_int_equal(s.samples, 2);
    assert_true(s.data[0] == 0.25f && s.data[1] == 0);
    media_sound_fini(&s);
    buf_fini(&b);
}

static void wav_that_lies_about_its_length(void **state) {
    (void)state;
    struct err e = {0};
    struct media_sound s;
    struct buf b = stereo_wav(0x7ffffff0);
    int rc = media_audio_read(b.data, b.len, 100, &s, &e);
    assert_true(rc == 0 ? s.samples <= 100 : rc == -ERR_DATA);
    media_sound_fini(&s);
    buf_fini(&b);
}

// A decoder given every prefix and many flipped bits either refuses or stays within its cap.
typedef void feed_fn(const void *bytes, size_t n);

static void feed_npy(const void *bytes, size_t n) {
    struct err e = {0};
    struct media_npy a;
    if (!media_npy_read(bytes, n, 64, &a, &e)) assert_true(a.elems <= 64);
    media_npy_fini(&a);
}
static void feed_png(const void *bytes, size_t n) {
    struct err e = {0};
    struct media_image a;
    if (!media_png_read(bytes, n, 1024, &a, &e)) assert_true(a.height * a.width * a.channels <= 1024);
    media_image_fini(&a);
}
static void feed_sound(const void *bytes, size_t n) {
    struct err e = {0};
    struct media_sound a;
    if (!media_audio_read(bytes, n, 512, &a, &e)) assert_true(a.samples <= 512);
    media_sound_fini(&a);
}

static void feed_broken(const struct buf *b, feed_fn *feed) {
    char *copy = malloc(b->len);
    for (size_t n = 0; n < b->len; n++) { // an exact copy, so that a sanitizer sees any byte read beyond it
        char *prefix = malloc(n + !n);
        memcpy(prefix, b->data, n);
        feed(prefix, n);
        free(prefix);
    }
    for (size_t bit = 0; bit < b->len * 8; bit++) {
        memcpy(copy, b->data, b->len);
        copy[bit / 8] = (char)(copy[bit / 8] ^ (1 << bit % 8));
        feed(copy, b->len);
    }
    free(copy);
}

static void broken_input_is_harmless(void **state) {
    (void)state;
    struct err e = {0};
    struct buf b;
    const float numbers[12] = {1};
    unsigned char pixels[16 * 16 * 2] = {9};
    int16_t pcm[500] = {1000, -1000, 3};
    buf_init(&b, 1 << 20);
    assert_int_equal(media_npy_write(&b, 2, (int64_t[]){3, 4}, numbers, &e), 0);
    feed_broken(&b, feed_npy);
    buf_clear(&b);
    assert_int_equal(media_png_write(&b, pixels, 16, 16, 2, 6, &e), 0);
    feed_broken(&b, feed_png);
    buf_clear(&b);
    assert_int_equal(media_audio_write_flac(&b, pcm, 500, 16000, &e), 0);
    feed_broken(&b, feed_sound);
    buf_fini(&b);
    b = stereo_wav(8);
    feed_broken(&b, feed_sound);
    buf_fini(&b);
}

// ---- JPEG, as libjpeg writes it

static struct buf jpeg_of(int height, int width, int channels, bool progressive) {
    struct jpeg_compress_struct j;
    struct jpeg_error_mgr errors;
    unsigned char *out = NULL, *row = malloc((size_t)(width * channels));
    unsigned long n = 0;
    struct err e = {0};
    struct buf b;
    assert_non_null(row);
    j.err = jpeg_std_error(&errors);
    jpeg_create_compress(&j);
    jpeg_mem_dest(&j, &out, &n);
    j.image_height = (JDIMENSION)height;
    j.image_width = (JDIMENSION)width;
    j.input_components = channels;
    j.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&j);
    jpeg_set_quality(&j, 95, TRUE);
    if (progressive) jpeg_simple_progression(&j);
    jpeg_start_compress(&j, TRUE);
    while (j.next_scanline < j.image_height) {
        for (int i = 0; i < width * channels; i++) row[i] = (unsigned char)(i * 255 / (width * channels));
        (void)jpeg_write_scanlines(&j, &row, 1);
    }
    jpeg_finish_compress(&j);
    jpeg_destroy_compress(&j);
    buf_init(&b, 1 << 20);
    assert_int_equal(buf_append(&b, out, n, &e), 0);
    free(out);
    free(row);
    return b;
}

static void jpeg_is_read(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        int channels = kind % 2 ? 3 : 1;
        struct err e = {0};
        struct media_image a;
        struct buf b = jpeg_of(40, 56, channels, kind > 1);
        assert_int_equal(media_image_read(b.data, b.len, (size_t)(40 * 56 * channels), &a, &e), 0);
        assert_int_equal(a.height, 40);
        assert_int_equal(a.width, 56);
        assert_int_equal(a.channels, channels);
        for (int i = 0; i < 56 * channels; i += channels)
            assert_in_range(a.pixels[20 * 56 * channels + i] + 8, i * 255 / (56 * channels),
                            i * 255 / (56 * channels) + 16);
        media_image_fini(&a);
        assert_int_equal(media_image_read(b.data, b.len, (size_t)(40 * 56 * channels - 1), &a, &e),
                         -ERR_DATA);
        assert_non_null(strstr(e.text, "larger than expected"));
        for (size_t cut = 0; cut < b.len - 2; cut += 7) { // never half a picture
            err_clear(&e);
            assert_int_equal(media_image_read(b.data, cut, 1 << 20, &a, &e), -ERR_DATA);
            assert_null(a.pixels);
        }
        buf_fini(&b);
    }
}

static void npy_is_a_film(void **state) {
    (void)state;
    struct err e = {0};
    struct media_image a;
    unsigned char pixels[2 * 3 * 4 * 2];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (unsigned char)(i * 5);
    struct buf b = text_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 4, 2), }\n", pixels,
                            sizeof pixels);
    assert_int_equal(media_image_read(b.data, b.len, sizeof pixels, &a, &e), 0);
    assert_int_equal(a.height, 6);
    assert_int_equal(a.width, 4);
    assert_int_equal(a.channels, 2);
    assert_memory_equal(a.pixels, pixels, sizeof pixels);
    media_image_fini(&a);
    assert_int_equal(media_image_read(b.data, b.len, sizeof pixels - 1, &a, &e), -ERR_DATA);
    buf_fini(&b);
    b = text_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1), }\n", &(float){-1}, 4);
    assert_int_equal(media_image_read(b.data, b.len, 100, &a, &e), -ERR_DATA);
    assert_int_equal(media_image_read("GIF89a", 6, 100, &a, &e), -ERR_DATA);
    buf_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_round_trip),
        cmocka_unit_test(npy_reads_types),
        cmocka_unit_test(npy_refuses),
        cmocka_unit_test(png_round_trip),
        cmocka_unit_test(png_full_buffer_is_an_error),
        cmocka_unit_test(jpeg_is_read),
        cmocka_unit_test(npy_is_a_film),
        cmocka_unit_test(flac_round_trip),
        cmocka_unit_test(wav_is_averaged),
        cmocka_unit_test(wav_that_lies_about_its_length),
        cmocka_unit_test(broken_input_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
