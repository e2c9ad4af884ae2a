// SPDX-License-Identifier: Apache-2.0
// The reader of MP4 films on any bytes: pictures within the caller's caps, in rising order of time, or bad
// data. The same of a part of them: two pieces, cut where the last bytes say, and a key frame wherever they
// say.
#include <stdbool.h>
#include <stdlib.h>

#include "trainer/media_mp4.h"

#define SIDE     8
#define PICTURES 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct seen {
    int n;
    double at;
    unsigned sum; // every byte is read, so that a sanitizer sees one that is not there
    bool part;
};

static int see(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct seen *s = arg;
    if (!pixels) return 0;
    if (s->n == PICTURES || (s->n ? at <= s->at : at != 0 && !s->part)) abort();
    for (int i = 0; i < SIDE * SIDE * 3; i++) s->sum += pixels[i];
    s->at = at;
    s->n++;
    return 0;
}

static void decode(const uint8_t *data, size_t n, const struct media_mp4_part *part) {
    const struct media_mp4_want want = {.height = SIDE,
                                        .width = SIDE,
                                        .channels = 3,
                                        .rate_hz = 10,
                                        .max_pixels = 4096,
                                        .max_pictures = PICTURES,
                                        .part = part};
    struct err e = {0};
    struct seen s = {.part = part != NULL};
    int rc = media_mp4_decode(part ? NULL : data, n, &want, see, &s, &e);
    if (rc ? e.code != ERR_DATA && e.code != ERR_MEMORY && e.code != ERR_ABSENT : s.n < 1 && !part) abort();
}

static int64_t word(const uint8_t *p) {
    return (int64_t)p[0] << 16 | p[1] << 8 | p[2];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    decode(data, n, NULL);
    if (n < 32) return 0;
    const uint8_t *tail = data + n - 16;
    size_t cut = (size_t)word(tail) % n, gap = tail[3] % (n - cut);
    const struct media_mp4_piece pieces[] = {{0, cut, data},
                                             {(int64_t)(cut + gap), n - cut - gap, data + cut + gap}};
    const struct media_mp4_part part = {.pieces = pieces,
                                        .n = 2,
                                        .key_byte = word(tail + 4) % (int64_t)n,
                                        .last_byte = word(tail + 7) % (int64_t)n,
                                        .key_ticks = word(tail + 10),
                                        .timescale = word(tail + 13)};
    decode(data, n, &part);
    return 0;
}
