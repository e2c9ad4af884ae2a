// SPDX-License-Identifier: Apache-2.0
// The manifest of a checkpoint, in memory and as JSON. Inside storage only: ckpt.h is the door. A part (what
// one writer reports) is the same document with one file and without the state.
#ifndef ORRERY_STORAGE_CKPT_MANIFEST_H
#define ORRERY_STORAGE_CKPT_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "storage/ckpt.h"
#include "storage/safetensors.h"

#define CKPT_MANIFEST_MAX ((size_t)64 << 20)
#define CKPT_KEY_BYTES    128
#define CKPT_CHUNK_MIN    ((int64_t)64 << 10)
#define CKPT_CHUNK_MAX    ((int64_t)1 << 30)
#define CKPT_CHUNKS_MAX   1024 // of one box: a chunk is the least power of two that keeps to it
#define CKPT_FILE_PREFIX  "rank-"
#define CKPT_LABEL_BYTES  (CKPT_NAME_MAX + 200)

// A box of a tensor as it lies in a file.
struct ckpt_box {
    char *name;
    int rank;
    int64_t shape[CKPT_DIMS], offset[CKPT_DIMS], extent[CKPT_DIMS];
    size_t file;
    int64_t begin, bytes; // in the file's data
    int64_t chunk;        // bytes that one CRC covers at most
    int ways;             // chunks end where as many ranks would split the first dimension; 0: they do not
    size_t n_crcs;
    uint32_t *crcs;
    int64_t *ends; // of the chunks, in the box: ckpt_manifest_add_box makes them
};

struct ckpt_file {
    char name[48]; // "rank-0.safetensors"
    int64_t bytes, data_begin;
    uint32_t header_crc32c;
};

// Boxes of one tensor: boxes[first .. first + n).
struct ckpt_group {
    size_t first, n;
};

struct ckpt_manifest {
    char id[CKPT_ID_BYTES];
    struct ckpt_state state;
    int64_t bytes; // of tensor data
    size_t n_files, cap_files, n_boxes, cap_boxes, n_tensors;
    struct ckpt_file *files;
    struct ckpt_box *boxes;
    struct ckpt_group *tensors; // after ckpt_manifest_seal
};

void ckpt_manifest_init(struct ckpt_manifest *m);
void ckpt_manifest_fini(struct ckpt_manifest *m);

// Elements of a box or shape of at most CKPT_DIMS sizes >= 1; false when they overflow.
bool ckpt_volume(const int64_t *extent, int rank, int64_t *out);
int64_t ckpt_chunk_bytes(int64_t box_bytes);
// The name of a box inside its file: the tensor's, and "[a:b,c:d]" when it is not the whole tensor.
void ckpt_box_label(const struct ckpt_box *b, char out[CKPT_LABEL_BYTES]);

int ckpt_manifest_add_file(struct ckpt_manifest *m, const struct ckpt_file *file, struct err *e) ERR_CHECK;
// Copies *b; the copy owns its own name and CRCs (n_crcs of them; crcs NULL: zeros).
int ckpt_manifest_add_box(struct ckpt_manifest *m, const struct ckpt_box *b, struct err *e) ERR_CHECK;
// Sorts boxes by name and place, groups them, and checks that the boxes of each tensor cover it exactly once,
// and that the boxes of each file fill its data. DATA names tensor or file.
int ckpt_manifest_seal(struct ckpt_manifest *m, const char *what, struct err *e) ERR_CHECK;
const struct ckpt_group *ckpt_manifest_find(const struct ckpt_manifest *m, const char *name); // NULL: none

int ckpt_manifest_write_part(const struct ckpt_manifest *m, struct buf *out, struct err *e) ERR_CHECK;
int ckpt_manifest_write(const struct ckpt_manifest *m, struct buf *out, struct err *e) ERR_CHECK;
// Adds a part's file and boxes to m; the part's id must be m's.
int ckpt_manifest_add_part(struct ckpt_manifest *m, const char *json, const char *what,
                           struct err *e) ERR_CHECK;
// The whole document, its own CRC first; sealed.
int ckpt_manifest_parse(struct ckpt_manifest *m, const char *json, size_t n, const char *what,
                        struct err *e) ERR_CHECK;
// Reads it from the store, again while its CRC is wrong; text: the document as it was read.
int ckpt_manifest_get(struct ckpt_manifest *m, struct store *s, const char *key, const char *what,
                      struct buf *text, struct err *e) ERR_CHECK;

// "STEP-SAVEID", or a step alone (then out_id is empty). False when it is neither.
bool ckpt_parse_id(const char *id, int64_t *step, char out_id[CKPT_ID_BYTES]);
void ckpt_manifest_key(int64_t step, char out[CKPT_KEY_BYTES]);

#endif
