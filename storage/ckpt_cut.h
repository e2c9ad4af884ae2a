// SPDX-License-Identifier: Apache-2.0
// How a box lies in its file. Tensors are split over 1 .. CKPT_WAYS ranks at the places size * k / n, along
// their first or last dimension. So a saved box is cut into panels at those places of its last dimension,
// each panel row by row on its own, and the bytes of a panel into chunks that end at those places of its
// first dimension: whoever loads such a part, whatever it was saved as, reads no byte of a neighbour's.
// Inside storage only.
#ifndef ORRERY_STORAGE_CKPT_CUT_H
#define ORRERY_STORAGE_CKPT_CUT_H

#include "storage/ckpt_manifest.h"

#define CKPT_WAYS       8
#define CKPT_PLACES_MAX 64                  // of one dimension, both ends with it: 23 for 8 ways
#define CKPT_PANEL_MIN  ((int64_t)16 << 10) // smaller boxes are one panel

// lo, the places size * k / n inside (lo, hi) for n = 1 .. ways, and hi; rising. Returns how many.
size_t ckpt_cut_places(int64_t size, int64_t lo, int64_t hi, int ways, int64_t out[CKPT_PLACES_MAX]);
// Ends of the chunks of a box with shape, offset, extent, bytes, chunk and ways; `ends` NULL: counts only.
size_t ckpt_cut_chunks(const struct ckpt_box *b, int64_t *ends);
// The chunk that holds a byte of the box.
size_t ckpt_cut_chunk_at(const struct ckpt_box *b, int64_t byte);

#endif
