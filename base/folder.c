// SPDX-License-Identifier: Apache-2.0
#include "base/folder.h"

#include <errno.h>

// readdir tells an error from the end by errno alone. That the folder is gone (ENOENT) counts as its end in
// every C library.
int folder_next(DIR *d, const char *path, struct dirent **out, struct err *e) {
    errno = 0;
    *out = readdir(d);
    return *out || !errno ? 0 : err_errno(e, errno, "reading %s", path);
}
