// SPDX-License-Identifier: Apache-2.0
// JPEG pictures in memory: grey or RGB. No libjpeg type appears here.
#ifndef ORRERY_TRAINER_MEDIA_JPEG_H
#define ORRERY_TRAINER_MEDIA_JPEG_H

#include "trainer/media_image.h"

// DATA: what is wrong with it; a picture that is cut short or damaged counts as broken, also where libjpeg
// would fill the rest with grey.
int media_jpeg_read(const void *bytes, size_t n, size_t max_bytes, struct media_image *out,
                    struct err *e) ERR_CHECK;

#endif
