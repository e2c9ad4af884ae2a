// SPDX-License-Identifier: Apache-2.0
// Numbers for people.
#ifndef ORRERY_LAUNCHER_UNITS_H
#define ORRERY_LAUNCHER_UNITS_H

#include <stdint.h>

#define UNITS_BYTES 24
// "512 B", "3.4 MB" (powers of 1000); returns out.
const char *units_bytes(int64_t bytes, char out[UNITS_BYTES]);

#endif
