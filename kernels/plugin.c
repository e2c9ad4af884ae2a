// SPDX-License-Identifier: Apache-2.0
// Finds plug-ins, and loads the CUDA one. It stays loaded: its library has threads and state of its own.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/plugin.h"

int plugin_find(const char *name, const char *env_name, char *path, size_t bytes, struct err *e) {
    const char *given = getenv(env_name);
    if (given && given[0]) {
        if (snprintf(path, bytes, "%s", given) < (int)bytes) return 0;
        return err_set(e, ERR_USAGE, "%s is too long for a path", env_name);
    }
    size_t room = bytes - strlen(name) - 1;
    ssize_t n = readlink("/proc/self/exe", path, room);
    if (n <= 0 || (size_t)n == room)
        return err_set(e, ERR_ABSENT, "cannot tell where this program lies, to find %s", name);
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    size_t at = slash ? (size_t)(slash - path) + 1 : 0;
    snprintf(path + at, bytes - at, "%s", name);
    return 0;
}

static int check_plugin(const struct device_plugin *p, const char *path, struct err *e) {
    if (p->abi == DEVICE_PLUGIN_ABI && p->ops_bytes == sizeof(struct ops) &&
        !strcmp(p->version, ORRERY_VERSION))
        return 0;
    return err_set(e, ERR_ABSENT, "%s is of another build than this program; build both from one source",
                   path);
}

int device_plugin(const struct device_plugin **out, struct err *e) {
    char path[4096];
    *out = NULL;
    int rc = plugin_find("liborrery_cuda.so", "ORRERY_CUDA_PLUGIN", path, sizeof path, e);
    if (rc) return rc;
    if (access(path, R_OK))
        return err_set(e, ERR_ABSENT,
                       "no GPU back end here: %s is not there; build with -DORRERY_CUDA=ON where nvcc is, or "
                       "use device=cpu",
                       path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        return err_set(e, ERR_ABSENT,
                       "the GPU back end does not load (%s); put CUDA's libraries on LD_LIBRARY_PATH, or use "
                       "device=cpu",
                       why ? why : path);
    }
    const struct device_plugin *p = dlsym(library, "orrery_plugin");
    if (!p) return err_set(e, ERR_ABSENT, "%s is no plug-in of Orrery's", path);
    rc = check_plugin(p, path, e);
    if (!rc) *out = p;
    return rc;
}

int device_open_gpu(struct device **out, const struct device_gpu_options *o, struct err *e) {
    const struct device_plugin *p;
    int rc = device_plugin(&p, e);
    return rc ? rc : p->open(out, o, e);
}
