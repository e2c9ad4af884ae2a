// SPDX-License-Identifier: Apache-2.0
// GIFs and pictures, decoded again: GIFs by a reader of our own that follows the format's text.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/gif.h"
#include "trainer/media_png.h"
#include "trainer/picture.h"

#define BYTES_MAX ((size_t)1 << 26)

// ---- a plain LZW reader.
struct reader {
    const unsigned char *data; // sub-blocks joined
    size_t n, at_bit;
    int size;
};

static int next_code(struct reader *r) {
    int code = 0;
    for (int i = 0; i < r->size; i++, r->at_bit++) {
        assert_true(r->at_bit / 8 < r->n);
        code |= (r->data[r->at_bit / 8] >> (r->at_bit % 8) & 1) << i;
    }
    return code;
}

struct entry {
    int prefix, last, first;
};

static void put_string(const struct entry *t, int code, unsigned char *out, int64_t *n) {
    unsigned char back[4096];
    int k = 0;
    for (; code >= 0; code = t[code].prefix) back[k++] = (unsigned char)t[code].last;
    while (k > 0) out[(*n)++] = back[--k];
}

static int64_t unpack(const unsigned char *data, size_t n, unsigned char *out) {
    struct reader r = {data, n, 0, 9};
    struct entry t[4096];
    int64_t made = 0;
    int next = 258, before = -1;
    for (int i = 0; i < 258; i++) t[i] = (struct entry){-1, i, i};
    for (;;) {
        int code = next_code(&r);
        if (code == 257) return made;
        if (code == 256) {
            next = 258;
            before = -1;
            r.size = 9;
            continue;
        }
        assert_true(code < next || (code == next && before >= 0));
        if (before >= 0 && next < 4096) {
            int first = code < next ? t[code].first : t[before].first;
            t[next++] = (struct entry){before, first, t[before].first};
            if (next == 1 << r.size && r.size < 12) r.size++;
        }
        put_string(t, code, out, &made);
        before = code;
    }
}

static const unsigned char *unpack_frame(const unsigned char *at, const unsigned char *palette,
                                         int64_t pixels, unsigned char *rgb) {
    unsigned char *joined = malloc(BYTES_MAX / 16), *index = malloc((size_t)pixels + 8192);
    size_t n = 0;
    assert_true(at[0] == 0x21 && at[1] == 0xf9 && at[8] == 0x2c && at[18] == 8);
    at += 19;
    while (*at) {
        memcpy(joined + n, at + 1, *at);
        n += *at;
        at += *at + 1;
    }
    assert_int_equal(unpack(joined, n, index), pixels);
    for (int64_t i = 0; i < pixels; i++) memcpy(rgb + 3 * i, palette + 3 * index[i], 3);
    free(joined);
    free(index);
    return at + 1;
}

static void round_trip(const unsigned char *rgb, int64_t frames, int64_t w, int64_t h, int tolerance) {
    struct buf out;
    struct err e = {0};
    unsigned char *back = malloc((size_t)(3 * w * h));
    buf_init(&out, BYTES_MAX);
    assert_int_equal(gif_write(rgb, frames, w, h, 12, &out, &e), 0);
    assert_memory_equal(out.data, "GIF89a", 6);
    const unsigned char *bytes = (const unsigned char *)out.data, *at = bytes + 13 + 768 + 19;
    for (int64_t f = 0; f < frames; f++) {
        at = unpack_frame(at, bytes + 13, w * h, back);
        for (int64_t i = 0; i < 3 * w * h; i++)
            assert_true(abs(back[i] - rgb[f * 3 * w * h + i]) <= tolerance);
    }
    assert_int_equal(*at, ';');
    assert_ptr_equal(at + 1, bytes + out.len);
    buf_fini(&out);
    free(back);
}

static void few_colours_come_back_exactly(void **state) {
    enum { W = 37, H = 23, F = 3 };
    unsigned char rgb[F * W * H * 3];
    for (int i = 0; i < F * W * H; i++) {
        rgb[3 * i] = (unsigned char)(i % 7 * 32);
        rgb[3 * i + 1] = (unsigned char)(i / 37 % 5 * 40);
        rgb[3 * i + 2] = (unsigned char)(i % 3 * 100);
    }
    round_trip(rgb, F, W, H, 0);
}

static void many_colours_come_back_nearly(void **state) {
    enum { W = 128, H = 128 };
    unsigned char *rgb = malloc((size_t)W * H * 3);
    for (int i = 0; i < W * H; i++) {
        rgb[3 * i] = (unsigned char)(i % W * 2);
        rgb[3 * i + 1] = (unsigned char)(i / W * 2);
        rgb[3 * i + 2] = 128;
    }
    round_trip(rgb, 1, W, H, 24);
    free(rgb);
}

