// SPDX-License-Identifier: Apache-2.0
// The table of parameters: every tensor's name, shape and place in one flat fp32 buffer, so that gradients,
// optimiser state, checkpoints and the ranks' shares are all ranges of one layout. A pure function of config
// and modalities. Owns no weights.
#ifndef ORRERY_TRAINER_PARAMS_H
#define ORRERY_TRAINER_PARAMS_H

#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "kernels/ops.h"
#include "trainer/modality.h"

enum param_group { PARAM_MATRIX, PARAM_OTHER }; // the blocks' matrices (Muon); everything else (AdamW)
enum param_init { PARAM_ZERO, PARAM_FAN_IN, PARAM_SLOT, PARAM_GAMMA };

#define PARAM_PARTS_MAX 3

struct param {
    char name[64]; // "blocks.0.qkv.weight"
    int rank;      // 1 or 2
    int64_t shape[2];
    int64_t offset, elems; // in floats; offsets are multiples of 16, the gaps stay zero
    enum param_group group;
    int parts; // matrices stacked in the rows, each orthogonalised alone: qkv 3, up 2, else 1
    int64_t part_rows[PARAM_PARTS_MAX];
    enum param_init init;
    int stage; // the forward reads tensors stage by stage, the backward finishes them in the reverse order
    int64_t first_fan,
        next_fan; // PARAM_FAN_IN: columns [0, first_fan), then blocks of next_fan columns (0: none)
};

struct params {
    int n;
    struct param *list; // in order of offset
    int stages;         // ascending along the list: embeddings, condition, a stage per block, heads
    int64_t elems;      // of the flat buffer, gaps included
    int64_t count;      // of numbers, gaps not included
};

// A stretch of something in the flat layout: number `first` lies at `at`.
struct params_place {
    float *at;
    int64_t first;
};

int params_init(struct params *out, const struct config *c, const struct modality_set *m,
                struct err *e) ERR_CHECK;
void params_fini(struct params *p);
const struct param *params_find(const struct params *p, const char *name); // NULL: none
// Starting values of tensor i, drawn where it lies in `flat` (device memory, cleared): N(0, 1/fan_in) and the
// rest, a function of (seed, i) alone.
int params_fill(const struct params *p, int i, uint64_t seed, struct device *d, float *flat,
                struct err *e) ERR_CHECK;

// Widths that follow from the config.
int64_t params_hidden(const struct config *c); // of the SwiGLU
int params_heads(const struct config *c);
int params_kv_heads(const struct config *c); // of keys and of values

#endif
