// SPDX-License-Identifier: Apache-2.0
// A thread that runs PTX on the emulator (tests/simt): what instructions see of it.
#ifndef ORRERY_TESTS_PTX_MACHINE_H
#define ORRERY_TESTS_PTX_MACHINE_H

#include <string.h>

#include "tests/ptx/module.h"
#include "tests/ptx/watch.h"
#include "tests/simt/simt.h"

struct ptx_run {
    ptx_kernel *kernel;
    const unsigned char *params;
    uint64_t *r;          // registers
    unsigned char *local; // memory
    int at;               // the next instruction
    bool carry, over;
    std::vector<std::pair<int, const ptx_code *>> calls; // where to go on
    const ptx_function *in;                              // NULL: in the kernel itself
};

template <class T> static inline T ptx_get(const ptx_run *t, const ptx_code *c, int operand) {
    T v;
    memcpy(&v, &t->r[c->at[(size_t)operand]], sizeof v);
    return v;
}
template <class T> static inline void ptx_put(ptx_run *t, const ptx_code *c, int operand, T v) {
    uint64_t word = 0;
    memcpy(&word, &v, sizeof v);
    t->r[c->at[(size_t)operand]] = word;
}

// An operand that is an address, with its offset.
static inline uint64_t ptx_address(const ptx_run *t, const ptx_code *c, int operand) {
    return t->r[c->at[(size_t)operand]] + (uint64_t)(int64_t)c->offset[(size_t)operand];
}
static inline uint32_t ptx_shared_address(const ptx_run *t, const ptx_code *c, int operand) {
    return (uint32_t)ptx_address(t, c, operand);
}

// Ends the program; the message names the instruction and its line.
[[noreturn]] void ptx_fail(const ptx_code *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Kernels of the emulator run as PTX from now on, from the folder's files, or as C++ again (NULL). From the
// start where ORRERY_PTX names a folder. With ORRERY_PTX_RAN, a folder, the program leaves a file there when
// it ends, columns parted by tabs: for each kernel `name, launches, bytes read, bytes written`, and for each
// of its instructions `kernel, number, name, source:line, how often a thread ran it`.
void ptx_use(const char *folder);

#endif
