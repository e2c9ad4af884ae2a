// SPDX-License-Identifier: Apache-2.0
// Animated pictures: GIF89a with one palette for all frames, LZW, endless loop, into memory. Pure; no
// library.
#ifndef ORRERY_TRAINER_GIF_H
#define ORRERY_TRAINER_GIF_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

// Frames of width x height RGB pixels, one after the other; each is shown delay_cs hundredths of a second. At
// most 65535 pixels a side. The palette (256 colours) is made by median cut over all frames (Heckbert 1982),
// exact when there are few colours.
int gif_write(const unsigned char *rgb, int64_t frames, int64_t width, int64_t height, int delay_cs,
              struct buf *out, struct err *e) ERR_CHECK;

#endif
