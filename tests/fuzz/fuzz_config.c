// SPDX-License-Identifier: Apache-2.0
// The config loader on any bytes. What it accepts must survive being written and read again.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct config_file *load(const void *data, size_t n, struct err *e) {
    char path[64];
    struct config_file *f = NULL;
    int fd = memfd_create("config", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (config_load(&f, path, NULL, 0, e)) f = NULL;
    close(fd);
    return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n > ((size_t)1 << 20)) return 0;
    struct err e = {0};
    struct buf written;
    buf_init(&written, (size_t)1 << 20);
    struct config_file *f = load(data, n, &e);
    if (!f) {
        if (e.code != ERR_CONFIG || !strstr(e.text, "error: ")) abort();
        return 0;
    }
    err_clear(&e);
    if (config_write(f, &written, &e)) abort();
    struct config_file *again = load(written.data, written.len, &e);
    if (!again || memcmp(config_values(f), config_values(again), sizeof(struct config))) abort();
    config_close(again);
    config_close(f);
    buf_fini(&written);
    return 0;
}
