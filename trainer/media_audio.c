// SPDX-License-Identifier: Apache-2.0
#include "trainer/media_audio.h"

#include <sndfile.h>
#include <stdlib.h>
#include <string.h>

// A file in memory: read from `p` or written to `out`, which FLAC's encoder seeks in to finish its header.
struct audio_file {
    const unsigned char *p;
    struct buf *out;
    struct err *e;
    size_t start; // of the file within out
    sf_count_t at, end;
    int rc;
};

static sf_count_t audio_length(void *arg) {
    return ((struct audio_file *)arg)->end;
}
static sf_count_t audio_tell(void *arg) {
    return ((struct audio_file *)arg)->at;
}

static sf_count_t audio_seek(sf_count_t offset, int whence, void *arg) {
    struct audio_file *f = arg;
    sf_count_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? f->at : f->end;
    if (offset < -base || offset > f->end - base) return -1;
    f->at = base + offset;
    return f->at;
}

static sf_count_t audio_take(void *into, sf_count_t n, void *arg) {
    struct audio_file *f = arg;
    if (!f->p || n < 0) return 0;
    if (n > f->end - f->at) n = f->end - f->at;
    if (n) memcpy(into, f->p + f->at, (size_t)n);
    f->at += n;
    return n;
}

static sf_count_t audio_give(const void *data, sf_count_t n, void *arg) {
    struct audio_file *f = arg;
    if (!f->out || f->rc || n < 0) return 0;
    sf_count_t over = n < f->end - f->at ? n : f->end - f->at;
    if (over) memcpy(f->out->data + f->start + f->at, data, (size_t)over);
    f->rc = buf_append(f->out, (const char *)data + over, (size_t)(n - over), f->e);
    if (f->rc) return 0;
    f->at += n;
    if (f->at > f->end) f->end = f->at;
    return n;
}

static SF_VIRTUAL_IO audio_io = {audio_length, audio_seek, audio_take, audio_give, audio_tell};

#define AUDIO_CHANNELS_MAX 8
#define AUDIO_CHUNK        4096

// Reads to the end in chunks, so that a header which lies about the length costs nothing.
static int audio_read_all(SNDFILE *f, int channels, struct media_sound *out, int64_t max_samples,
                          struct err *e) {
    float *chunk = malloc(sizeof(float) * AUDIO_CHUNK * (size_t)channels);
    int rc = chunk ? 0 : err_set(e, ERR_MEMORY, "no memory to decode sound");
    while (!rc) {
        sf_count_t got = sf_readf_float(f, chunk, AUDIO_CHUNK);
        if (got <= 0) break;
        if (got > max_samples - out->samples) {
            rc = err_set(e, ERR_DATA, "sound is longer than it says");
            break;
        }
        for (sf_count_t i = 0; i < got; i++) {
            float sum = 0;
            for (int c = 0; c < channels; c++) sum += chunk[i * channels + c];
            out->data[out->samples + i] = sum / (float)channels;
        }
        out->samples += got;
    }
    free(chunk);
    return rc;
}

int media_audio_read(const void *bytes, size_t n, int64_t max_samples, struct media_sound *out,
                     struct err *e) {
    struct audio_file file = {.p = bytes, .end = (sf_count_t)n};
    SF_INFO info = {0};
    memset(out, 0, sizeof *out);
    SNDFILE *f = sf_open_virtual(&audio_io, SFM_READ, &info, &file);
    if (!f) return err_set(e, ERR_DATA, "not a sound file that can be read: %s", sf_strerror(NULL));
    int rc = 0;
    int kind = info.format & SF_FORMAT_TYPEMASK;
    if (kind != SF_FORMAT_FLAC && kind != SF_FORMAT_WAV && kind != SF_FORMAT_WAVEX)
        rc = err_set(e, ERR_DATA, "sound is neither FLAC nor WAV");
    else if (info.channels < 1 || info.channels > AUDIO_CHANNELS_MAX || info.samplerate < 1)
        rc = err_set(e, ERR_DATA, "sound has %d channels at %d Hz", info.channels, info.samplerate);
    else if (info.frames < 0 || info.frames > max_samples)
        rc = err_set(e, ERR_DATA, "sound has %lld samples, at most %lld expected", (long long)info.frames,
                     (long long)max_samples);
    else if (!(out->data = malloc(sizeof(float) * (size_t)info.frames + 1)))
        rc = err_set(e, ERR_MEMORY, "no memory for %lld samples of sound", (long long)info.frames);
    if (!rc) rc = audio_read_all(f, info.channels, out, info.frames, e);
    if (!rc && out->samples != info.frames)
        rc = err_set(e, ERR_DATA, "sound is cut short: %lld of %lld samples", (long long)out->samples,
                     (long long)info.frames);
    out->rate_hz = info.samplerate;
    sf_close(f);
    if (rc) media_sound_fini(out);
    return rc;
}

void media_sound_fini(struct media_sound *s) {
    if (!s) return;
    free(s->data);
    memset(s, 0, sizeof *s);
}

int media_audio_write_flac(struct buf *out, const int16_t *samples, int64_t n, int rate_hz, struct err *e) {
    struct audio_file file = {.out = out, .e = e, .start = out->len};
    SF_INFO info = {.samplerate = rate_hz, .channels = 1, .format = SF_FORMAT_FLAC | SF_FORMAT_PCM_16};
    SNDFILE *f = sf_open_virtual(&audio_io, SFM_WRITE, &info, &file);
    if (!f) return err_set(e, ERR_BUG, "cannot start a FLAC: %s", sf_strerror(NULL));
    double level = 0.5;
    sf_command(f, SFC_SET_COMPRESSION_LEVEL, &level, sizeof level);
    sf_count_t done = sf_writef_short(f, samples, n);
    int closed = sf_close(f);
    if (file.rc) return file.rc;
    return done == n && !closed ? 0 : err_set(e, ERR_IO, "cannot write a FLAC of %lld samples", (long long)n);
}
