// SPDX-License-Identifier: Apache-2.0
// The one symbol that liborrery_cuda.so shows.
#include "kernels/device.h"
#include "kernels/ops.h"

int cuda_open(struct device **out, const struct device_gpu_options *o, struct err *e);
int coll_nccl_open(struct coll **out, struct coll *host, const struct coll_options *o, struct err *e);

extern const struct device_plugin orrery_plugin;
__attribute__((visibility("default"))) const struct device_plugin orrery_plugin = {
    .abi = DEVICE_PLUGIN_ABI,
    .ops_bytes = sizeof(struct ops),
    .version = ORRERY_VERSION,
    .open = cuda_open,
    .coll_open = coll_nccl_open,
};
