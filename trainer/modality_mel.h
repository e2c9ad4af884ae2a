// SPDX-License-Identifier: Apache-2.0
// Power in mel bands of Hann windows of 25 ms. Several windows go through one vectorised FFT.
#ifndef ORRERY_TRAINER_MODALITY_MEL_H
#define ORRERY_TRAINER_MODALITY_MEL_H

#include <stdint.h>

#include "base/err.h"

struct mel;
#define MEL_BATCH 8 // windows per call

int mel_create(struct mel **out, int rate_hz, int bands, struct err *e) ERR_CHECK;
void mel_destroy(struct mel *m);
int mel_window(const struct mel *m); // samples
// power [n][bands]: of the n <= MEL_BATCH windows that end before sample end[i]; silence outside the sound. A
// sine of amplitude a gives its bands a^2 / 2 in sum.
void mel_power(struct mel *m, const float *sound, int64_t samples, const int64_t *end, int n, float *power);

#endif
