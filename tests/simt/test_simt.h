// SPDX-License-Identifier: Apache-2.0
#ifndef ORRERY_TESTS_SIMT_TEST_H
#define ORRERY_TESTS_SIMT_TEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
int simt_test_sums(const float *x, float *out, int n, int blocks);
int simt_test_reverse(const uint16_t *x, float *out); // 384 values in, 256 out
int simt_test_hang(void);
int simt_test_beyond(int at);
#ifdef __cplusplus
}
#endif

#endif
