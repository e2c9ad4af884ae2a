// SPDX-License-Identifier: Apache-2.0
// GPUs, found at run time: their absence is told plainly, and is only wrong where the config wants them.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/process.h"
#include "launcher/doctor_impl.h"
#include "launcher/nvml.h"
#include "launcher/proc.h"

#define NCCL_LIBRARY "libnccl.so.2"

static bool wants_gpu(const struct config *c) {
    return c && c->top_device == CONFIG_top_device_cuda;
}

static void absent(const struct config *c, struct doctor_finding *f, const char *text) {
    bool wanted = wants_gpu(c);
    doctor_say(f, "%s", text);
    if (wanted)
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE, "device is cuda: install it, or set device=auto or cpu");
}

// "8 x NVIDIA H100 80GB HBM3 (79.6 GiB), driver 535.104"; GPUs that differ or do not answer are told one by
// one.
static void describe(const struct nvml *n, struct doctor_finding *f) {
    struct nvml_gpu first = {.busy_percent = -1}, gpu;
    struct err e = {0};
    int same = 0, count = nvml_count(n);
    for (int i = 0; i < count; i++) {
        if (nvml_read(n, i, &gpu, &e)) {
            doctor_say(f, "%s", e.text);
            doctor_cure(f, DOCTOR_BAD, ERR_DEVICE,
                        "nvidia-smi -i %d -q; a reset (nvidia-smi -r) or a reboot may help", i);
            return;
        }
        if (i == 0) first = gpu;
        same += !strcmp(first.name, gpu.name);
    }
    doctor_say(f, "%d x %s (%.1f GiB, %.1f used, %d %% busy), driver %s", count, first.name,
               (double)first.memory_total_bytes / DOCTOR_GIB, (double)first.memory_used_bytes / DOCTOR_GIB,
               first.busy_percent, nvml_driver(n));
    if (same < count)
        doctor_cure(f, DOCTOR_WARN, ERR_OK, "%d of them are another model: the slowest sets the pace",
                    count - same);
}

void doctor_gpus(const struct config *c, struct doctor_finding *f) {
    struct nvml *n = NULL;
    struct err e = {0};
    char text[300];
    if (nvml_open(&n, &e)) {
        snprintf(text, sizeof text, "no GPU: %.200s", e.text);
        absent(c, f, text);
        return;
    }
    if (nvml_count(n))
        describe(n, f);
    else
        absent(c, f, "no GPU: a driver, but no device behind it");
    nvml_close(n);
}

void doctor_peers(const struct config *c, struct doctor_finding *f) {
    struct nvml *n = NULL;
    struct err e = {0};
    bool known = false;
    int pairs = 0, open = 0, a = -1, b = -1;
    if (nvml_open(&n, &e) || nvml_count(n) < 2) {
        doctor_say(f, "fewer than two GPUs: nothing to reach");
        nvml_close(n);
        return;
    }
    for (int i = 0; i < nvml_count(n); i++)
        for (int k = 0; k < nvml_count(n); k++) {
            if (i == k) continue;
            bool can = nvml_peers(n, i, k, &known);
            pairs += known;
            open += can;
            if (known && !can && a < 0) a = i, b = k;
        }
    if (!pairs)
        doctor_say(f, "the driver does not tell which GPUs reach each other");
    else
        doctor_say(f, "%d of %d pairs of GPUs read each other's memory", open, pairs);
    if (open < pairs)
        doctor_cure(f, DOCTOR_WARN, ERR_OK,
                    "GPU %d cannot read %d: sums between them go through host memory; in a VM pass NVLink "
                    "through, or "
                    "turn ACS off (nvidia-smi topo -p2p r)",
                    a, b);
    nvml_close(n);
}

void doctor_nccl(const struct config *c, struct doctor_finding *f) {
    int (*version)(int *) = NULL;
    int number = 0;
    void *library = dlopen(NCCL_LIBRARY, RTLD_LAZY | RTLD_LOCAL);
    void *at = library ? dlsym(library, "ncclGetVersion") : NULL;
    memcpy(&version, &at, sizeof at);
    if (version && !version(&number))
        doctor_say(f, "NCCL %d.%d.%d", number / 10000, number / 100 % 100, number % 100);
    else
        absent(c, f, "no NCCL (" NCCL_LIBRARY "): ranks on GPUs would go through MPI");
    if (library) dlclose(library);
}

void doctor_plugin(const struct config *c, struct doctor_finding *f) {
    char self[4096], path[4200];
    if (process_path(self, sizeof self, NULL)) self[0] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    snprintf(path, sizeof path, "%s/liborrery_cuda.so", self);
    if (access(path, R_OK) == 0)
        doctor_say(f, "%.300s", path);
    else
        absent(c, f, "no liborrery_cuda.so beside orrery: this build trains on CPUs");
}
