// SPDX-License-Identifier: Apache-2.0
// The driver's tensor maps.
#ifndef ORRERY_TESTS_SIMT_CUDA_H
#define ORRERY_TESTS_SIMT_CUDA_H

#include <stdint.h>

typedef uint32_t cuuint32_t;
typedef uint64_t cuuint64_t;
typedef enum { CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE } CUresult;
typedef enum { CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 = 9 } CUtensorMapDataType;
typedef enum { CU_TENSOR_MAP_INTERLEAVE_NONE } CUtensorMapInterleave;
typedef enum {
    CU_TENSOR_MAP_SWIZZLE_NONE,
    CU_TENSOR_MAP_SWIZZLE_64B = 2,
    CU_TENSOR_MAP_SWIZZLE_128B = 3
} CUtensorMapSwizzle;
typedef enum {
    CU_TENSOR_MAP_L2_PROMOTION_NONE,
    CU_TENSOR_MAP_L2_PROMOTION_L2_256B = 3
} CUtensorMapL2promotion;
typedef enum { CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE } CUtensorMapFloatOOBfill;
typedef struct alignas(128) CUtensorMap { // the driver's size and alignment
    uint8_t *base;
    uint64_t dim[3], stride[3]; // elements; bytes
    uint32_t box[3];
    int swizzle;
} CUtensorMap;

static inline CUresult cuTensorMapEncodeTiled(CUtensorMap *m, CUtensorMapDataType, cuuint32_t rank,
                                              void *base, const cuuint64_t *dim, const cuuint64_t *stride,
                                              const cuuint32_t *box, const cuuint32_t *,
                                              CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
    if (rank != 3 || (uintptr_t)base % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
    *m = CUtensorMap{(uint8_t *)base,
                     {dim[0], dim[1], dim[2]},
                     {2, stride[0], stride[1]},
                     {box[0], box[1], box[2]},
                     swizzle};
    for (int i = 0; i < 3; i++) {
        if (dim[i] == 0 || dim[i] > (uint64_t)1 << 32 || box[i] == 0 || box[i] > 256 ||
            (i > 0 && m->stride[i] % 16 != 0))
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (box[0] * 2 % 16 != 0 || (swizzle != CU_TENSOR_MAP_SWIZZLE_NONE && box[0] * 2 > 16u << swizzle))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

#endif
