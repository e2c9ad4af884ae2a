// SPDX-License-Identifier: Apache-2.0
#include "launcher/openmpi.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "launcher/proc.h"

#define VERSION_MS    10000
#define VERSION_BYTES 65536

bool openmpi_parse(const char *text, struct openmpi *out) {
    const char *at = strstr(text, "Open MPI");
    *out = (struct openmpi){0};
    if (!at) return false;
    at += strlen("Open MPI");
    at += strspn(at, ") v");
    if (sscanf(at, "%d.%d.%d", &out->major, &out->minor, &out->patch) >= 2) return true;
    *out = (struct openmpi){0};
    return false;
}

// Killed by chance, it is asked once more.
static int ask_program(const char *program, struct buf *said, struct buf *moaned, int *status,
                       struct err *e) {
    char path[4096];
    char *argv[] = {path, "--version", NULL};
    snprintf(path, sizeof path, "%s", program);
    int rc = proc_capture(argv, VERSION_MS, said, moaned, status, e);
    return rc || *status <= 128 ? rc : proc_capture(argv, VERSION_MS, said, moaned, status, e);
}

static int ask(const char *program, struct openmpi *out, struct err *e) {
    struct buf said, moaned;
    int status = 0;
    *out = (struct openmpi){0};
    buf_init(&said, VERSION_BYTES);
    buf_init(&moaned, VERSION_BYTES);
    int rc = ask_program(program, &said, &moaned, &status, e);
    if (!rc && status) {
        const char *why = moaned.len ? moaned.data : said.len ? said.data : "it said nothing";
        rc = err_set(e, ERR_UNAVAILABLE, "%s --version ended with exit code %d: %.*s", program, status,
                     (int)strcspn(why, "\n"), why);
    } else if (!rc && !(said.data && openmpi_parse(said.data, out))) {
        rc = err_set(e, ERR_UNAVAILABLE, "%s is not Open MPI's; Open MPI 4.1 or 5 is needed", program);
    }
    buf_fini(&moaned);
    buf_fini(&said);
    return rc;
}

int openmpi_of_mpirun(struct openmpi *out, struct err *e) {
    return ask("mpirun", out, e);
}

void openmpi_of_rank(const char *program, struct openmpi *out) {
    struct err unknown = {0};
    if (ask(program, out, &unknown)) *out = (struct openmpi){0};
}

bool openmpi_differ(const struct openmpi *mpirun, const struct openmpi *rank, char *text, size_t text_bytes) {
    if (!mpirun->major || !rank->major) return false;
    if (mpirun->major == rank->major && mpirun->minor == rank->minor) return false;
    snprintf(text, text_bytes, "mpirun is Open MPI %d.%d.%d, orrery-rank is linked with %d.%d.%d",
             mpirun->major, mpirun->minor, mpirun->patch, rank->major, rank->minor, rank->patch);
    return true;
}
