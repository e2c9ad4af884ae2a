// SPDX-License-Identifier: Apache-2.0
// Job files for schedulers, from a fixed template and the config. Values come from people and files: each is
// held against a pattern of its own, or stands in single quotes; what fits neither is refused. So no value
// can become an option, a second command or a second key.
#ifndef ORRERY_LAUNCHER_SUBMIT_H
#define ORRERY_LAUNCHER_SUBMIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/config.h"
#include "base/err.h"

struct submit_request {
    const struct config *config;
    const char *self;        // path of orrery
    const char *config_path; // absolute
    const char *cwd;         // where the run starts: relative paths of the config are meant from there
    const char *run_dir;     // absolute
    int64_t ranks;           // -n; 0: from the config
    const char *const *overrides;
    size_t n_overrides;
};

// A bash script for sbatch.
int submit_slurm(const struct submit_request *r, struct buf *out, struct err *e) ERR_CHECK;
// An MPIJob for Kubeflow's MPI operator (kubeflow.org/v2beta1), in YAML.
int submit_k8s(const struct submit_request *r, struct buf *out, struct err *e) ERR_CHECK;

// One word for a shell, in single quotes where it needs them. CONFIG for control characters; `what` names it.
int submit_quote(const char *what, const char *text, struct buf *out, struct err *e) ERR_CHECK;
// Letters, digits and what `more` allows; does not begin with '-'; not empty. CONFIG otherwise.
int submit_check(const char *what, const char *text, const char *more, struct err *e) ERR_CHECK;
// A job's name from the run folder's: what does not fit becomes '-'.
void submit_name(const char *run_dir, char *out, size_t out_bytes);

#endif
