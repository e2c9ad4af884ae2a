// SPDX-License-Identifier: Apache-2.0
// Checkpoints: safetensors files, one or more per rank, and one JSON manifest that is put last with a single
// create-only PUT; without it the checkpoint does not exist. Keys: STEP-SAVEID/rank-R.safetensors and
// STEP-SAVEID/manifest.json, STEP with 12 digits. Nothing is ever overwritten. Knows names, shapes and bytes;
// knows nothing of models. Every byte read is checked against the manifest's CRC32C before use. Thread rule:
// a ckpt_save belongs to one thread at a time; reading is thread-safe.
#ifndef ORRERY_STORAGE_CKPT_H
#define ORRERY_STORAGE_CKPT_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "storage/store.h"

#define CKPT_DIMS 4

// A box of one tensor: the part that a rank holds. Whole tensors have offset 0 and extent = shape.
struct ckpt_tensor {
    const char *name; // "blocks.0.qkv.weight", "optim.m.blocks.0.qkv.weight"
    int rank;
    int64_t shape[CKPT_DIMS], offset[CKPT_DIMS], extent[CKPT_DIMS];
    const void *data; // fp32, contiguous box, host memory
};

// What belongs to the run, not to a rank.
struct ckpt_state {
    int64_t step;
    int64_t next_sample; // global index of the next item
    uint64_t seed;
    uint64_t config_hash;
    char sample_sha256[65]; // running digest of the sample sequence, hex
    char config_yaml[8192]; // resolved config
};

// ---- saving. Rank 0 makes the save id and spreads it; every rank writes its tensors; when all have
// succeeded rank 0 commits with every rank's part (the JSON that ckpt_write_part produced).
#define CKPT_ID_BYTES 32
void ckpt_new_id(char out[CKPT_ID_BYTES], int64_t step);
int ckpt_write_part(struct store *s, const char *id, int writer, const struct ckpt_tensor *tensors, size_t n,
                    struct buf *part_json, struct err *e) ERR_CHECK;
// parts[i] is NUL-terminated JSON of writer i. CONFLICT: somebody else committed this id's step already.
int ckpt_commit(struct store *s, const char *id, const struct ckpt_state *state, const char *const *parts,
                size_t n, struct err *e) ERR_CHECK;
// Deletes all but the `keep` newest complete checkpoints (manifest first) and unfinished saves older than
// them.
int ckpt_retain(struct store *s, int64_t keep, struct err *e) ERR_CHECK;

// ---- finding and reading.
struct ckpt_entry {
    char id[CKPT_ID_BYTES];
    int64_t step;
    int64_t bytes;
};
// Complete checkpoints, newest first; the caller frees *out.
int ckpt_list(struct store *s, struct ckpt_entry **out, size_t *n, struct err *e) ERR_CHECK;

struct ckpt; // an open checkpoint (its manifest)
int ckpt_open(struct ckpt **out, struct store *s, const char *id, struct err *e) ERR_CHECK;
void ckpt_close(struct ckpt *c);
const struct ckpt_state *ckpt_state_of(const struct ckpt *c);
size_t ckpt_tensors(const struct ckpt *c);
// Name, rank and shape of tensor i (sorted by name); borrowed.
void ckpt_tensor_at(const struct ckpt *c, size_t i, struct ckpt_tensor *out);
// Reads the box (offset, extent) of `want` into `into`. MISSING names the tensor; DATA file, tensor and
// range.
int ckpt_read(struct ckpt *c, const struct ckpt_tensor *want, void *into, struct err *e) ERR_CHECK;
// SHA-256 over names, shapes and bytes of all tensors in name order, whatever the layout: hex, 65 bytes.
int ckpt_digest(struct ckpt *c, char out[65], struct err *e) ERR_CHECK;
int ckpt_verify(struct ckpt *c, int64_t *bytes, struct err *e) ERR_CHECK;
// One plain safetensors file (names starting with `prefix` only; NULL: all) in memory.
int ckpt_export(struct ckpt *c, const char *prefix, struct buf *out, struct err *e) ERR_CHECK;

#endif
