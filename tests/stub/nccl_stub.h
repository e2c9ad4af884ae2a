// SPDX-License-Identifier: Apache-2.0
// A stand-in for NCCL between the threads of one process, in host memory, for the control flow around the
// library: non-blocking calls that take a few polls, peers that never come, errors that arrive later, aborts.
#ifndef ORRERY_TESTS_STUB_NCCL_STUB_H
#define ORRERY_TESTS_STUB_NCCL_STUB_H

struct nccl_stub {
    int version;
    int polls;       // that a call stays in progress after all peers have come
    int fail_after;  // groups of a rank after which its communicator reports a remote error; 0: never
    int silent_rank; // never issues anything, -1: none
    int aborts, destroys;
    int refuse_memory, refuse_register, refuse_window; // number + 1 of the rank that is refused; -1: all
    int no_window;                                     // a window is granted, and is none
    int registrations;                                 // of either kind, in all
    int allocated, registered, windows;                // now
};
extern struct nccl_stub nccl_stub;

#endif
