// SPDX-License-Identifier: Apache-2.0
// Time: monotonic for durations and deadlines, UTC for records. Thread-safe.
#ifndef ORRERY_BASE_CLOCK_H
#define ORRERY_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_monotonic_ns(void);   // CLOCK_MONOTONIC: comparable between processes of one host
int64_t clock_utc_ns(void);         // since 1970
double clock_seconds(void);         // monotonic, for measuring durations
double clock_process_seconds(void); // since this process was started, to 10 ms; -1: unknown
void clock_sleep_ms(int64_t ms);

#define CLOCK_ISO_BYTES 32
// "2026-11-22T18:03:04.123Z" into `out` of CLOCK_ISO_BYTES; returns out.
const char *clock_iso(int64_t utc_ns, char *out);

#endif
