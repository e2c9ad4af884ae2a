// SPDX-License-Identifier: Apache-2.0
// Watches every access to memory of kernels that run as PTX: within what was allocated, aligned, nothing read
// that nobody wrote, and no two accesses to a place, one of them a write, that no order holds apart. Order is
// what the PTX ISA's memory model gives: a thread's own, barriers, __syncwarp, mbarriers (arrival releases, a
// wait acquires), completion of asynchronous work for those who waited for it, release and acquire on flags
// between blocks; not the emulator's turns, shuffles or luck. Vector clocks, after FastTrack (Flanagan,
// Freund, PLDI 2009), with asynchronous copies and products as actors of their own.
#ifndef ORRERY_TESTS_PTX_WATCH_H
#define ORRERY_TESTS_PTX_WATCH_H

#include <stddef.h>
#include <stdint.h>

struct ptx_code;
struct simt_block;

enum watch_kind { WATCH_READ, WATCH_WRITE, WATCH_ATOMIC };

// ---- memory of the device, told by the emulator's runtime

void watch_allocated(void *p, size_t bytes);
void watch_freed(void *p, size_t bytes);
void watch_written(void *p, size_t bytes); // by the host or a stand-in
void watch_copied(void *to, const void *from, size_t bytes);

// ---- a launch's blocks; what follows is done by the thread that runs

void watch_launch();
void watch_block(struct simt_block *block, bool has_cp_async); // that begins

// An access of the thread itself.
void watch_shared(const ptx_code *c, uint32_t at, size_t bytes, enum watch_kind kind);
void watch_global(const ptx_code *c, const void *at, size_t bytes, enum watch_kind kind);

// Order. `place`: one that meets; everybody joins it, then those who went through it take what was joined.
void watch_join(int place);
void watch_met(int place, const int *thread, int count);

// barrier.cluster: the thread comes; and goes on.
void watch_cluster_join();
void watch_cluster_met();

// Phases of an mbarrier, of any block of the cluster: the thread's arrival; the end of its phase; a wait for
// it that is over.
void watch_mbar_arrive(uint32_t bar);
void watch_mbar_over(uint32_t bar, uint32_t parity);
void watch_mbar_waited(uint32_t bar, uint32_t parity);

void watch_release(const void *flag);
void watch_acquire(const void *flag);

// Asynchronous work, begun by the thread. A load belongs to an mbarrier's phase, in the same block as `to`.
void watch_load(const ptx_code *c, uint32_t to, size_t bytes, uint32_t bar);
// cp.async: groups of each thread.
void watch_copy(const ptx_code *c, uint32_t to, size_t bytes);
void watch_copy_commit();
void watch_copy_wait(int keep);
// Bulk stores and additions: groups of each thread. `read`: waits until sources have been read.
void watch_bulk(const ptx_code *c, uint32_t from, size_t bytes);
void watch_bulk_global(const ptx_code *c, void *to, size_t bytes, enum watch_kind kind);
void watch_bulk_commit();
void watch_bulk_wait(int keep, bool read);
// wgmma: groups of a warpgroup, closed once for all its threads. Operands are read until the group is waited
// for.
void watch_operand(const ptx_code *c, uint32_t at, size_t bytes);
void watch_product_commit();
void watch_product_wait(int keep);

#endif
