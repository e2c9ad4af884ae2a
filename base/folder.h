// SPDX-License-Identifier: Apache-2.0
// What lies in a folder, name by name. The folder is the caller's, opened and closed with <dirent.h>.
#ifndef ORRERY_BASE_FOLDER_H
#define ORRERY_BASE_FOLDER_H

#include <dirent.h>

#include "base/err.h"

// The next entry into *out, which lives until the next call; NULL: there are no more. A disk or a server that
// fails on the way is an error, not the end: whoever took it for one would miss what lies behind. `path`
// names the folder in the message.
int folder_next(DIR *d, const char *path, struct dirent **out, struct err *e) ERR_CHECK;

#endif
