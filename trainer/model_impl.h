// SPDX-License-Identifier: Apache-2.0
// The inside of the model, shared by model.c, model_space.c, model_forward.c and model_backward.c only.
// Shapes: B sequences, F frames, P tokens per frame, N = B F P, D width, K width of the keys, H hidden, M
// modalities, G = B F M, n = a modality's tokens per frame.
#ifndef ORRERY_TRAINER_MODEL_IMPL_H
#define ORRERY_TRAINER_MODEL_IMPL_H

#include "kernels/ops.h"
#include "trainer/model.h"
#include "trainer/model_mask.h"

// Where a block's tensors stand in the table of parameters.
struct model_block {
    int qkv, out, up, down, mod, gamma;
};

// What a block's forward leaves for its backward. Without training all blocks share one set.
struct model_layer {
    struct tensor x, h1, rstd1;       // [N, D] input, [N, D] its norm
    struct tensor qkv, q, k, rstd_qk; // [N, D + 2K], [N, D], [N, K], [N, heads + kv_heads]
    struct tensor o, lse, y1;         // [N, D], [N, heads], [N, D] attention's output and its projection
    struct tensor x2, h2, rstd2;      // the stream between attention and MLP, its norm
    struct tensor up, act, y2;        // [N, 2H], [N, H], [N, D]
};

// Keys and values of the frames before, for a space that holds one frame of every sequence (model_decode.c).
struct model_past {
    int64_t frames, at;       // that there is room for; the number of the space's own frame
    struct token_map map;     // of B rows of frames P tokens: the own frame's are modality 1
    struct mask mask;         // P x frames P
    struct model_masks masks; // of sequences that lack a sense in frames that this one sees
    struct tensor cos, sin;   // [frames P, head_dim / 2]
    struct tensor *k, *v;     // per block [B frames P, K]
};

struct model_space {
    struct arena arena;
    const struct model_past *past; // NULL: the space holds whole sequences
    bool training;
    int64_t sequences, frames; // that the views below are laid out for
    // A prediction's input and output on a device with memory of its own, else NULL.
    float *z[OPS_MODALITIES_MAX], *history[OPS_MODALITIES_MAX], *pred[OPS_MODALITIES_MAX]; // [B, F, E]
    float *tau, *tau_history; // [B, F, M], [B, F]
    struct token_map map;
    struct mask mask;
    struct model_masks masks; // of sequences that lack a sense
    struct model_layer *layers;
    struct tensor cos, sin;                      // [F P, head_dim / 2]
    struct tensor rows[OPS_MODALITIES_MAX];      // [B F n, value + history seen]
    struct tensor e[OPS_MODALITIES_MAX];         // [B F n, D] embedded; in the backward their gradients
    struct tensor act;                           // [B F, D]
    struct tensor features, cond1, cond1_act, c; // [G, 24 + M], [G, cond_width] twice, [G, 6D]
    struct tensor x, normed, rstd;               // the last stream [N, D], its norm
    struct tensor last[OPS_MODALITIES_MAX];      // [B F n, D] rows of `normed`
    struct tensor out[OPS_MODALITIES_MAX];       // [B F n, value]
    // gradients
    struct tensor dout[OPS_MODALITIES_MAX]; // [B F n, value]
    struct tensor dx, dy, dh;               // [N, D]
    struct tensor dup, dact;                // [N, 2H], [N, H]
    struct tensor dqkv, dq, dk;             // [N, D + 2K], [N, D], [N, K]
    struct tensor dc, dcond1, daction;      // [G, 6D], [G, cond_width], [B F, D]
};

struct model {
    const struct config *config;
    struct device *device;
    struct modality_set set;
    struct params params;
    float *weights;
    void *low; // the weights in the device's compute type, the same layout; NULL where that is fp32
    int64_t hidden;
    int heads, kv_heads, head_dim;
    int embed[OPS_MODALITIES_MAX], head_weight[OPS_MODALITIES_MAX], head_bias[OPS_MODALITIES_MAX];
    int slot, action_map, cond1_weight, cond1_bias, cond2_weight, cond2_bias; // action_map -1: no actions
    struct model_block *blocks;
    struct model_space training, predicting;
    struct model_watch watch;
};

// Tensor i of the table in a flat buffer; the weights themselves in the type that a product with `other`
// needs.
struct tensor model_param(const struct model *m, float *flat, int i);
struct tensor model_param_at(const struct model *m, float *at, int i); // which starts there
struct tensor model_weight_for(const struct model *m, const struct tensor *other, int i);

int64_t model_kv_width(const struct model *m);                               // K
struct tensor model_values(const struct model *m, const struct tensor *qkv); // its columns of values [N, K]

// The stages of the blocks and what lies around them.
enum { STAGE_EMBED, STAGE_CONDITION, STAGE_BLOCKS };

// Lays the space out for B sequences of F frames; takes a larger arena when it must. Keeps nothing of before.
int model_space_shape(struct model_space *s, const struct model *m, int64_t sequences, int64_t frames,
                      struct err *e) ERR_CHECK;
void model_space_fini(struct model_space *s);
int64_t model_space_bytes(const struct model *m, int64_t sequences, int64_t frames, bool training);

enum dtype model_compute(const struct model *m); // without a device, as for plans: the CPU's

// Sequences that a prediction works on at a time.
int64_t model_predict_chunk(const struct modality_set *set, int64_t frames);

int64_t model_past_bytes(const struct model *m, int64_t sequences, int64_t frames);
// Rotation angles of positions 0 .. frames P - 1.
int model_fill_angles(const struct model *m, const struct tensor *cos_at, const struct tensor *sin_at,
                      int64_t frames, struct err *e) ERR_CHECK;

// A prediction's input, host memory so far, is where the device reads it: copied into the space, or as it is.
int model_bring_in(struct model *m, const struct model_space *s, struct model_input *in,
                   struct err *e) ERR_CHECK;
// The forward pass: x [N, D] = the tokens of `in`; then all blocks on the space's first x and the heads.
int model_embed(struct model *m, struct model_space *s, const struct model_input *in, struct tensor x,
                struct err *e) ERR_CHECK;
int model_transform(struct model *m, struct model_space *s, const struct model_input *in,
                    struct err *e) ERR_CHECK;
int model_run(struct model *m, struct model_space *s, const struct model_input *in, struct err *e) ERR_CHECK;
// pred[i] [frames, E], host memory, = the heads' rows as frames, where it is wanted.
int model_predicted(struct model *m, const struct model_space *s, int64_t frames, float *const *pred,
                    struct err *e) ERR_CHECK;

#endif
