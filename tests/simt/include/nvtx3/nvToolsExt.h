// SPDX-License-Identifier: Apache-2.0
// A profiler's view of ranges. ORRERY_SIMT_RANGES=1: each one is a line on stderr, indented by its depth.
#ifndef ORRERY_TESTS_SIMT_NVTX_H
#define ORRERY_TESTS_SIMT_NVTX_H

#include <stdint.h>
#include <stdlib.h>

#include "tests/simt/simt.h"

#define NVTX_VERSION                  3
#define NVTX_EVENT_ATTRIB_STRUCT_SIZE ((uint16_t)sizeof(nvtxEventAttributes_t))
enum { NVTX_PAYLOAD_UNKNOWN, NVTX_PAYLOAD_TYPE_INT64 = 2, NVTX_MESSAGE_TYPE_ASCII = 1 };

typedef struct nvtxEventAttributes {
    uint16_t version, size;
    int32_t payloadType;
    union {
        int64_t llValue;
    } payload;
    int32_t messageType;
    union {
        const char *ascii;
    } message;
} nvtxEventAttributes_t;

static int simt_range_depth;

static inline int nvtxRangePushEx(const nvtxEventAttributes_t *a) {
    if (a->version != NVTX_VERSION || a->size != sizeof *a || a->messageType != NVTX_MESSAGE_TYPE_ASCII)
        simt_fail("a range without a name");
    if (getenv("ORRERY_SIMT_RANGES") && a->payloadType == NVTX_PAYLOAD_TYPE_INT64)
        fprintf(stderr, "range %*s%s %lld\n", 2 * simt_range_depth, "", a->message.ascii,
                (long long)a->payload.llValue);
    else if (getenv("ORRERY_SIMT_RANGES"))
        fprintf(stderr, "range %*s%s\n", 2 * simt_range_depth, "", a->message.ascii);
    return simt_range_depth++;
}

static inline int nvtxRangePop(void) {
    if (simt_range_depth == 0) simt_fail("a range ends that did not begin");
    return --simt_range_depth;
}

#endif
