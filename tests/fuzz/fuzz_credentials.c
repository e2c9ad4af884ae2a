// SPDX-License-Identifier: Apache-2.0
// The shared credentials file on any bytes. What is accepted can stand in an HTTP header; what is refused is
// said without a word of the file. The reader is private to its file, so the file itself is included.
#include <sys/mman.h>
#include <unistd.h>

#include "storage/store_s3_auth.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_accepted(const struct s3_auth *a) {
    const char *all[] = {a->access_key, a->secret_key, a->session_token};
    for (int i = 0; i < 3; i++)
        if (!printable(all[i])) abort();
    if (!strstr(a->source, "profile 'default'")) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char path[64];
    struct err e = {0};
    struct s3_auth a = {0};
    int fd = memfd_create("credentials", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!from_file(&a, path, &e))
        check_accepted(&a);
    else if (!e.text[0] || (e.code != ERR_DENIED && e.code != ERR_CONFIG))
        abort();
    store_s3_auth_fini(&a);
    close(fd);
    return 0;
}
