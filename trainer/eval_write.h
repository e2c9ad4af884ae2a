// SPDX-License-Identifier: Apache-2.0
// An evaluation's result as eval.json (for programs: docs/evaluation.md has the schema) and as a table (for
// people).
#ifndef ORRERY_TRAINER_EVAL_WRITE_H
#define ORRERY_TRAINER_EVAL_WRITE_H

#include "base/bytes.h"
#include "base/err.h"
#include "trainer/evaluate.h"

#define EVAL_JSON_VERSION 1

int eval_write_json(const struct eval_result *r, struct buf *out, struct err *e) ERR_CHECK;
// Plain text, lines of at most 110 columns but for what is wrong with a broken sample: rows
// against columns, probes, what was left out, bars.
int eval_write_table(const struct eval_result *r, struct buf *out, struct err *e) ERR_CHECK;

#endif
