// SPDX-License-Identifier: Apache-2.0
#include "trainer/parts.h"

#include "trainer/memory.h"

int parts_open(struct parts *p, struct err *e) {
    struct rank *r = p->rank;
    int rc = memory_check(r, data_modalities(p->data), e);
    if (!rc) rc = model_create(&p->model, r->config, data_modalities(p->data), r->device, e);
    if (!rc)
        rc = optim_create(&p->optim, r->config, model_params(p->model), r->device, r->world, r->number,
                          model_weights(p->model), e);
    if (!rc) rc = step_open(&p->step, r, p->model, p->optim, &p->fault, e);
    if (!rc) rc = snapshot_open(&p->snapshot, r, p->model, p->optim, &p->fault, e);
    return rc;
}

void parts_close(struct parts *p) {
    snapshot_close(p->snapshot);
    step_close(p->step);
    optim_destroy(p->optim);
    model_destroy(p->model);
    data_close(p->data);
}
