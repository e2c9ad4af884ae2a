// SPDX-License-Identifier: Apache-2.0
// A stand-in for NVIDIA's management library, as FAKE_GPUS says: "model:memory MiB:busy percent",
// comma-separated. FAKE_NVML=no-driver: it does not initialise; no-peers: no GPU reads another's memory.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct memory_info {
    unsigned long long total, free, used;
};
struct utilization {
    unsigned gpu, memory;
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device);
int nvmlDeviceGetName(void *device, char *text, unsigned bytes);
int nvmlDeviceGetMemoryInfo(void *device, struct memory_info *m);
int nvmlDeviceGetUtilizationRates(void *device, struct utilization *u);
int nvmlDeviceGetP2PStatus(void *a, void *b, int index, int *status);
int nvmlSystemGetDriverVersion(char *text, unsigned bytes);

static const char *word(const char *name) {
    const char *text = getenv(name);
    return text ? text : "";
}

int nvmlInit_v2(void) {
    return strcmp(word("FAKE_NVML"), "no-driver") ? 0 : 9;
}

int nvmlShutdown(void) {
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *n) {
    const char *text = word("FAKE_GPUS");
    *n = *text ? 1 : 0;
    for (; *text; text++) *n += *text == ',';
    return 0;
}

// A handle is the place of the GPU's words.
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) {
    char *text = getenv("FAKE_GPUS");
    for (; text && i; i--) text = strchr(text, ',') ? strchr(text, ',') + 1 : NULL;
    *device = text;
    return text && *text ? 0 : 2;
}

int nvmlDeviceGetName(void *device, char *text, unsigned bytes) {
    const char *from = device;
    snprintf(text, bytes, "%.*s", (int)strcspn(from, ":,"), from);
    return 0;
}

static unsigned long number(const void *device, int colon) {
    const char *at = device;
    for (; at && colon; colon--) at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL;
    return at ? strtoul(at, NULL, 10) : 0;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory_info *m) {
    m->total = (unsigned long long)number(device, 1) << 20;
    m->used = m->total / 4;
    m->free = m->total - m->used;
    return 0;
}

int nvmlDeviceGetUtilizationRates(void *device, struct utilization *u) {
    u->gpu = (unsigned)number(device, 2);
    u->memory = u->gpu / 2;
    return 0;
}

int nvmlDeviceGetP2PStatus(void *a, void *b, int index, int *status) {
    (void)index;
    *status = a == b || !strcmp(word("FAKE_NVML"), "no-peers");
    return 0;
}

int nvmlSystemGetDriverVersion(char *text, unsigned bytes) {
    snprintf(text, bytes, "555.42");
    return 0;
}
