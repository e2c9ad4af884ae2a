// SPDX-License-Identifier: Apache-2.0
#include "launcher/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "launcher/doctor_impl.h"

void doctor_say(struct doctor_finding *f, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, ap);
    va_end(ap);
}

void doctor_cure(struct doctor_finding *f, enum doctor_grade grade, enum err_code code, const char *fmt,
                 ...) {
    va_list ap;
    f->grade = grade;
    f->code = code;
    va_start(ap, fmt);
    vsnprintf(f->cure, sizeof f->cure, fmt, ap);
    va_end(ap);
}

static const struct {
    const char *name;
    bool needs_config;
    doctor_check_fn *check;
} rows[] = {
    {"processors", false, doctor_cores},
    {"memory", false, doctor_memory},
    {"shared memory", false, doctor_shm},
    {"temporary files", false, doctor_tmp},
    {"limits", false, doctor_files},
    {"locked memory", false, doctor_memlock},
    {"clock", false, doctor_clock},
    {"host name", false, doctor_host_name},
    {"network", false, doctor_interfaces},
    {"loopback", false, doctor_loopback},
    {"mpirun", false, doctor_mpirun},
    {"PMIx", false, doctor_pmix},
    {"environment", false, doctor_environment},
    {"orrery-rank", false, doctor_rank},
    {"Slurm", false, doctor_slurm},
    {"GPUs", false, doctor_gpus},
    {"GPU peers", false, doctor_peers},
    {"NCCL", false, doctor_nccl},
    {"CUDA plug-in", false, doctor_plugin},
    {"two ranks", false, doctor_all_reduce},
    {"run folder", true, doctor_run_dir},
    {"training data", true, doctor_train_data},
    {"held-out data", true, doctor_eval_data},
    {"checkpoints", true, doctor_checkpoints},
};

const char *doctor_known(const char *name) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name)) return rows[i].name;
    return "other";
}

void doctor_run(const struct config *c, bool part, doctor_each_fn *each, void *arg) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct doctor_finding f = {.name = rows[i].name};
        if (rows[i].needs_config && !c) continue;
        if (part && rows[i].check == doctor_all_reduce) continue;
        rows[i].check(c, &f);
        each(arg, &f);
    }
}
