// SPDX-License-Identifier: Apache-2.0
// The pictures of a video member, one after the other in order of time, whatever format its first bytes say:
// a strip of pictures one under the other (PNG, JPEG, .npy; media_image.h), or a film (MP4; media_mp4.h). The
// input is hostile; memory is bounded by what the caller wants.
#ifndef ORRERY_TRAINER_MEDIA_CLIP_H
#define ORRERY_TRAINER_MEDIA_CLIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct media_clip_want {
    int64_t height, width, channels; // of a picture; a film is scaled to it, a strip must have it
    double rate_hz;                  // of the stream; a film has times of its own
    int64_t max_pictures;            // of a strip: more are DATA
    const unsigned char *shown;      // [n_shown]: which pictures of a film are looked at; NULL: all. The
    int64_t n_shown;                 // others, and those beyond, come without their pixels being set
};

// A picture [height][width][channels] `at` steps of 1 / rate_hz after the first one; it stays until the call
// after the next one. After the last one: once more, with pixels NULL. 0: go on; more: enough; negative: an
// error that media_clip_read passes on.
typedef int media_picture_fn(void *arg, double at, const unsigned char *pixels, struct err *e);

// DATA: what is wrong with it. ABSENT: this build cannot read the format.
int media_clip_read(const void *bytes, size_t n, const struct media_clip_want *want, media_picture_fn *each,
                    void *arg, struct err *e) ERR_CHECK;

#endif
