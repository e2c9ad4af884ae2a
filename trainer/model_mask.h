// SPDX-License-Identifier: Apache-2.0
// Attention masks of sequences that lack a sense in some frames: its tokens there are keys for nobody.
// Sequences that lack nothing keep the mask that all share. Inside the model only.
#ifndef ORRERY_TRAINER_MODEL_MASK_H
#define ORRERY_TRAINER_MODEL_MASK_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/mask.h"
#include "trainer/modality.h"

struct model_masks {                     // zeroed at first
    bool used;                           // by the input that was looked at last
    int64_t sequences, frames, segments; // that there is room for
    struct mask *own;                    // [sequences]; runs and intervals lie in the pools
    const struct mask **list;            // [sequences]: own, or the shared one
    struct mask_run *runs;               // [sequences, frames]
    struct mask_interval *intervals;     // [sequences, frames, segments]
};

// valid[i] [B, F], host, 1 where sense i is there; valid[i] NULL: everywhere. Takes memory when it first
// meets a gap in a batch of this size, none afterwards.
int model_masks_look(struct model_masks *m, const struct modality_set *set, const unsigned char *const *valid,
                     int64_t sequences, int64_t frames, int64_t window, const struct mask *shared,
                     struct err *e) ERR_CHECK;
// The same for the queries of frame `at` alone, which see it and frames before it (decoding): shared is of
// its tokens against those of all `frames`; what is behind `at` is not looked at.
int model_masks_look_at(struct model_masks *m, const struct modality_set *set,
                        const unsigned char *const *valid, int64_t sequences, int64_t frames, int64_t at,
                        int64_t window, const struct mask *shared, struct err *e) ERR_CHECK;
void model_masks_fini(struct model_masks *m);

#endif
