// SPDX-License-Identifier: Apache-2.0
#include "trainer/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/media_png.h"

#define PNG_LEVEL 6

int picture_init(struct picture *p, int64_t width, int64_t height, struct picture_colour colour,
                 struct err *e) {
    size_t n;
    *p = (struct picture){.width = width, .height = height};
    if (width < 1 || height < 1 || !bytes_mul((size_t)width, (size_t)height, &n) || !bytes_mul(n, 3, &n))
        return err_set(e, ERR_BUG, "picture of %lld x %lld", (long long)width, (long long)height);
    p->rgb = malloc(n);
    if (!p->rgb) return err_set(e, ERR_MEMORY, "no memory for a picture of %zu bytes", n);
    picture_fill(p, 0, 0, width, height, colour);
    return 0;
}

void picture_fini(struct picture *p) {
    free(p->rgb);
    p->rgb = NULL;
}

static void put(struct picture *p, int64_t x, int64_t y, struct picture_colour c) {
    if (x < 0 || y < 0 || x >= p->width || y >= p->height) return;
    unsigned char *at = p->rgb + 3 * (y * p->width + x);
    at[0] = c.r;
    at[1] = c.g;
    at[2] = c.b;
}

void picture_fill(struct picture *p, int64_t x, int64_t y, int64_t width, int64_t height,
                  struct picture_colour c) {
    for (int64_t r = y; r < y + height; r++)
        for (int64_t k = x; k < x + width; k++) put(p, k, r, c);
}

static void draw_line(struct picture *p, double x0, double y0, double x1, double y1,
                      struct picture_colour c) {
    double length = fmax(fabs(x1 - x0), fabs(y1 - y0));
    if (!(length < 1e5)) return;
    int64_t steps = (int64_t)ceil(length) + 1;
    for (int64_t i = 0; i <= steps; i++) {
        double t = (double)i / (double)steps;
        put(p, (int64_t)floor(x0 + t * (x1 - x0)), (int64_t)floor(y0 + t * (y1 - y0)), c);
    }
}

void picture_arrow(struct picture *p, double x0, double y0, double x1, double y1, struct picture_colour c) {
    double dx = x1 - x0, dy = y1 - y0, length = hypot(dx, dy), head = fmin(5.0, 0.5 * length);
    draw_line(p, x0, y0, x1, y1, c);
    if (!(length > 2)) return;
    dx *= head / length;
    dy *= head / length;
    draw_line(p, x1, y1, x1 - dx - 0.6 * dy, y1 - dy + 0.6 * dx, c);
    draw_line(p, x1, y1, x1 - dx + 0.6 * dy, y1 - dy - 0.6 * dx, c);
}

// Rows of three dots from the top, the top row in the highest bits: "A" is 010 101 111 101 101.
static const uint16_t digits[10] = {075557, 026227, 071747, 071717, 055711,
                                    074717, 074757, 071111, 075757, 075717};
static const uint16_t letters[26] = {025755, 065656, 034443, 065556, 074647, 074644, 034553, 055755, 072227,
                                     011153, 055655, 044447, 057755, 065555, 025552, 065644, 025563, 065655,
                                     034216, 072222, 055557, 055552, 055775, 055255, 055222, 071247};

static uint16_t glyph(char c) {
    if (c >= '0' && c <= '9') return digits[c - '0'];
    if (c >= 'a' && c <= 'z') return letters[c - 'a'];
    if (c >= 'A' && c <= 'Z') return letters[c - 'A'];
    switch (c) {
    case ' ': return 0;
    case '=': return 007070;
    case '-': return 000700;
    case '+': return 002720;
    case '/': return 011244;
    case ':': return 002020;
    case ',': return 000024;
    default: return 000002;
    }
}

void picture_text(struct picture *p, int64_t x, int64_t y, int scale, const char *text,
                  struct picture_colour c) {
    for (; *text; text++, x += PICTURE_LETTER_WIDTH * scale) {
        uint16_t dots = glyph(*text);
        for (int i = 0; i < 15; i++)
            if (dots >> (14 - i) & 1) picture_fill(p, x + i % 3 * scale, y + i / 3 * scale, scale, scale, c);
    }
}

static unsigned char byte_of(double v) {
    if (!(v > 0)) return 0;
    return v >= 1 ? 255 : (unsigned char)lround(v * 255);
}

static struct picture_colour colour_of(const float *v, int channels) {
    if (channels == 2) {
        double pusher = v[0], puck = v[1];
        return (struct picture_colour){byte_of(0.95 * puck + 0.06),
                                       byte_of(0.35 * pusher + 0.45 * puck + 0.07),
                                       byte_of(0.95 * pusher + 0.1)};
    }
    if (channels == 3) return (struct picture_colour){byte_of(v[0]), byte_of(v[1]), byte_of(v[2])};
    double sum = 0;
    for (int c = 0; c < channels; c++) sum += v[c];
    unsigned char grey = byte_of(sum / channels);
    return (struct picture_colour){grey, grey, grey};
}

void picture_video(struct picture *p, int64_t x, int64_t y, int scale, const float *frame,
                   const struct patch_grid *grid) {
    for (int64_t r = 0; r < grid->height; r++)
        for (int64_t c = 0; c < grid->width; c++)
            picture_fill(p, x + c * scale, y + r * scale, scale, scale,
                         colour_of(frame + (r * grid->width + c) * grid->channels, grid->channels));
}

int picture_png(const struct picture *p, struct buf *out, struct err *e) {
    return media_png_write(out, p->rgb, p->height, p->width, 3, PNG_LEVEL, e);
}
