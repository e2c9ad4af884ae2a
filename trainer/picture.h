// SPDX-License-Identifier: Apache-2.0
// Pictures for people: a canvas of RGB bytes, video frames on it, lines, bars and small text.
#ifndef ORRERY_TRAINER_PICTURE_H
#define ORRERY_TRAINER_PICTURE_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "kernels/ops.h"

struct picture_colour {
    unsigned char r, g, b;
};

struct picture {
    int64_t width, height;
    unsigned char *rgb; // [height, width, 3]
};

int picture_init(struct picture *p, int64_t width, int64_t height, struct picture_colour colour,
                 struct err *e) ERR_CHECK;
void picture_fini(struct picture *p);

// What lies outside the canvas is cut off.
void picture_fill(struct picture *p, int64_t x, int64_t y, int64_t width, int64_t height,
                  struct picture_colour c);
// A line with a head at (x1, y1).
void picture_arrow(struct picture *p, double x0, double y0, double x1, double y1, struct picture_colour c);
// Letters of 3 x 5 dots, `scale` pixels a dot, 4 dots apart; lower case is shown as upper, the unknown as a
// dot.
void picture_text(struct picture *p, int64_t x, int64_t y, int scale, const char *text,
                  struct picture_colour c);
#define PICTURE_LETTER_WIDTH 4

// One frame of video, values in 0..1, [height, width, channels], every pixel `scale` pixels wide. Two
// channels are objects on a dark ground: the first blue, the second orange; three are RGB; any other number
// is shown as grey.
void picture_video(struct picture *p, int64_t x, int64_t y, int scale, const float *frame,
                   const struct patch_grid *grid);

int picture_png(const struct picture *p, struct buf *out, struct err *e) ERR_CHECK;

#endif
