// SPDX-License-Identifier: Apache-2.0
// CUTLASS's CuTe, NVIDIA's own account of these instructions, against ours: the descriptors that the kernels
// make (wgmma_forms.h), the places where the emulator (simt_layout.h) reads and writes, the kernels' own
// stores into swizzled panels. Every element of every operand is compared. cute_peer.sh compiles and runs it.
#include <cute/tensor.hpp>

#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/copy_traits_sm90.hpp>
#include <cute/atom/copy_traits_sm90_tma_swizzle.hpp>
#include <cute/atom/mma_atom.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
#include <stdio.h>

#include "kernels/cuda/attention_sm90.cuh"
#include "tests/kernels/wgmma_forms.h"
#include "tests/simt/include/simt_layout.h"

namespace gmma = cute::SM90::GMMA;
using cute::Int;
using element = cute::bfloat16_t;

static long compared, wrong;

// Counts one comparison; the first few that fail are shown.
static void same(uint64_t ours, uint64_t theirs, const char *what, int a, int b, int c) {
    compared++;
    if (ours == theirs) return;
    if (wrong++ < 40)
        printf("WRONG  %s [%d, %d, %d]: ours 0x%llx, CuTe's 0x%llx\n", what, a, b, c,
               (unsigned long long)ours, (unsigned long long)theirs);
}

// One line for each thing compared.
static void section(const char *what) {
    static long compared_before, wrong_before;
    printf("%s  %s: %ld comparisons\n", wrong == wrong_before ? "agrees" : "WRONG ", what,
           compared - compared_before);
    compared_before = compared;
    wrong_before = wrong;
}

// ---- matrices in shared memory: ROWS rows of COLUMNS bf16, in panels of 64 columns, of 32 where ROW is 64

// As the operand whose M or N counts rows, and k columns; and as the one whose k counts rows.
template <int ROWS, int COLUMNS, class ATOM = gmma::Layout_K_SW128_Atom<element>>
using by_rows = decltype(cute::tile_to_shape(ATOM{}, cute::Shape<Int<ROWS>, Int<COLUMNS>>{}));
template <int ROWS, int COLUMNS, class ATOM = gmma::Layout_MN_SW128_Atom<element>>
using turned = decltype(cute::tile_to_shape(ATOM{}, cute::Shape<Int<COLUMNS>, Int<ROWS>>{},
                                            cute::Step<cute::_2, cute::_1>{}));
template <int ROWS, int COLUMNS> using by_rows64 = by_rows<ROWS, COLUMNS, gmma::Layout_K_SW64_Atom<element>>;
template <int ROWS, int COLUMNS> using turned64 = turned<ROWS, COLUMNS, gmma::Layout_MN_SW64_Atom<element>>;

// Byte of an element from the matrix's beginning.
template <class LAYOUT> static uint32_t byte_of(const LAYOUT &layout, int i, int k) {
    return (uint32_t)cute::as_position_independent_swizzle_layout(layout)(i, k) * 2;
}

// One matrix as both sorts of operand, as the copy engine lays its boxes of WIDE columns, and what the copy
// engine is told of them.
template <int WIDE, class STRAIGHT, class ACROSS>
static void check_boxes(STRAIGHT straight, ACROSS across, uint32_t base) {
    int rows = cute::size<0>(straight), columns = cute::size<1>(straight);
    for (int row = 0; row < rows; row++) {
        for (int c = 0; c < columns; c++) {
            uint32_t at = byte_of(straight, row, c), panel = (uint32_t)(c / WIDE * rows * WIDE * 2);
            same(at, byte_of(across, c, row), "one matrix, two views", row, c, WIDE);
            same(simt_box_at(base + panel, WIDE, (uint32_t)c % WIDE, (uint32_t)row, 2 * WIDE), base + at,
                 "a box of the copy engine", row, c, WIDE);
        }
    }
    auto s = cute::get_swizzle_portion(straight);
    same(attention_swizzle(WIDE),
         cute::TMA::to_CUtensorMapSwizzle(cute::detail::get_tma_swizzle_bits(s),
                                          cute::detail::get_tma_swizzle_base(s)),
         "the copy engine's swizzle", WIDE, 0, 0);
}

