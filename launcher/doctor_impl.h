// SPDX-License-Identifier: Apache-2.0
// The inside of doctor, shared by doctor*.c only: what a check is handed, and how it speaks.
#ifndef ORRERY_LAUNCHER_DOCTOR_IMPL_H
#define ORRERY_LAUNCHER_DOCTOR_IMPL_H

#include "launcher/doctor.h"

#define DOCTOR_TOKEN_BYTES 32 // what a probe answers on its port: hex
#define DOCTOR_LINE_BYTES  (1 << 18)

#define DOCTOR_GIB    1073741824.0
#define DOCTOR_ASK_MS 5000 // for any program that is asked

// What was found, in one line.
void doctor_say(struct doctor_finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// It is not good, and what helps. `code`: what a run would fail with, for DOCTOR_BAD.
void doctor_cure(struct doctor_finding *f, enum doctor_grade grade, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

// The check's name, which lasts; "other" for one that this build does not know.
const char *doctor_known(const char *name);

typedef void doctor_check_fn(const struct config *c, struct doctor_finding *f);

// doctor_machine.c
doctor_check_fn doctor_cores, doctor_memory, doctor_shm, doctor_tmp, doctor_files, doctor_memlock,
    doctor_clock;
// doctor_net.c
doctor_check_fn doctor_host_name, doctor_interfaces, doctor_loopback;
// doctor_mpi.c
doctor_check_fn doctor_mpirun, doctor_pmix, doctor_environment, doctor_rank, doctor_slurm;
// doctor_sum.c
doctor_check_fn doctor_all_reduce;
// Over several hosts: a rank on each.
void doctor_sum_over(const struct doctor_hosts_options *o, struct doctor_finding *f);
// The verdict on `wanted` ranks: their exit status, their answer in JSON, and what was said beside it.
void doctor_judge_sum(struct doctor_finding *f, int wanted, int status, const char *answer, const char *said);
// doctor_gpu.c
doctor_check_fn doctor_gpus, doctor_peers, doctor_nccl, doctor_plugin;
// doctor_store.c
doctor_check_fn doctor_run_dir, doctor_train_data, doctor_eval_data, doctor_checkpoints;

#endif
