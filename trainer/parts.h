// SPDX-License-Identifier: Apache-2.0
// What a training is made of, for the tasks that take its steps: data, model, optimiser, step, snapshots.
#ifndef ORRERY_TRAINER_PARTS_H
#define ORRERY_TRAINER_PARTS_H

#include "trainer/data.h"
#include "trainer/fault.h"
#include "trainer/snapshot.h"
#include "trainer/step.h"

struct parts {
    struct rank *rank;
    struct fault fault;
    struct data *data;
    struct model *model;
    struct optim *optim;
    struct step *step;
    struct snapshot *snapshot;
};

// Checks the memory that is there, then opens what stands behind data, in their order. `rank`, `fault` and
// `data` are there; `p` stays where it is. The caller closes, also after a failure.
int parts_open(struct parts *p, struct err *e) ERR_CHECK;
void parts_close(struct parts *p); // data too

#endif
