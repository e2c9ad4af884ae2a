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
// A launch with so many bytes of shared memory, of which it asked for so many before (0: did not).
int simt_test_room(int bytes, int asked);
int simt_test_unfenced(int thread); // -1: all fence what they stored
// x += 1 on one stream, then doubled on a side stream, as a graph; launched twice. 0, or where it failed.
int simt_test_capture(float *x, int n);
// A capture that meets what may not be captured; the error of its end. 0: nothing; 1: a wait of the host, 2:
// a host copy, 3: a stream that nobody joins, 4: a question about an event.
int simt_test_refused(int what);
#ifdef __cplusplus
}
#endif

#endif
