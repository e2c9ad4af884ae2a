// SPDX-License-Identifier: Apache-2.0
#include "trainer/debugger.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"

#define LOOK_MS 20

static bool is_wanted(void) {
    const char *text = getenv("ORRERY_DEBUG"), *rank = getenv("ORRERY_RANK");
    size_t n = text ? strcspn(text, "=") : 0;
    if (!n || !rank || strlen(rank) != n || strncmp(text, rank, n) != 0) return false;
    return !strcmp(text + n, "=gdb") || !strcmp(text + n, "=cuda-gdb");
}

void debugger_wait(const struct log *log) {
    if (!is_wanted()) return;
    log_info(log, "waiting for a debugger: gdb -p %d", (int)getpid());
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); // it is no child of ours
    // A kernel that does not say must not be waited for.
    while (!process_is_traced(getpid(), true)) clock_sleep_ms(LOOK_MS);
    log_info(log, "a debugger is here");
}
