// SPDX-License-Identifier: Apache-2.0
// Which Open MPI stands on either side: of mpirun, and the library in orrery-rank. The parameters of 5 have
// other names than those of 4.1; one series' mpirun may or may not start ranks of the other.
#ifndef ORRERY_LAUNCHER_OPENMPI_H
#define ORRERY_LAUNCHER_OPENMPI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct openmpi {
    int major, minor, patch; // all 0: unknown
};

// MISSING when there is no mpirun, UNAVAILABLE when it is another MPI's or does not run.
int openmpi_of_mpirun(struct openmpi *out, struct err *e) ERR_CHECK;
// What PROGRAM --version says it is linked with; unknown where it does not tell.
void openmpi_of_rank(const char *program, struct openmpi *out);
// From "mpirun (Open MPI) 4.1.4" or "Open MPI v5.0.11"; false, and unknown, when there is none.
bool openmpi_parse(const char *text, struct openmpi *out);

static inline bool openmpi_is_5(const struct openmpi *v) {
    return v->major >= 5;
}
// True when both are known and of different series; `text` says so. OPENMPI_CURE is what helps.
bool openmpi_differ(const struct openmpi *mpirun, const struct openmpi *rank, char *text, size_t text_bytes);
#define OPENMPI_CURE "build orrery with this mpirun's mpicc, or put the other mpirun first in PATH"

#endif
