// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target without libFuzzer, in the ordinary test run: over each file of a corpus folder, each of
// its truncations (sampled) and a fixed series of byte changes. The same inputs every time.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"

#define MAX_FILE_BYTES ((size_t)4 << 20)
#define TRUNCATIONS    64
#define CHANGES        200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// A block of exactly n bytes, so that the address sanitizer sees the first byte read beyond it.
static void run_exact(const char *data, size_t n) {
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy) abort();
    if (n) memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

static void run_changed(char *data, size_t n, uint64_t number) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(1, RNG_TEST, 0), 0, number);
    for (int i = 0; i < CHANGES; i++) {
        size_t at = rng_next_below(&r, (uint32_t)n);
        char before = data[at];
        data[at] =
            (char)(rng_next_u32(&r) & 1 ? rng_next_u32(&r) : (uint32_t)before ^ 1u << rng_next_below(&r, 8));
        run_exact(data, n);
        if (i % 4) data[at] = before; // some changes pile up
    }
}

static int run_file(const char *path, uint64_t number) {
    struct err e = {0};
    struct buf b;
    buf_init(&b, MAX_FILE_BYTES);
    int rc = bytes_read_file(path, MAX_FILE_BYTES, &b, &e);
    if (rc)
        fprintf(stderr, "%s\n", e.text);
    else {
        size_t step = b.len / TRUNCATIONS + 1;
        run_exact(b.data, b.len);
        for (size_t n = 0; n < b.len; n += step) run_exact(b.data, n);
        if (b.len && b.len < 65536) run_changed(b.data, b.len, number);
    }
    buf_fini(&b);
    return rc;
}

int main(int argc, char **argv) {
    struct dirent **names = NULL;
    int n = argc == 2 ? scandir(argv[1], &names, NULL, alphasort) : -1;
    int files = 0, failed = 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", argv[1], names[i]->d_name);
        if (names[i]->d_name[0] != '.') failed |= run_file(path, (uint64_t)files++);
        free(names[i]);
    }
    free(names);
    if (!files)
        fprintf(stderr, "usage: %s FOLDER (with at least one file)\n", argv[0]);
    else
        printf("%d files replayed\n", files);
    return failed || !files ? 1 : 0;
}