// Noise fills the code table again and again: every width and every clear code is met.
static void a_full_table_is_cleared(void **state) {
    enum { W = 300, H = 200 };
    unsigned char *rgb = malloc((size_t)W * H * 3);
    uint32_t s = 1;
    for (int i = 0; i < W * H; i++) {
        s = s * 1664525u + 1013904223u;
        memset(rgb + 3 * i, (int)(s >> 29) * 36, 3);
    }
    round_trip(rgb, 1, W, H, 0);
    free(rgb);
}

// Every length of a run meets the table at another place, the end code at every width included.
static void every_length_ends_well(void **state) {
    unsigned char *rgb = calloc(3, 2600);
    for (int i = 0; i < 2600; i++) rgb[3 * i] = (unsigned char)(i * i % 251 & 0xe0);
    for (int64_t w = 1; w <= 2600; w += w < 1100 ? 1 : 37) round_trip(rgb, 1, w, 1, 0);
    free(rgb);
}

static void sizes_out_of_range_are_refused(void **state) {
    struct buf out;
    struct err e = {0};
    unsigned char rgb[3] = {0};
    buf_init(&out, 1000);
    assert_int_equal(gif_write(rgb, 1, 70000, 1, 5, &out, &e), -ERR_BUG);
    err_clear(&e);
    assert_int_equal(gif_write(rgb, 1, 1, 1, 5, &out, &e), 0);
    buf_fini(&out);
    buf_init(&out, 500); // less than the palette takes
    assert_true(gif_write(rgb, 1, 1, 1, 5, &out, &e) < 0);
    buf_fini(&out);
}

static void pictures_show_objects_in_their_colours(void **state) {
    const struct patch_grid grid = {2, 2, 2, 1, 0};
    const float frame[8] = {1, 0, 0, 1, 0, 0, 2, -1}; // pusher, puck, nothing, out of range
    const struct picture_colour ground = {9, 9, 9};
    struct picture p;
    struct buf png;
    struct media_image back;
    struct err e = {0};
    assert_int_equal(picture_init(&p, 12, 10, ground, &e), 0);
    picture_video(&p, 2, 2, 3, frame, &grid);
    const unsigned char *pusher = p.rgb + 3 * (2 * 12 + 2), *puck = p.rgb + 3 * (2 * 12 + 5);
    assert_true(pusher[2] > 240 && pusher[0] < 30 && puck[0] > 240 && puck[2] < 60);
    assert_int_equal(p.rgb[0], 9);
    picture_fill(&p, -5, -5, 100, 6, (struct picture_colour){1, 2, 3}); // cut off at the edges
    picture_arrow(&p, 6, 5, 500, 5, (struct picture_colour){7, 7, 7});
    picture_text(&p, 8, 3, 1, "a1~", (struct picture_colour){8, 8, 8});
    assert_int_equal(p.rgb[1], 2);
    buf_init(&png, BYTES_MAX);
    assert_int_equal(picture_png(&p, &png, &e), 0);
    assert_int_equal(media_png_read(png.data, png.len, 10000, &back, &e), 0);
    assert_true(back.width == 12 && back.height == 10 && back.channels == 3);
    assert_memory_equal(back.pixels, p.rgb, 12 * 10 * 3);
    media_image_fini(&back);
    buf_fini(&png);
    picture_fini(&p);
}

// Frames for gif_peer.sh: FILE.gif and the pixels that it must decode to, FILE.rgb.
static int write_for_peer(const char *name) {
    enum { W = 61, H = 47, F = 4 };
    static unsigned char rgb[F * W * H * 3];
    char path[512];
    struct buf out;
    struct err e = {0};
    for (int i = 0; i < F * W * H * 3; i++) rgb[i] = (unsigned char)((i / 3 * 7 + i / 97) % 5 * 48);
    buf_init(&out, BYTES_MAX);
    int rc = gif_write(rgb, F, W, H, 10, &out, &e);
    snprintf(path, sizeof path, "%s.gif", name);
    if (!rc) rc = bytes_write_file(path, out.data, out.len, &e);
    snprintf(path, sizeof path, "%s.rgb", name);
    if (!rc) rc = bytes_write_file(path, rgb, sizeof rgb, &e);
    buf_fini(&out);
    return rc ? 1 : 0;
}

int main(int argc, char **argv) {
    if (argc == 2) return write_for_peer(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_colours_come_back_exactly),
        cmocka_unit_test(many_colours_come_back_nearly),
        cmocka_unit_test(a_full_table_is_cleared),
        cmocka_unit_test(every_length_ends_well),
        cmocka_unit_test(sizes_out_of_range_are_refused),
        cmocka_unit_test(pictures_show_objects_in_their_colours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
