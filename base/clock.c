// SPDX-License-Identifier: Apache-2.0
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

// Field 22 of proc(5)'s stat: ticks from boot to the start. The name before it may hold blanks.
double clock_process_seconds(void) {
    char text[1024];
    long long ticks;
    FILE *f = fopen("/proc/self/stat", "re");
    if (!f) return -1;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *at = strrchr(text, ')');
    static const char fields[] =
        ") %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lld";
    if (!at || sscanf(at, fields, &ticks) != 1) return -1;
    return 1e-9 * (double)read_ns(CLOCK_BOOTTIME) - (double)ticks / (double)sysconf(_SC_CLK_TCK);
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
