// SPDX-License-Identifier: Apache-2.0
#include "trainer/debugger.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

#define LOOK_MS 20

static bool is_wanted(void) {
    const char *text = getenv("ORRERY_DEBUG"), *rank = getenv("ORRERY_RANK");
    size_t n = text ? strcspn(text, "=") : 0;
    if (!n || !rank || strlen(rank) != n || strncmp(text, rank, n) != 0) return false;
    return !strcmp(text + n, "=gdb") || !strcmp(text + n, "=cuda-gdb");
}

static bool is_traced(void) {
    struct buf text;
    struct err unknown = {0};
    buf_init(&text, 65536);
    bool read = !bytes_read_file("/proc/self/status", 65536, &text, &unknown);
    const char *at = read ? strstr(text.data, "TracerPid:") : NULL;
    // A kernel that does not say must not be waited for.
    bool traced = !at || strtol(at + strlen("TracerPid:"), NULL, 10) > 0;
    buf_fini(&text);
    return traced;
}

void debugger_wait(const struct log *log) {
    if (!is_wanted()) return;
    log_info(log, "waiting for a debugger: gdb -p %d", (int)getpid());
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); // it is no child of ours
    while (!is_traced()) clock_sleep_ms(LOOK_MS);
    log_info(log, "a debugger is here");
}