template <int ROWS, int COLUMNS> static void check_matrix(uint32_t base) {
    by_rows<ROWS, COLUMNS> straight;
    check_boxes<64>(straight, turned<ROWS, COLUMNS>{}, base);
    check_boxes<32>(by_rows64<ROWS, COLUMNS>{}, turned64<ROWS, COLUMNS>{}, base);
    for (int row = 0; row + 16 <= ROWS; row += 8) {
        for (int c = 0; c < COLUMNS; c += 16) {
            for (int lane = 0; lane < 32; lane++)
                same(swizzled<ROWS>(row, c / 16, lane), byte_of(straight, row + lane % 16, c + lane / 16 * 8),
                     "stores of tiles", row, c, lane);
        }
    }
}

// ---- products

// CuTe's instruction for m64 n N k16.
template <int N, bool REGISTERS, bool A_TURNED, bool B_TURNED> static auto instruction() {
    constexpr gmma::Major a = A_TURNED ? gmma::Major::MN : gmma::Major::K,
                          b = B_TURNED ? gmma::Major::MN : gmma::Major::K;
    using tile = cute::Shape<Int<64>, Int<N>, Int<16>>;
    if constexpr (REGISTERS) {
        return gmma::rs_op_selector<element, element, float, tile, a, b>();
    } else {
        return gmma::ss_op_selector<element, element, float, tile, a, b>();
    }
}

// An operand's descriptor for each step as CuTe makes it: of COUNT of the layout's M or N, from `first` on,
// the matrix at `base`. On the host CuTe takes 0 for a tensor's address and says so in a line on stdout.
template <bool A, int COUNT, class INSTRUCTION, class LAYOUT>
static void descriptors(INSTRUCTION, LAYOUT layout, int first, uint32_t base, uint64_t *out) {
    alignas(1024) static element memory[cute::cosize_v<LAYOUT>];
    auto tile = cute::Shape<Int<COUNT>, decltype(cute::size<1>(layout))>{};
    auto all = cute::make_tensor(cute::make_smem_ptr(memory), layout);
    auto mine = cute::local_tile(all, tile, cute::make_coord(first / COUNT, 0));
    auto mma = cute::make_tiled_mma(INSTRUCTION{}).get_thread_slice(0);
    uint64_t start = (base + byte_of(layout, first, 0)) >> 4;
    auto put = [&](auto steps) {
        for (int k = 0; k < cute::size<2>(steps); k++) out[k] = (uint64_t)steps(0, 0, k) + start;
    };
    if constexpr (A) {
        put(mma.partition_fragment_A(mine));
    } else {
        put(mma.partition_fragment_B(mine));
    }
}

// The emulator, given CuTe's descriptors, reads element (i, k) where CuTe's layout has it.
template <class LAYOUT>
static void check_reading(const char *what, LAYOUT layout, bool is_turned, int first, int count,
                          uint32_t base, const uint64_t *descriptor) {
    for (int step = 0; step < cute::size<1>(layout) / 16; step++) {
        for (int i = 0; i < count; i++) {
            for (int k = 0; k < 16; k++)
                same(simt_operand_at(descriptor[step], (uint32_t)i, (uint32_t)k, is_turned),
                     base + byte_of(layout, first + i, 16 * step + k), what, step, i, k);
        }
    }
}

// Where an operand is: its matrix, where that begins, and the first of its M or N there.
template <class LAYOUT> struct operand {
    LAYOUT layout;
    int first;
    uint32_t base;
};

// A product whose A is in shared memory.
template <int N, bool A_TURNED, bool B_TURNED, class A, class B>
static void check_product(const char *what, const struct wgmma_form &ours, operand<A> a, operand<B> b) {
    auto op = instruction<N, false, A_TURNED, B_TURNED>();
    uint64_t a_steps[WGMMA_MOST_STEPS], b_steps[WGMMA_MOST_STEPS];
    descriptors<true, 64>(op, a.layout, a.first, a.base, a_steps);
    descriptors<false, N>(op, b.layout, b.first, b.base, b_steps);
    same(N, (uint64_t)ours.n, what, -1, 0, 0);
    same(ours.steps, (uint64_t)(cute::size<1>(a.layout) / 16), what, -1, 1, 0);
    same(ours.registers, false, what, -1, 2, 0);
    same(ours.a_turned, A_TURNED, what, -1, 3, 0);
    same(ours.b_turned, B_TURNED, what, -1, 4, 0);
    for (int i = 0; i < ours.steps; i++) {
        same(ours.step[i].a, a_steps[i], what, i, 0, 0);
        same(ours.step[i].b, b_steps[i], what, i, 1, 0);
        same(ours.step[i].accumulate, i > 0, what, i, 2, 0);
    }
    check_reading(what, a.layout, A_TURNED, a.first, 64, a.base, a_steps);
    check_reading(what, b.layout, B_TURNED, b.first, N, b.base, b_steps);
}

