// SPDX-License-Identifier: Apache-2.0
// The op table of one instruction set.
#include "kernels/cpu/cpu.h"

extern const struct ops CPU_FN(ops);

const struct ops CPU_FN(ops) = {
#define OP(name, doc) .name = CPU_FN(name),
#include "kernels/ops.def"
#undef OP
};
