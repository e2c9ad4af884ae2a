// SPDX-License-Identifier: Apache-2.0
// The safetensors header reader on any file. What is accepted covers the data exactly, without holes.
#include <stdlib.h>

#include "storage/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct safetensors s;
    int64_t header, at = 0;
    if (n < 8 || n > ((size_t)1 << 20)) return 0;
    if (safetensors_header_bytes(data, (int64_t)n, "input", &header, &e)) {
        if (e.code != ERR_DATA) abort();
        return 0;
    }
    if (header < 0 || header > (int64_t)n - 8) abort();
    if (safetensors_parse(&s, (const char *)data + 8, (size_t)header, (int64_t)n - 8 - header, "input", &e)) {
        if (e.code != ERR_DATA) abort();
        return 0;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.entries[i].begin != at || s.entries[i].end < at) abort();
        at = s.entries[i].end;
    }
    if (at != (int64_t)n - 8 - header) abort();
    safetensors_fini(&s);
    return 0;
}
