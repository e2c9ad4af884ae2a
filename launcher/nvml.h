// SPDX-License-Identifier: Apache-2.0
// What NVIDIA's management library says of the GPUs of this machine. The library is loaded when asked for,
// and its absence is an answer, not a failure. Reads only. Source: the NVML API reference.
#ifndef ORRERY_LAUNCHER_NVML_H
#define ORRERY_LAUNCHER_NVML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct nvml;

struct nvml_gpu {
    char name[96];
    int64_t memory_total_bytes, memory_used_bytes; // -1: it does not say
    int busy_percent;                              // of the last moments; -1: it does not say
};

// UNAVAILABLE: no library, or no driver behind it; the text says which.
int nvml_open(struct nvml **out, struct err *e) ERR_CHECK;
void nvml_close(struct nvml *n); // NULL-safe
int nvml_count(const struct nvml *n);
int nvml_read(const struct nvml *n, int gpu, struct nvml_gpu *out, struct err *e) ERR_CHECK;
const char *nvml_driver(const struct nvml *n); // "535.104.05"; empty: it does not say
// May GPU `a` read the memory of `b` directly? False too when the library cannot tell; *known says which.
bool nvml_peers(const struct nvml *n, int a, int b, bool *known);

#endif
