// SPDX-License-Identifier: Apache-2.0
#include "launcher/submit.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int submit_check(const char *what, const char *text, const char *more, struct err *e) {
    bool fits = *text && *text != '-';
    for (const char *at = text; *at && fits; at++) fits = is_plain(*at) || strchr(more, *at);
    if (fits) return 0;
    return err_set(e, ERR_CONFIG,
                   "%s: '%.80s' is not fit for a job file; letters, digits and %s, no '-' first", what, text,
                   more);
}

int submit_quote(const char *what, const char *text, struct buf *out, struct err *e) {
    bool bare = *text != 0;
    for (const char *at = text; *at; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return err_set(e, ERR_CONFIG, "%s: '%.80s' holds a control character", what, text);
        bare = bare && (is_plain(*at) || strchr("/._-=:,+@%", *at));
    }
    if (bare) return buf_appends(out, text, e);
    int rc = buf_appends(out, "'", e);
    for (const char *at = text; *at && !rc; at++)
        rc = *at == '\'' ? buf_appends(out, "'\\''", e) : buf_append(out, at, 1, e);
    return rc ? rc : buf_appends(out, "'", e);
}

// Kubernetes takes lower-case letters, digits and '-', 63 at most, ending with a letter or digit.
void submit_name(const char *run_dir, char *out, size_t out_bytes) {
    const char *slash = strrchr(run_dir, '/');
    snprintf(out, out_bytes < 50 ? out_bytes : 50, "orrery-%s", slash ? slash + 1 : run_dir);
    for (char *at = out; *at; at++) {
        if (*at >= 'A' && *at <= 'Z') *at = (char)(*at - 'A' + 'a');
        if (!is_plain(*at)) *at = '-';
    }
    for (size_t n = strlen(out); n && out[n - 1] == '-'; n--) out[n - 1] = 0;
}
