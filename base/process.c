// SPDX-License-Identifier: Apache-2.0
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

#define STATUS_BYTES 65536

void process_begin(void) {
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDONLY}; // the wrong way round: of no use to anybody
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) < 0) break;
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); // a parent that ignores it hands that down: no child's end would be kept for us
}

int process_path(char *out, size_t out_bytes, struct err *e) {
    ssize_t n = readlink("/proc/self/exe", out, out_bytes);
    if (n < 0) return err_errno(e, errno, "cannot read /proc/self/exe");
    if ((size_t)n == out_bytes) return err_set(e, ERR_MISSING, "the path of this program is too long");
    out[n] = 0;
    return 0;
}

// A name that fills `out` may come without its end, or cut short.
const char *process_host(char *out, size_t out_bytes, const char *otherwise) {
    if (gethostname(out, out_bytes) || !memchr(out, 0, out_bytes)) snprintf(out, out_bytes, "%s", otherwise);
    return out;
}

bool process_is_traced(pid_t pid, bool otherwise) {
    static const char key[] = "\nTracerPid:";
    char path[64];
    struct buf text;
    struct err gone = {0};
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    buf_init(&text, STATUS_BYTES);
    bool known = !bytes_read_file(path, STATUS_BYTES, &text, &gone) && text.len;
    const char *at = known ? strstr(text.data, key) : NULL;
    bool traced = at ? strtol(at + strlen(key), NULL, 10) > 0 : otherwise;
    buf_fini(&text);
    return traced;
}
