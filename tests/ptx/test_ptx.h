// SPDX-License-Identifier: Apache-2.0
#ifndef ORRERY_TESTS_PTX_TEST_H
#define ORRERY_TESTS_PTX_TEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
enum { PTX_TEST_THREADS = 256, PTX_TEST_RESULTS = 42 };
int ptx_test_compute(const int64_t *in, int64_t *out); // out: results of each thread, one after another
// Runs kernel `which`, rightly or wrongly.
int ptx_test_fault(int which, int wrong);
void ptx_test_use(const char *folder); // NULL: the kernels' C++
#ifdef __cplusplus
}
#endif

#endif
