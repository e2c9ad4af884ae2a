// SPDX-License-Identifier: Apache-2.0
// What nvcc made of the kernels, read from its PTX (PTX ISA 9.0): kernels as lists of instructions whose
// operands are places among a thread's registers. Names, scopes and labels are gone.
#ifndef ORRERY_TESTS_PTX_MODULE_H
#define ORRERY_TESTS_PTX_MODULE_H

#include <stdint.h>

#include <map>
#include <string>
#include <vector>

struct ptx_run;
struct ptx_code;
typedef void ptx_do(struct ptx_run *t, const struct ptx_code *c);

enum ptx_space { PTX_GENERIC, PTX_GLOBAL, PTX_SHARED, PTX_LOCAL, PTX_PARAM };

struct ptx_code {
    ptx_do *run;
    const char *name;        // whole, as in the text
    int guard;               // register of a predicate, -1: always
    bool unless;             // run when it is false
    std::vector<int> at;     // operands in order, vectors and addresses taken apart: places of registers
    std::vector<int> offset; // of an address, else 0
    int first, second;       // how long the first and the second operand are
    int target;              // of a branch or a call
    const char *file;
    int line; // of the source
    // loads and stores
    enum ptx_space space;
    int bytes, count; // of an element, elements
    bool is_signed, is_volatile;
    uint64_t runs; // how often a thread ran it
};

// A register that has a value before the first instruction: a constant, or an address.
struct ptx_preset {
    int at;
    enum { VALUE, SHARED, DYNAMIC, LOCAL, PARAM } kind;
    uint64_t value; // or offset
};
// A register that the machine fills: %tid.x and the like.
struct ptx_special {
    int at;
    std::string name;
};

// .func: registers, local memory and parameters lie behind those of the kernel that calls it.
struct ptx_function {
    std::string name;
    int entry;      // index of its first instruction
    int result, in; // offsets in local memory
    int result_bytes, in_bytes;
};

struct ptx_kernel {
    std::string name; // as linkers know it
    std::vector<ptx_code> code;
    std::vector<ptx_preset> presets;
    std::vector<ptx_special> specials;
    std::vector<ptx_function> functions; // that it may call
    int registers;
    size_t static_shared, local_bytes, param_bytes;
    int most_threads;                             // of a block; 0: any number
    bool has_async;                               // copies by the engine, or wgmma
    uint64_t launches, bytes_read, bytes_written; // so far; bytes of device memory by loads and stores
};

// Reads every *.ptx of the folder; kernels by their name in C++, without parameters' names and namespaces'
// numbers. Ends the program with a message when a file cannot be read.
std::map<std::string, ptx_kernel> ptx_read_folder(const char *folder);
std::string ptx_plain_name(const char *linker_name);

// The instruction set (instructions.cc): NULL: not modelled.
ptx_do *ptx_instruction(const std::string &name);

#endif
