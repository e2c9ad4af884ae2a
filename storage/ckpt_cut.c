// SPDX-License-Identifier: Apache-2.0
#include "storage/ckpt_cut.h"

#include <stdlib.h>

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

// Equal fractions give equal places, so that 8 ways give at most 21 inside.
size_t ckpt_cut_places(int64_t size, int64_t lo, int64_t hi, int ways, int64_t out[CKPT_PLACES_MAX]) {
    size_t n = 0, kept = 1;
    out[n++] = lo;
    for (int w = 2; w <= ways && w <= CKPT_WAYS; w++)
        for (int k = 1; k < w; k++) {
            int64_t place = size / w * k + size % w * k / w;
            if (place > lo && place < hi) out[n++] = place;
        }
    out[n++] = hi;
    qsort(out, n, sizeof *out, by_number);
    for (size_t i = 1; i < n; i++)
        if (out[i] != out[kept - 1]) out[kept++] = out[i];
    return kept;
}

size_t ckpt_cut_chunks(const struct ckpt_box *b, int64_t *ends) {
    int64_t places[CKPT_PLACES_MAX] = {0, 1}, row = b->bytes;
    size_t n_places = 2, n = 0;
    if (b->rank) {
        row = b->bytes / b->extent[0];
        n_places = ckpt_cut_places(b->shape[0], b->offset[0], b->offset[0] + b->extent[0], b->ways, places);
    }
    for (size_t i = 1; i < n_places; i++) {
        int64_t lo = (places[i - 1] - places[0]) * row, hi = (places[i] - places[0]) * row;
        size_t here = (size_t)((hi - lo + b->chunk - 1) / b->chunk);
        for (size_t k = 0; ends && k < here; k++)
            ends[n + k] = k + 1 < here ? lo + (int64_t)(k + 1) * b->chunk : hi;
        n += here;
    }
    return n;
}

size_t ckpt_cut_chunk_at(const struct ckpt_box *b, int64_t byte) {
    size_t lo = 0, hi = b->n_crcs - 1;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (b->ends[mid] <= byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}
