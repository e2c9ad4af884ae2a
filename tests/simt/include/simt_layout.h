// SPDX-License-Identifier: Apache-2.0
// Which lane, register and byte holds which element, as the PTX ISA says: pure functions of indices. The
// models of simt_ptx.h are made of them; tests/kernels/cute_peer.cu holds them against CUTLASS's layouts.
#ifndef ORRERY_TESTS_SIMT_LAYOUT_H
#define ORRERY_TESTS_SIMT_LAYOUT_H

#include <stdint.h>

// ---- registers

// Element (row, column) of the 16 x 16 operand A of mma.m16n8k16; of one warp's 16 rows of wgmma's A. Two to
// a register, the even column low.
static inline int simt_a_lane(int row, int column) {
    return row % 8 * 4 + column % 8 / 2;
}
static inline int simt_a_register(int row, int column) {
    return row / 8 + 2 * (column / 8);
}

// Element (k, column) of its 16 x 8 operand B, the even k low.
static inline int simt_b_lane(int k, int column) {
    return column * 4 + k % 8 / 2;
}
static inline int simt_b_register(int k) {
    return k / 8;
}

// Element (row, column) of its 16 x 8 result.
static inline int simt_c_lane(int row, int column) {
    return row % 8 * 4 + column / 2;
}
static inline int simt_c_register(int row, int column) {
    return row / 8 * 2 + column % 2;
}

// Element (row, column) of a warpgroup's 64 x N result; the warp that holds a row, of A in registers too.
static inline int simt_warp_of(int row) {
    return row / 16;
}
static inline int simt_d_thread(int row, int column) {
    return simt_warp_of(row) * 32 + simt_c_lane(row % 16, column % 8);
}
static inline int simt_d_register(int row, int column) {
    return column / 8 * 4 + simt_c_register(row % 16, column % 8);
}

// ldmatrix .x4: the element of 16 bits that comes into a half of a lane's register: the lane that gave its
// row's address, and its place in the row.
struct simt_element {
    int lane, column;
};
static inline struct simt_element simt_ldmatrix_source(int lane, int which, int half, bool turned) {
    int across = lane / 4, along = 2 * (lane % 4) + half;
    struct simt_element e = {8 * which + across, along};
    if (turned) e.lane = 8 * which + along, e.column = across;
    return e;
}

// ---- shared memory

// The swizzle of rows of 128 or 64 bytes: chunks of 16 bytes of a row are exchanged, by the address's bits
// from 128 on.
static inline uint32_t simt_swizzle(uint32_t address, uint32_t row_bytes) {
    return address ^ (address >> 7 & (row_bytes / 16 - 1)) << 4;
}

// Element (column, row) of a box of 16-bit elements at `shared`; swizzle: rows of that many bytes, 0: none.
static inline uint32_t simt_box_at(uint32_t shared, uint32_t columns, uint32_t column, uint32_t row,
                                   uint32_t swizzle) {
    uint32_t at = shared + (row * columns + column) * 2;
    return swizzle > 0 ? simt_swizzle(at, swizzle) : at;
}

// Bytes of a swizzled row of a wgmma descriptor; 0: a form that is not modelled.
static inline uint32_t simt_matrix_row(uint64_t matrix) {
    return matrix >> 62 == 1 ? 128 : matrix >> 62 == 2 ? 64 : 0;
}
static inline uint32_t simt_matrix_field(uint64_t matrix, int shift) {
    return (uint32_t)(matrix >> shift & 0x3fff) << 4;
}

// Address of element (i, k), i counting M or N, of the 16 columns of k that a descriptor names. turned:
// MN-major.
static inline uint32_t simt_operand_at(uint64_t matrix, uint32_t i, uint32_t k, bool turned) {
    uint32_t row = simt_matrix_row(matrix), panel = row / 2, at = simt_matrix_field(matrix, 0),
             lead = simt_matrix_field(matrix, 16), stride = simt_matrix_field(matrix, 32);
    at += turned ? i / panel * lead + k / 8 * stride + k % 8 * row + i % panel * 2
                 : i / 8 * stride + i % 8 * row + k * 2;
    return simt_swizzle(at, row);
}

#endif
