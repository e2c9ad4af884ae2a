// SPDX-License-Identifier: Apache-2.0
#include "trainer/media_png.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// libpng reports failures by longjmp. The functions between setjmp and longjmp keep all state in these
// structs, so nothing that they own lives in registers.
struct png_source {
    const unsigned char *p;
    size_t left, max_bytes;
    struct media_image image;
    png_bytep *rows;
    char why[160];
};

struct png_sink {
    struct buf *out;
    struct err *e;
    int rc;
    char why[160];
};

static void png_keep_why(char why[160], const char *text) {
    if (!why[0]) snprintf(why, 160, "%s", text);
}

static void png_source_fail(png_structp png, png_const_charp text) {
    struct png_source *s = png_get_error_ptr(png);
    png_keep_why(s->why, text);
    png_longjmp(png, 1);
}

static void png_sink_fail(png_structp png, png_const_charp text) {
    struct png_sink *s = png_get_error_ptr(png);
    png_keep_why(s->why, text);
    png_longjmp(png, 1);
}

static void png_quiet(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

static void png_take(png_structp png, png_bytep into, size_t n) {
    struct png_source *s = png_get_io_ptr(png);
    if (n > s->left) png_error(png, "cut short");
    memcpy(into, s->p, n);
    s->p += n;
    s->left -= n;
}

static void png_give(png_structp png, png_bytep data, size_t n) {
    struct png_sink *s = png_get_io_ptr(png);
    s->rc = buf_append(s->out, data, n, s->e);
    if (s->rc) png_error(png, "no room");
}

static void png_flush_nothing(png_structp png) {
    (void)png;
}

static void png_to_8_bits(png_structp png, png_infop info) {
    png_set_strip_16(png);
    png_set_packing(png);
    if (png_get_color_type(png, info) == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) < 8)
        png_set_expand_gray_1_2_4_to_8(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static void png_make_room(png_structp png, struct png_source *s, size_t row_bytes) {
    size_t bytes, pointers;
    if (!bytes_mul(row_bytes, (size_t)s->image.height, &bytes) || bytes > s->max_bytes)
        png_error(png, "larger than expected");
    if (!bytes_mul(sizeof(png_bytep), (size_t)s->image.height, &pointers))
        png_error(png, "larger than expected");
    s->image.pixels = malloc(bytes);
    s->rows = malloc(pointers);
    if (!s->image.pixels || !s->rows) png_error(png, "no memory");
    for (int64_t y = 0; y < s->image.height; y++) s->rows[y] = s->image.pixels + (size_t)y * row_bytes;
}

static void png_read_all(png_structp png, png_infop info, struct png_source *s) {
    png_read_info(png, info);
    s->image.height = png_get_image_height(png, info);
    s->image.width = png_get_image_width(png, info);
    // Interlaced pictures need passes over the whole image; the check below must come before any large
    // allocation.
    size_t pixels;
    if (!bytes_mul((size_t)s->image.height, (size_t)s->image.width, &pixels) || pixels > s->max_bytes)
        png_error(png, "larger than expected");
    png_to_8_bits(png, info);
    s->image.channels = png_get_channels(png, info);
    png_make_room(png, s, png_get_rowbytes(png, info));
    png_read_image(png, s->rows);
    png_read_end(png, NULL);
}

int media_png_read(const void *bytes, size_t n, size_t max_bytes, struct media_image *out, struct err *e) {
    struct png_source s = {.p = bytes, .left = n, .max_bytes = max_bytes};
    memset(out, 0, sizeof *out);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, png_source_fail, png_quiet);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return err_set(e, ERR_MEMORY, "no memory for a PNG reader");
    }
    png_set_read_fn(png, &s, png_take);
    png_set_user_limits(png, 1u << 30, 1u << 30);
    png_set_chunk_cache_max(png, 16);
    png_set_chunk_malloc_max(png, 1u << 20);
    if (!setjmp(png_jmpbuf(png))) png_read_all(png, info, &s);
    png_destroy_read_struct(&png, &info, NULL);
    free(s.rows);
    if (s.why[0]) {
        free(s.image.pixels);
        return err_set(e, ERR_DATA, "broken PNG: %s", s.why);
    }
    *out = s.image;
    return 0;
}

static void png_write_all(png_structp png, png_infop info, const unsigned char *pixels, int64_t height,
                          int64_t width, int64_t channels, int level) {
    static const int colour[5] = {0, PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                                  PNG_COLOR_TYPE_RGB_ALPHA};
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, colour[channels], PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(png, level);
    png_set_filter(png, 0, PNG_FILTER_NONE);
    png_write_info(png, info);
    for (int64_t y = 0; y < height; y++) png_write_row(png, pixels + y * width * channels);
    png_write_end(png, NULL);
}

int media_png_write(struct buf *out, const unsigned char *pixels, int64_t height, int64_t width,
                    int64_t channels, int level, struct err *e) {
    struct png_sink s = {.out = out, .e = e};
    if (channels < 1 || channels > 4 || height < 1 || width < 1 || height > 1 << 30 || width > 1 << 24)
        return err_set(e, ERR_BUG, "no PNG can be %lld x %lld x %lld", (long long)height, (long long)width,
                       (long long)channels);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &s, png_sink_fail, png_quiet);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return err_set(e, ERR_MEMORY, "no memory for a PNG writer");
    }
    png_set_user_limits(png, 1u << 30, 1u << 30);
    png_set_write_fn(png, &s, png_give, png_flush_nothing);
    if (!setjmp(png_jmpbuf(png))) png_write_all(png, info, pixels, height, width, channels, level);
    png_destroy_write_struct(&png, &info);
    if (s.rc) return s.rc;
    return s.why[0] ? err_set(e, ERR_MEMORY, "cannot write a PNG: %s", s.why) : 0;
}
