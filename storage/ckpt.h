// SPDX-License-Identifier: Apache-2.0
// Checkpoints: safetensors files, one per writer, and one JSON manifest that is put last with a single
// create-only PUT; without it the checkpoint does not exist. Keys: STEP-SAVEID/rank-R.safetensors and
// manifest-STEP.json, STEP with 12 digits. The manifest's key has no save id, so that of two jobs which save
// one step exactly one commits. Nothing is ever overwritten. Knows names, shapes and bytes; knows nothing of
// models. Every byte read is checked against the manifest's CRC32C before use (in chunks, so that a part of a
// box can be read alone). Thread rule: a ckpt_save belongs to one thread at a time; reading is thread-safe.
#ifndef ORRERY_STORAGE_CKPT_H
#define ORRERY_STORAGE_CKPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "storage/store.h"

#define CKPT_DIMS         4
#define CKPT_NAME_MAX     255
#define CKPT_CONFIG_BYTES 32768

// A box of one tensor: the part that a rank holds. Whole tensors have offset 0 and extent = shape.
struct ckpt_tensor {
    const char *name; // at most CKPT_NAME_MAX bytes: "blocks.0.qkv.weight", "optim.m.blocks.0.qkv.weight"
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
    char sample_sha256[65];              // running digest of the sample sequence, hex
    char config_yaml[CKPT_CONFIG_BYTES]; // resolved config
};

// ---- saving. Rank 0 makes the save id and spreads it; every rank writes its tensors; when all have
// succeeded rank 0 commits with every rank's part (the JSON that ckpt_write_part produced).
#define CKPT_ID_BYTES 40
// `owner`: a number of the run's own, the same for all its attempts. The id tells whose a save is, so that a
// run clears up after itself and lets other runs' saves alone.
void ckpt_new_id(char out[CKPT_ID_BYTES], int64_t step, uint32_t owner);
int ckpt_write_part(struct store *s, const char *id, int writer, const struct ckpt_tensor *tensors, size_t n,
                    struct buf *part_json, struct err *e) ERR_CHECK;
// parts[i] is NUL-terminated JSON of writer i. The boxes of each tensor must cover it exactly once (DATA
// names it). CONFLICT: another save committed this step already; ours is deleted. A retry of one's own commit
// succeeds; a manifest that cannot be read is replaced.
int ckpt_commit(struct store *s, const char *id, const struct ckpt_state *state, const char *const *parts,
                size_t n, struct err *e) ERR_CHECK;
// Deletes all but the `keep` newest complete checkpoints (manifest first; never the newest one) and what
// unfinished saves of this owner have left, its uploads too (store_sweep). Not while this owner is saving.
int ckpt_retain(struct store *s, int64_t keep, uint32_t owner, struct err *e) ERR_CHECK;
// Deletes what unfinished saves of any owner have left: for a person who knows that nobody is saving. *n
// counts the saves.
int ckpt_clean(struct store *s, size_t *n, struct err *e) ERR_CHECK;
// Deletes one checkpoint, manifest first: a broken one that its run is about to save again.
int ckpt_remove(struct store *s, const char *id, struct err *e) ERR_CHECK;

// ---- finding and reading.
struct ckpt_entry {
    char id[CKPT_ID_BYTES]; // of a broken one the step alone
    int64_t step;
    int64_t bytes; // of tensor data
    bool broken;   // its manifest cannot be read: ckpt_open says why
};
// Committed checkpoints, newest first; the caller frees *out. An empty store: n = 0.
int ckpt_list(struct store *s, struct ckpt_entry **out, size_t *n, struct err *e) ERR_CHECK;

struct ckpt; // an open checkpoint (its manifest)
// `id` may be the step alone ("400", leading zeros or not).
int ckpt_open(struct ckpt **out, struct store *s, const char *id, struct err *e) ERR_CHECK;
void ckpt_close(struct ckpt *c);
// Reads files that lie in this store, too, from there, checked in the same way; what is missing or damaged
// there comes from the checkpoint's own store. *files: how many lie there. The store must outlive c.
int ckpt_use_nearby(struct ckpt *c, struct store *nearby, size_t *files, struct err *e) ERR_CHECK;
// From now on ckpt_read and ckpt_read_many call heard(arg) after every few megabytes, on the thread that
// reads.
void ckpt_tell(struct ckpt *c, void (*heard)(void *arg), void *arg);
const char *ckpt_id(const struct ckpt *c);
const struct ckpt_state *ckpt_state_of(const struct ckpt *c);
size_t ckpt_tensors(const struct ckpt *c);
// Name, rank and shape of tensor i (sorted by name, bytewise); borrowed. offset 0, extent = shape, data NULL.
void ckpt_tensor_at(const struct ckpt *c, size_t i, struct ckpt_tensor *out);
// The file that holds the beginning of tensor i: "rank-3.safetensors" was written by rank 3.
const char *ckpt_tensor_file(const struct ckpt *c, size_t i);
// True when tensor i of a and k of b lie in the same boxes and every CRC32C agrees, which needs no reading;
// false says nothing.
bool ckpt_tensor_same(const struct ckpt *a, size_t i, const struct ckpt *b, size_t k);
// Reads the box (offset, extent) of `want` into `into`. MISSING names the tensor; DATA file, tensor and
// range.
int ckpt_read(struct ckpt *c, const struct ckpt_tensor *want, void *into, struct err *e) ERR_CHECK;
// The same for n boxes, with many requests under way at once.
int ckpt_read_many(struct ckpt *c, const struct ckpt_tensor *wants, void *const *into, size_t n,
                   struct err *e) ERR_CHECK;
// Bytes of tensor data that reading has fetched so far.
int64_t ckpt_fetched(struct ckpt *c);
// SHA-256 over names, shapes and bytes of all tensors in name order, whatever the layout: hex, 65 bytes.
int ckpt_digest(struct ckpt *c, char out[65], struct err *e) ERR_CHECK;
// Reads every byte of every file: headers, sizes, data. *bytes: of tensor data, as ckpt_list has it.
int ckpt_verify(struct ckpt *c, int64_t *bytes, struct err *e) ERR_CHECK;
// One plain safetensors file (names starting with `prefix` only, NULL: all; none starting with `without`,
// NULL: all), whole tensors in name order, handed to `write` front to back.
typedef int ckpt_write_fn(void *arg, const void *data, size_t bytes, struct err *e);
int ckpt_export_to(struct ckpt *c, const char *prefix, const char *without, ckpt_write_fn *write, void *arg,
                   struct err *e) ERR_CHECK;

#endif
