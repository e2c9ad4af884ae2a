// SPDX-License-Identifier: Apache-2.0
// The reader of MP4 films on any bytes: pictures within the caller's caps, in rising order of time, or bad
// data.
#include <stdlib.h>

#include "trainer/media_mp4.h"

#define SIDE     8
#define PICTURES 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct seen {
    int n;
    double at;
    unsigned sum; // every byte is read, so that a sanitizer sees one that is not there
};

static int see(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct seen *s = arg;
    if (!pixels) return 0;
    if (s->n == PICTURES || (s->n ? at <= s->at : at != 0)) abort();
    for (int i = 0; i < SIDE * SIDE * 3; i++) s->sum += pixels[i];
    s->at = at;
    s->n++;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct media_mp4_want want = {.height = SIDE,
                                               .width = SIDE,
                                               .channels = 3,
                                               .rate_hz = 10,
                                               .max_pixels = 4096,
                                               .max_pictures = PICTURES};
    struct err e = {0};
    struct seen s = {0};
    int rc = media_mp4_decode(data, n, &want, see, &s, &e);
    if (rc ? e.code != ERR_DATA && e.code != ERR_MEMORY && e.code != ERR_ABSENT : s.n < 1) abort();
    return 0;
}
