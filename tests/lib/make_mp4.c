// SPDX-License-Identifier: Apache-2.0
// usage: make_mp4 FILE ENCODER WIDTH HEIGHT PICTURES MILLISECONDS [noisy]    a film for tests, one picture
// every so many milliseconds. Exit 77: FFmpeg has no such encoder here.
#include <stdio.h>

#include "lib/mp4_make.h"

int main(int argc, char **argv) {
    if (argc != 7 && argc != 8) return 64;
    int pictures = (int)strtol(argv[5], NULL, 10);
    int64_t step = strtol(argv[6], NULL, 10), *times = calloc((size_t)pictures + 1, sizeof *times);
    size_t n = 0;
    if (!times) return 71;
    for (int i = 0; i < pictures; i++) times[i] = i * step;
    struct mp4_make m = {
        argv[2],  (int)strtol(argv[3], NULL, 10), (int)strtol(argv[4], NULL, 10), pictures, 0, times, false,
        argc == 8};
    char *bytes = mp4_encode(&m, &n);
    FILE *f = bytes ? fopen(argv[1], "wb") : NULL;
    bool ok = f && fwrite(bytes, 1, n, f) == n && !fclose(f);
    free(bytes);
    free(times);
    return ok ? 0 : 77;
}