// A product that adds to what is there, with A in registers, B turned.
template <int N, class B>
static void check_addition(const char *what, const struct wgmma_form &ours, operand<B> b) {
    auto op = instruction<N, true, false, true>();
    uint64_t steps[WGMMA_MOST_STEPS];
    descriptors<false, N>(op, b.layout, b.first, b.base, steps);
    same(N, (uint64_t)ours.n, what, -1, 0, 0);
    same(ours.steps, (uint64_t)(cute::size<1>(b.layout) / 16), what, -1, 1, 0);
    same(ours.registers, true, what, -1, 2, 0);
    same(ours.b_turned, true, what, -1, 3, 0);
    for (int i = 0; i < ours.steps; i++) {
        same((uint64_t)ours.step[i].first, (uint64_t)(4 * i), what, i, 0, 0);
        same(ours.step[i].b, steps[i], what, i, 1, 0);
        same(ours.step[i].accumulate, true, what, i, 2, 0);
    }
    check_reading(what, b.layout, true, b.first, N, b.base, steps);
}

// Every product of the kernels at one head_dim, for both consumers: rows `64 who` of the tile are theirs.
template <int D> static void check_products(uint32_t a, uint32_t b) {
    by_rows<128, D> tile;
    by_rows<64, D> stage;
    turned<128, D> tile_turned;
    turned<64, D> stage_turned;
    cute::conditional_t<D == 128, turned<128, 128>, turned64<128, 64>> halves; // of D, a panel each
    turned<128, 64> ds;
    for (int who = 0; who < 2; who++) {
        uint32_t mine = a + 8192 * (uint32_t)who;
        check_product<128, false, false>("q k^T", wgmma_logits(D, mine, b),
                                         operand<decltype(tile)>{tile, 64 * who, a},
                                         operand<decltype(tile)>{tile, 0, b});
        check_product<64, false, false>("k q^T", wgmma_turned(D, mine, b),
                                        operand<decltype(tile)>{tile, 64 * who, a},
                                        operand<decltype(stage)>{stage, 0, b});
        check_product<D / 2, true, true>("ds k", wgmma_dq(D, a, b + (uint32_t)(who * 128 * D)),
                                         operand<decltype(ds)>{ds, 0, a},
                                         operand<decltype(halves)>{halves, D / 2 * who, b});
    }
    check_addition<D>("p v", wgmma_output(D, b), operand<decltype(tile_turned)>{tile_turned, 0, b});
    check_addition<D>("p^T dO", wgmma_gradient(D, b), operand<decltype(stage_turned)>{stage_turned, 0, b});
}

// ---- registers

// A warpgroup's result, 64 x N.
template <int N> static void check_results() {
    typename cute::MMA_Traits<decltype(instruction<N, false, false, false>())>::CLayout place;
    for (int thread = 0; thread < 128; thread++) {
        for (int i = 0; i < N / 2; i++) {
            int at = place(thread, i), row = at % 64, column = at / 64;
            same((uint64_t)simt_d_thread(row, column), (uint64_t)thread, "result's thread", N, row, column);
            same((uint64_t)simt_d_register(row, column), (uint64_t)i, "result's register", N, row, column);
        }
    }
}

