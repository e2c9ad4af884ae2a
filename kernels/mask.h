// SPDX-License-Identifier: Apache-2.0
// Attention masks as interval lists: runs of consecutive queries that see the same sorted, disjoint intervals
// of keys. Causal, block-causal over frames, sliding windows, document borders, missing modalities and
// modality-to-modality blocks are all such lists. Built once on the host, shared by every back end.
#ifndef ORRERY_KERNELS_MASK_H
#define ORRERY_KERNELS_MASK_H

#include <stdint.h>

#include "base/err.h"

struct mask_interval {
    int32_t lo, hi; // keys lo <= k < hi
};

struct mask_run {
    int32_t q_lo, q_hi;   // queries q_lo <= q < q_hi
    int32_t first, count; // its intervals
};

struct mask {
    int64_t queries, keys;
    int32_t n_runs, n_intervals;
    struct mask_run *runs; // sorted, cover every query exactly once
    struct mask_interval *intervals;
};

// Frame f of `frames` has `per_frame` tokens; a query of frame f sees frames max(0, f - window + 1) .. f;
// window 0: all. The queries may be the last `query_frames` frames only (decoding with a cache).
int mask_block_causal(struct mask *out, int64_t frames, int64_t per_frame, int64_t window,
                      int64_t query_frames, struct err *e) ERR_CHECK;
int mask_check(const struct mask *m, struct err *e) ERR_CHECK; // invariants above
int64_t mask_pairs(const struct mask *m);                      // visible (q, k) pairs: the FLOP count's base
void mask_fini(struct mask *m);

#endif
