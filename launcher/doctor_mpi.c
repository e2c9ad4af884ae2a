// SPDX-License-Identifier: Apache-2.0
// What starts the ranks: Open MPI, PMIx, Slurm, orrery-rank.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/doctor_impl.h"
#include "launcher/openmpi.h"
#include "launcher/place.h"
#include "launcher/proc.h"

#define PMIX_LIBRARY "libpmix.so.2"

void doctor_mpirun(const struct config *c, struct doctor_finding *f) {
    struct openmpi v;
    struct err e = {0};
    if (openmpi_of_mpirun(&v, &e)) {
        doctor_say(f, "%s", e.text);
        doctor_cure(f, DOCTOR_BAD, ERR_MISSING,
                    "apt-get install openmpi-bin (or load your site's module); one rank works without it: "
                    "orrery run CONFIG -n 1");
        return;
    }
    doctor_say(f, "Open MPI %d.%d.%d", v.major, v.minor, v.patch);
    if (v.major < 4 || (v.major == 4 && v.minor < 1))
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE,
                    "Open MPI 4.1 or 5 is needed: apt-get install openmpi-bin");
}

// The library that mpirun and the ranks meet through. Open MPI may carry its own: then there is none beside
// it.
void doctor_pmix(const struct config *c, struct doctor_finding *f) {
    const char *(*version)(void) = NULL;
    void *library = dlopen(PMIX_LIBRARY, RTLD_LAZY | RTLD_LOCAL);
    void *at = library ? dlsym(library, "PMIx_Get_version") : NULL;
    memcpy(&version, &at, sizeof at);
    if (!version)
        doctor_say(f, "no " PMIX_LIBRARY " of the system's; Open MPI carries its own");
    else
        doctor_say(f, "%.60s", version());
    if (f->text[0]) f->text[strcspn(f->text, ",(\n")] = 0;
    if (library) dlclose(library);
}

void doctor_environment(const struct config *c, struct doctor_finding *f) {
    struct err e = {0};
    struct place place;
    struct place_view view;
    char host[64];
    place_view_here(&view, host, sizeof host);
    if (c) view.hosts = c->launch_hosts;
    if (c) view.config_ranks = c->launch_ranks;
    int rc = place_find(&view, &place, &e);
    if (rc)
        doctor_say(f, "%.500s", e.text);
    else if (place.kind == PLACE_LOCAL)
        doctor_say(f, "no other job's variables in the environment");
    else
        doctor_say(f, "%s, %lld ranks", place.name, (long long)place.ranks);
    if (rc) doctor_cure(f, DOCTOR_BAD, e.code, "or start from a fresh shell");
    place_fini(&place);
}

// The library inside the rank may be of another series than mpirun; whether they meet, two ranks show.
static void compare_sides(struct doctor_finding *f, const char *library) {
    struct openmpi mpirun, linked;
    struct err none = {0};
    char text[160];
    if (openmpi_of_mpirun(&mpirun, &none)) return;
    if (openmpi_parse(library, &linked) && openmpi_differ(&mpirun, &linked, text, sizeof text))
        doctor_cure(f, DOCTOR_WARN, ERR_OK, "%s: " OPENMPI_CURE, text);
}

void doctor_rank(const struct config *c, struct doctor_finding *f) {
    char program[4096], library[96] = "";
    char *argv[] = {program, "--version", NULL};
    struct err e = {0};
    struct buf out;
    int status = 0;
    buf_init(&out, 65536);
    int rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, &e);
    if (!rc) rc = proc_capture(argv, DOCTOR_ASK_MS, &out, NULL, &status, &e);
    bool same = !rc && !status && out.data && strstr(out.data, ORRERY_VERSION);
    char *second = !rc && out.data ? strchr(out.data, '\n') : NULL;
    if (second) {
        *second++ = 0;
        snprintf(library, sizeof library, "%.*s", (int)strcspn(second, "\n"), second);
    }
    doctor_say(f, "%.300s%s%.60s%s%s", rc ? e.text : program, rc ? "" : ": ", rc || !out.data ? "" : out.data,
               *library ? ", linked with " : "", library);
    if (!same)
        doctor_cure(f, DOCTOR_BAD, ERR_MISSING,
                    "orrery-rank of version " ORRERY_VERSION " must stand beside orrery: build both");
    else
        compare_sides(f, library);
    buf_fini(&out);
}

// ---- Slurm

static int ask(struct buf *out, const char *a, const char *b) {
    char *argv[] = {(char *)(uintptr_t)a, (char *)(uintptr_t)b, NULL};
    struct err e = {0};
    int status = 0;
    buf_clear(out);
    int rc = proc_capture(argv, DOCTOR_ASK_MS, out, out, &status, &e);
    return rc ? rc : status;
}

void doctor_slurm(const struct config *c, struct doctor_finding *f) {
    char path[4096], version[64] = "";
    struct buf out;
    const char *job = getenv("SLURM_JOB_ID");
    if (!proc_find("srun", path, sizeof path)) {
        doctor_say(f, job ? "in job %.20s, but there is no srun in PATH" : "no Slurm here (no srun in PATH)",
                   job);
        if (job)
            doctor_cure(f, DOCTOR_BAD, ERR_MISSING,
                        "put Slurm's commands into PATH: /usr/bin, or module load slurm");
        return;
    }
    buf_init(&out, 65536);
    bool tells = ask(&out, "srun", "--version") == 0 && out.data;
    if (tells) snprintf(version, sizeof version, "%.*s", (int)strcspn(out.data, "\n"), out.data);
    bool pmix = ask(&out, "srun", "--mpi=list") == 0 && out.data && strstr(out.data, "pmix");
    bool answers = ask(&out, "scontrol", "ping") == 0;
    doctor_say(f, "%s, %s; PMIx plug-in: %s%s%.20s", tells ? version : "srun does not start",
               answers ? "the controller answers" : "the controller does not answer", pmix ? "yes" : "no",
               job ? "; in job " : "", job ? job : "");
    if (!tells || !answers)
        doctor_cure(
            f, job ? DOCTOR_BAD : DOCTOR_WARN, ERR_UNAVAILABLE,
            "is this a node of the cluster, and does slurmctld run? scontrol ping; /etc/slurm/slurm.conf");
    buf_fini(&out);
}
