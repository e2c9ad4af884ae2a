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
#define MEDIA_MP4_ABI          3

// Of a film that is not there as a whole: the bytes that are, and where among them decoding begins and ends.
// Bytes elsewhere count as behind the film's end.
struct media_mp4_piece {
    int64_t at; // in the film
    size_t n;
    const void *data;
};
struct media_mp4_part {
    const struct media_mp4_piece *pieces;
    int n;
    int64_t key_byte, last_byte; // where the packets of a key frame and of the last picture to decode begin
    int64_t start;               // ticks from the film's beginning to its first picture
    int64_t key_ticks;           // from the first picture to the key frame
    int64_t timescale;           // ticks per second
};

struct media_mp4_want {
    int64_t height, width, channels; // of a picture as it is handed over; 1 channel (grey) or 3 (RGB)
    double rate_hz;                  // steps in which times are told
    int64_t max_pixels;              // as coded; checked before a picture's memory is asked for
    int64_t max_pictures;
    const unsigned char *shown; // as in media_clip_want
    int64_t n_shown;
    // NULL: the whole film. Else pictures are counted from the key frame on; those that are shown before it
    // are passed over; DATA, where the pieces and places are not those of the film.
    const struct media_mp4_part *part;
};

typedef int media_mp4_read_fn(const void *bytes, size_t n, const struct media_mp4_want *want,
                              media_picture_fn *each, void *arg, struct err *e);

// The one symbol of the plug-in: "orrery_ffmpeg".
struct media_mp4_plugin {
    unsigned abi;
    const char *version;
    media_mp4_read_fn *read;
};

// `bytes` [n], or NULL where want->part has pieces of such a film. The first video track, in order of
// presentation times; audio and all else is passed over. Decoded in this thread, to the same bits every time;
// scaled by area. Rotation that the file asks for is not applied. ABSENT, with the cure, where there is no
// plug-in. Any thread.
int media_mp4_read(const void *bytes, size_t n, const struct media_mp4_want *want, media_picture_fn *each,
                   void *arg, struct err *e) ERR_CHECK;

// What the plug-in implements (trainer/ffmpeg/decode.c): the same without the plug-in between.
int media_mp4_decode(const void *bytes, size_t n, const struct media_mp4_want *want, media_picture_fn *each,
                     void *arg, struct err *e) ERR_CHECK;

#endif
