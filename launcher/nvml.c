// SPDX-License-Identifier: Apache-2.0
#include "launcher/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY      "libnvidia-ml.so.1"
#define DRIVER_BYTES 80
#define P2P_READ     0 // NVML_P2P_CAPS_INDEX_READ
#define P2P_OK       0

// The library's types, as its ABI has them.
struct memory_info {
    unsigned long long total, free, used;
};
struct utilization {
    unsigned gpu, memory;
};

struct nvml {
    void *library;
    int (*shutdown)(void);
    int (*handle)(unsigned index, void **device);
    int (*name)(void *device, char *text, unsigned bytes);
    int (*memory)(void *device, struct memory_info *out);
    int (*busy)(void *device, struct utilization *out);
    int (*peers)(void *a, void *b, int index, int *status);
    unsigned count;
    char driver[DRIVER_BYTES];
};

// A function pointer from a data pointer, as POSIX allows and ISO C cannot write.
static bool find(void *library, const char *name, void *function) {
    void *at = dlsym(library, name);
    memcpy(function, &at, sizeof at);
    return at != NULL;
}

static int load(struct nvml *n, struct err *e) {
    int (*init)(void) = NULL;
    int (*count)(unsigned *) = NULL;
    int (*driver)(char *, unsigned) = NULL;
    void *l = n->library;
    bool whole = find(l, "nvmlInit_v2", &init) && find(l, "nvmlDeviceGetCount_v2", &count) &&
                 find(l, "nvmlDeviceGetHandleByIndex_v2", &n->handle) &&
                 find(l, "nvmlDeviceGetName", &n->name);
    find(l, "nvmlDeviceGetMemoryInfo", &n->memory);
    find(l, "nvmlDeviceGetUtilizationRates", &n->busy);
    find(l, "nvmlDeviceGetP2PStatus", &n->peers);
    if (!whole)
        return err_set(e, ERR_UNAVAILABLE, LIBRARY " is there, but lacks functions of NVML's version 2");
    int code = init();
    if (code)
        return err_set(e, ERR_UNAVAILABLE, LIBRARY " is there, but no driver answers (NVML code %d)", code);
    find(l, "nvmlShutdown", &n->shutdown);
    if (count(&n->count)) n->count = 0;
    if (!find(l, "nvmlSystemGetDriverVersion", &driver) || driver(n->driver, DRIVER_BYTES)) n->driver[0] = 0;
    return 0;
}

int nvml_open(struct nvml **out, struct err *e) {
    struct nvml *n = calloc(1, sizeof *n);
    if (!n) return err_set(e, ERR_MEMORY, "no memory for NVML");
    n->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    int rc = n->library ? load(n, e) : err_set(e, ERR_UNAVAILABLE, "no " LIBRARY " here: no NVIDIA driver");
    if (rc)
        nvml_close(n);
    else
        *out = n;
    return rc;
}

void nvml_close(struct nvml *n) {
    if (!n) return;
    if (n->shutdown) n->shutdown();
    if (n->library) dlclose(n->library);
    free(n);
}

int nvml_count(const struct nvml *n) {
    return (int)n->count;
}

const char *nvml_driver(const struct nvml *n) {
    return n->driver;
}

int nvml_read(const struct nvml *n, int gpu, struct nvml_gpu *out, struct err *e) {
    void *device = NULL;
    struct memory_info memory;
    struct utilization busy;
    *out = (struct nvml_gpu){.memory_total_bytes = -1, .memory_used_bytes = -1, .busy_percent = -1};
    int code = n->handle((unsigned)gpu, &device);
    if (code) return err_set(e, ERR_DEVICE, "GPU %d does not answer (NVML code %d)", gpu, code);
    if (n->name(device, out->name, sizeof out->name)) snprintf(out->name, sizeof out->name, "?");
    out->name[sizeof out->name - 1] = 0;
    if (n->memory && !n->memory(device, &memory)) {
        out->memory_total_bytes = (int64_t)memory.total;
        out->memory_used_bytes = (int64_t)memory.used;
    }
    if (n->busy && !n->busy(device, &busy)) out->busy_percent = (int)busy.gpu;
    return 0;
}

bool nvml_peers(const struct nvml *n, int a, int b, bool *known) {
    void *x = NULL, *y = NULL;
    int status = -1;
    *known = n->peers && !n->handle((unsigned)a, &x) && !n->handle((unsigned)b, &y) &&
             !n->peers(x, y, P2P_READ, &status);
    return *known && status == P2P_OK;
}
