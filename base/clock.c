// SPDX-License-Identifier: Apache-2.0
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static int64_t read_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_monotonic_ns(void) {
    return read_ns(CLOCK_MONOTONIC);
}

int64_t clock_utc_ns(void) {
    return read_ns(CLOCK_REALTIME);
}

double clock_seconds(void) {
    return 1e-9 * (double)clock_monotonic_ns();
}

void clock_sleep_ms(int64_t ms) {
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
}

const char *clock_iso(int64_t utc_ns, char *out) {
    time_t seconds = (time_t)(utc_ns / 1000000000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t used = strftime(out, CLOCK_ISO_BYTES, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + used, CLOCK_ISO_BYTES - used, ".%03dZ", (int)(utc_ns / 1000000 % 1000));
    return out;
}