// A in registers, eight numbers of a thread for each step; and that results, two to a register, are already
// there where the next product's A has them (to_bf16).
static void check_weights() {
    typename cute::MMA_Traits<decltype(instruction<64, true, false, true>())>::ALayout place;
    typename cute::MMA_Traits<decltype(instruction<128, false, false, false>())>::CLayout result;
    for (int thread = 0; thread < 128; thread++) {
        for (int i = 0; i < 8; i++) {
            int at = place(thread, i), row = at % 64, k = at / 64;
            same((uint64_t)(simt_warp_of(row) * 32 + simt_a_lane(row % 16, k)), (uint64_t)thread,
                 "A's thread", row, k, 0);
            same((uint64_t)(simt_a_register(row % 16, k) * 2 + k % 2), (uint64_t)i, "A's register", row, k,
                 0);
            for (int step = 0; step < 8; step++)
                same((uint64_t)result(thread, 8 * step + i), (uint64_t)(row + 64 * (16 * step + k)),
                     "results as A", row, k, step);
        }
    }
}

// mma.m16n8k16 of a warp.
static void check_mma() {
    using traits = cute::MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN>;
    typename traits::ALayout a;
    typename traits::BLayout b;
    typename traits::CLayout c;
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 8; i++) {
            int row = a(lane, i) % 16, k = a(lane, i) / 16;
            same((uint64_t)simt_a_lane(row, k), (uint64_t)lane, "mma, A's lane", row, k, 0);
            same((uint64_t)(simt_a_register(row, k) * 2 + k % 2), (uint64_t)i, "mma, A's register", row, k,
                 0);
        }
        for (int i = 0; i < 4; i++) {
            int n = b(lane, i) % 8, k = b(lane, i) / 8, row = c(lane, i) % 16, column = c(lane, i) / 16;
            same((uint64_t)simt_b_lane(k, n), (uint64_t)lane, "mma, B's lane", k, n, 0);
            same((uint64_t)(simt_b_register(k) * 2 + k % 2), (uint64_t)i, "mma, B's register", k, n, 0);
            same((uint64_t)simt_c_lane(row, column), (uint64_t)lane, "mma, C's lane", row, column, 0);
            same((uint64_t)simt_c_register(row, column), (uint64_t)i, "mma, C's register", row, column, 0);
        }
    }
}

// CuTe counts bits: of a lane's registers, and of the rows whose addresses the lanes give.
template <class OP> static void check_ldmatrix(const char *what, bool is_turned) {
    typename cute::Copy_Traits<OP>::SrcLayout from;
    typename cute::Copy_Traits<OP>::DstLayout to;
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 8; i++) {
            struct simt_element e = simt_ldmatrix_source(lane, i / 2, i % 2, is_turned);
            same((uint64_t)from(e.lane, 16 * e.column), (uint64_t)to(lane, 16 * i), what, lane, i, 0);
        }
    }
}

// stmatrix, the other way round.
static void check_stmatrix() {
    typename cute::Copy_Traits<cute::SM90_U32x4_STSM_N>::SrcLayout from;
    typename cute::Copy_Traits<cute::SM90_U32x4_STSM_N>::DstLayout to;
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 8; i++) {
            struct simt_element e = simt_ldmatrix_source(lane, i / 2, i % 2, false);
            same((uint64_t)to(e.lane, 16 * e.column), (uint64_t)from(lane, 16 * i), "stmatrix", lane, i, 0);
        }
    }
}

int main() {
    check_matrix<128, 128>(0);
    check_matrix<128, 64>(1024 * 33);
    check_matrix<64, 128>(1024 * 65);
    check_matrix<64, 64>(1024 * 7);
    section("swizzled panels: stores, boxes, rows as k and as M or N");
    const uint32_t bases[][2] = {{0, 32 << 10}, {96 << 10, 1024}, {3 << 10, 195 << 10}};
    for (const uint32_t *b : bases) check_products<64>(b[0], b[1]);
    section("products at head_dim 64");
    for (const uint32_t *b : bases) check_products<128>(b[0], b[1]);
    section("products at head_dim 128");
    check_results<32>();
    check_results<64>();
    check_results<128>();
    section("wgmma's results");
    check_weights();
    section("wgmma's A in registers");
    check_mma();
    section("mma.m16n8k16");
    check_ldmatrix<cute::SM75_U32x4_LDSM_N>("ldmatrix", false);
    check_ldmatrix<cute::SM75_U16x8_LDSM_T>("ldmatrix, turned", true);
    check_stmatrix();
    section("ldmatrix, stmatrix");
    printf("%ld comparisons, %ld wrong\n", compared, wrong);
    return wrong > 0;
}
