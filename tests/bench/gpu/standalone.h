// SPDX-License-Identifier: Apache-2.0
// A device for the attention kernels without the rest of the back end: what device.cu gives them otherwise.
#ifndef ORRERY_TESTS_BENCH_GPU_STANDALONE_H
#define ORRERY_TESTS_BENCH_GPU_STANDALONE_H

#include "kernels/cuda/cuda.h"

struct bench_device {
    struct cuda_device cuda; // first
    void *scratch;
    size_t bytes;
};

#endif
