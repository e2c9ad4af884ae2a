// SPDX-License-Identifier: Apache-2.0
// The safetensors format (github.com/huggingface/safetensors, "Format"): eight bytes of header length, a JSON
// header, the tensors' bytes without holes. Headers only: written padded with blanks so that the data starts
// at a multiple of 4 KiB, and read as hostile input.
#ifndef ORRERY_STORAGE_SAFETENSORS_H
#define ORRERY_STORAGE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define SAFETENSORS_ALIGN      4096
#define SAFETENSORS_DIMS       8
#define SAFETENSORS_HEADER_MAX ((size_t)32 << 20)

struct safetensors_entry {
    const char *name;
    char dtype[8]; // "F32", "BF16", ...
    int rank;
    int64_t shape[SAFETENSORS_DIMS];
    int64_t begin, end; // of its bytes, from the start of the data
};

// Appends length and header. Entries must be in the order of their bytes. `metadata`: pairs of key and value,
// ended by a NULL key, or NULL.
int safetensors_write_header(struct buf *out, const struct safetensors_entry *entries, size_t n,
                             const char *const (*metadata)[2], struct err *e) ERR_CHECK;

struct json;
struct safetensors {
    size_t n;
    struct safetensors_entry *entries; // in the order of their bytes
    struct json *doc;                  // owns the names
};
// Bytes of the JSON header from a file's first eight bytes; DATA when they do not fit the file.
int safetensors_header_bytes(const unsigned char first[8], int64_t file_bytes, const char *what, int64_t *out,
                             struct err *e) ERR_CHECK;
// `json` is the header without its length; `data_bytes` is what follows it in the file. Every type and size
// is checked; the tensors cover the data exactly.
int safetensors_parse(struct safetensors *out, const char *json, size_t n, int64_t data_bytes,
                      const char *what, struct err *e) ERR_CHECK;
void safetensors_fini(struct safetensors *s);

#endif
