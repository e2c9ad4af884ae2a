// SPDX-License-Identifier: Apache-2.0
#include "launcher/units.h"

#include <inttypes.h>
#include <stdio.h>

const char *units_bytes(int64_t bytes, char out[UNITS_BYTES]) {
    static const char *const names[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)bytes;
    int unit = -1;
    while (v >= 999.95 && unit < 5) {
        v /= 1000;
        unit++;
    }
    if (unit < 0)
        snprintf(out, UNITS_BYTES, "%" PRId64 " B", bytes);
    else
        snprintf(out, UNITS_BYTES, "%.1f %s", v, names[unit]);
    return out;
}
