// SPDX-License-Identifier: Apache-2.0
// Pictures of 8 bits per channel from a member's bytes, whatever format they say they have: PNG, JPEG, or a
// .npy of u1. The input is hostile: the size in the header is checked against the caller's cap before memory
// is asked for.
#ifndef ORRERY_TRAINER_MEDIA_IMAGE_H
#define ORRERY_TRAINER_MEDIA_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct media_image {
    int64_t height, width, channels; // channels: 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA
    unsigned char *pixels;           // [height][width][channels]; owned
};

// A .npy of rank 3 is one picture [H][W][C], of rank 4 pictures one under the other. DATA: what is wrong with
// it.
int media_image_read(const void *bytes, size_t n, size_t max_bytes, struct media_image *out,
                     struct err *e) ERR_CHECK;
void media_image_fini(struct media_image *image); // NULL-safe

#endif
