// SPDX-License-Identifier: Apache-2.0
// MP4 films in memory. FFmpeg's libraries decode; they are in a plug-in of their own, liborrery_ffmpeg.so
// beside the programs (trainer/ffmpeg/), which is loaded when the first film is met: nothing else needs them,
// and no type of theirs appears here. The input is hostile.
#ifndef ORRERY_TRAINER_MEDIA_MP4_H
#define ORRERY_TRAINER_MEDIA_MP4_H

#include "trainer/media_clip.h"

#define MEDIA_MP4_PIXELS_MAX   ((int64_t)1 << 26) // of one picture as it was coded: 8192 x 8192
#define MEDIA_MP4_PICTURES_MAX ((int64_t)1 << 20)
#define MEDIA_MP4_CODECS       "h264, hevc, mpeg4, av1, vp9, mjpeg"
#define MEDIA_MP4_ABI          2

struct media_mp4_want {
    int64_t height, width, channels; // of a picture as it is handed over; 1 channel (grey) or 3 (RGB)
    double rate_hz;                  // steps in which times are told
    int64_t max_pixels;              // as coded; checked before a picture's memory is asked for
    int64_t max_pictures;
    const unsigned char *shown; // as in media_clip_want
    int64_t n_shown;
};

typedef int media_mp4_read_fn(const void *bytes, size_t n, const struct media_mp4_want *want,
                              media_picture_fn *each, void *arg, struct err *e);

// The one symbol of the plug-in: "orrery_ffmpeg".
struct media_mp4_plugin {
    unsigned abi;
    const char *version;
    media_mp4_read_fn *read;
};

// The first video track, in order of presentation times; audio and all else is passed over. Decoded in this
// thread, to the same bits every time; scaled by area. Rotation that the file asks for is not applied.
// ABSENT, with the cure, where there is no plug-in. Any thread.
int media_mp4_read(const void *bytes, size_t n, const struct media_mp4_want *want, media_picture_fn *each,
                   void *arg, struct err *e) ERR_CHECK;

// What the plug-in implements (trainer/ffmpeg/decode.c): the same without the plug-in between.
int media_mp4_decode(const void *bytes, size_t n, const struct media_mp4_want *want, media_picture_fn *each,
                     void *arg, struct err *e) ERR_CHECK;

#endif
