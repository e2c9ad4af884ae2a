// SPDX-License-Identifier: Apache-2.0
// Sound in memory: FLAC or WAV in, mono floats out; mono 16-bit FLAC out. No libsndfile type appears here.
// The input is hostile: the length in the header is checked against the caller's cap before memory is asked
// for.
#ifndef ORRERY_TRAINER_MEDIA_AUDIO_H
#define ORRERY_TRAINER_MEDIA_AUDIO_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct media_sound {
    int64_t samples;
    int rate_hz;
    float *data; // [samples] in [-1, 1); channels are averaged; owned
};

int media_audio_read(const void *bytes, size_t n, int64_t max_samples, struct media_sound *out,
                     struct err *e) ERR_CHECK;
void media_sound_fini(struct media_sound *s);
int media_audio_write_flac(struct buf *out, const int16_t *samples, int64_t n, int rate_hz,
                           struct err *e) ERR_CHECK;

#endif
