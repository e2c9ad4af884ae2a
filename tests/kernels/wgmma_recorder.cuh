// SPDX-License-Identifier: Apache-2.0
// In front of a file of kernels: their wgmma writes down instead of multiplying. Compiled as C++ with the
// emulator's headers.
#ifndef ORRERY_TESTS_KERNELS_WGMMA_RECORDER_CUH
#define ORRERY_TESTS_KERNELS_WGMMA_RECORDER_CUH

#include "kernels/cuda/attention_sm90.cuh"
#include "tests/kernels/wgmma_forms.h"

static struct wgmma_form recording;
static const uint32_t recorded_weights[32] = {}; // where A's registers are

static void record(int n, bool registers, bool a_turned, bool b_turned, struct wgmma_form::wgmma_step step) {
    if (recording.steps == WGMMA_MOST_STEPS) simt_fail("wgmma: more than %d steps", WGMMA_MOST_STEPS);
    recording.n = n;
    recording.registers = registers;
    recording.a_turned = a_turned;
    recording.b_turned = b_turned;
    recording.step[recording.steps++] = step;
}

template <int TA, int TB, int HALF>
static void wgmma_recorded(float (&)[HALF], uint64_t a, uint64_t b, bool accumulate) {
    record(2 * HALF, false, TA, TB, {a, b, 0, accumulate});
}
template <int TB, int HALF>
static void wgmma_recorded(float (&)[HALF], const uint32_t *a, uint64_t b, bool accumulate) {
    record(2 * HALF, true, false, TB, {0, b, (int)(a - recorded_weights), accumulate});
}

#define wgmma wgmma_recorded

#endif
