// SPDX-License-Identifier: Apache-2.0
// The probes of probes.cu. Each writes lines "right ..." or "WRONG ..." and returns how many were wrong.
#ifndef ORRERY_TESTS_BENCH_GPU_PROBES_H
#define ORRERY_TESTS_BENCH_GPU_PROBES_H

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PROBE_FORMS = 7 };
int probe_wgmma(FILE *out, int form); // -1: there is no such form
int probe_boxes(FILE *out);
int probe_pairs(FILE *out);
// early_rounds: with flags raised too early, a wrong thing to do; what comes of it is a note.
int probe_order(FILE *out, int blocks, int rounds, int early_rounds);

#ifdef __cplusplus
}
#endif

#endif
