// SPDX-License-Identifier: Apache-2.0
// PNG pictures of 8 bits per channel, in memory. No libpng type appears here. The input is hostile: the size
// in the header is checked against the caller's cap before memory is asked for.
#ifndef ORRERY_TRAINER_MEDIA_PNG_H
#define ORRERY_TRAINER_MEDIA_PNG_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "trainer/media_image.h"

// Palettes become RGB, 1 to 4 bits 8, 16 bits 8. DATA: what is wrong with it.
int media_png_read(const void *bytes, size_t n, size_t max_bytes, struct media_image *out,
                   struct err *e) ERR_CHECK;
// Appends a file. `level` 0..9 is zlib's: 1 is fast. The same pixels give the same bytes on one machine.
int media_png_write(struct buf *out, const unsigned char *pixels, int64_t height, int64_t width,
                    int64_t channels, int level, struct err *e) ERR_CHECK;

#endif
