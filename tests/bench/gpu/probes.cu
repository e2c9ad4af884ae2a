// SPDX-License-Identifier: Apache-2.0
// Each reading of the PTX ISA that the attention kernels for sm_90a rest on, alone: the shared memory
// descriptors of wgmma in every form the kernels use, boxes of the copy engine in and out, additions of the
// copy engine in an order kept by flags, pairs of blocks that share their fetches. Inputs are small whole
// numbers, so results are exact; where a form is wrong, other readings are tried and the one that is right is
// named. Every probe is a process of its own with ten seconds. The tests run the same on the emulator
// (tests/kernels/test_probes.c).
#include "tests/bench/gpu/probes.h"

#include <string.h>

#include <vector>

#include "kernels/cuda/attention_sm90.cuh"

static bool cuda_good(FILE *out, cudaError_t rc) {
    if (rc != cudaSuccess) fprintf(out, "WRONG  CUDA: %s\n", cudaGetErrorString(rc));
    return rc == cudaSuccess;
}

static int small_number(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (int)(*seed >> 20 & 15) - 7;
}

static uint16_t bits_of(int v) { // of a small whole number as bf16
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)(u >> 16);
}

// ---- wgmma

enum { IMAGE = 64 << 10, A_AT = 0, B_AT = 32 << 10, MOST_K = 128 };

// An operand: `rows` rows of shared memory in panels, `row` bytes of a row in each. turned: rows are k, else
// columns are.
struct side {
    uint32_t at, lead, stride;
    int rows, row;
};

// Byte of a panel where the copy engine's swizzle puts an element.
static uint32_t in_panel(int row, int column, int row_bytes) {
    int chunk = (column / 8) ^ (row * row_bytes / 128 & (row_bytes / 16 - 1));
    return (uint32_t)(row * row_bytes + chunk * 16 + column % 8 * 2);
}

struct product {
    const unsigned char *image;
    const uint16_t *a; // [64][k], for A in registers
    float *out;        // [64][n]
    struct side left, right;
    int k;
};

static __device__ __forceinline__ uint64_t matrix_of(const struct side &s, int step, bool turned) {
    uint32_t at = s.at + (uint32_t)(turned ? step * 16 * s.row : step / 4 * s.rows * 128 + step % 4 * 32);
    uint64_t m = s.row == 64 ? wgmma_matrix<64>(at, s.lead) : wgmma_matrix(at, s.lead);
    return (m & ~((uint64_t)0x3fff << 32)) | (uint64_t)(s.stride >> 4) << 32;
}

template <int N, int TA, int TB, bool REGISTERS> static __global__ void multiply(const struct product p) {
#if SM90_CODE
    DYNAMIC_SHARED(shared);
    int thread = (int)threadIdx.x, row = thread / 32 * 16 + thread % 32 / 4, t = thread % 4;
    for (int i = thread; i < IMAGE / 16; i += 128) ((uint4 *)shared)[i] = ((const uint4 *)p.image)[i];
    fence_async();
    __syncthreads();
    struct side left = p.left, right = p.right;
    left.at += shared_address(shared);
    right.at += shared_address(shared);
    float d[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) d[i] = 0;
    for (int step = 0; step < p.k / 16; step++) {
        uint64_t b = matrix_of(right, step, TB);
        uint32_t a[4];
        for (int i = 0; i < 4; i++)
            a[i] = *(const uint32_t *)(p.a + (row + i % 2 * 8) * p.k + 16 * step + i / 2 * 8 + 2 * t);
        wgmma_hold(d);
        wgmma_begin();
        if constexpr (REGISTERS) {
            wgmma<TB>(d, a, b, step > 0);
        } else {
            wgmma<TA, TB>(d, matrix_of(left, step, TA), b, step > 0);
        }
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(d);
    }
    for (int i = 0; i < N / 2; i++) p.out[(row + i % 4 / 2 * 8) * N + i / 4 * 8 + 2 * t + i % 2] = d[i];
#endif
}

// The values of a side, as [its M or N][k], written into the image.
static void fill_side(std::vector<unsigned char> &image, std::vector<int> &v, struct side s, int count, int k,
                      bool turned, unsigned *seed) {
    v.resize((size_t)(count * k));
    for (int i = 0; i < count; i++) {
        for (int x = 0; x < k; x++) {
            int row = turned ? x : i, column = turned ? i : x, value = small_number(seed), wide = s.row / 2;
            uint16_t bits = bits_of(value);
            uint32_t at =
                s.at + (uint32_t)(column / wide * s.rows * s.row) + in_panel(row, column % wide, s.row);
            memcpy(&image[at], &bits, sizeof bits);
            v[(size_t)(i * k + x)] = value;
        }
    }
}

// 1: the result is the plain product's.
template <int N, int TA, int TB, bool REGISTERS>
static bool product_right(FILE *out, struct side left, struct side right, int k) {
    std::vector<unsigned char> image(IMAGE, 0x7f);
    std::vector<int> a, b;
    std::vector<uint16_t> bits;
    std::vector<float> got((size_t)64 * N);
    unsigned seed = 5;
    fill_side(image, a, left, 64, k, TA, &seed);
    fill_side(image, b, right, N, k, TB, &seed);
    for (int v : a) bits.push_back(bits_of(v));
    unsigned char *device = NULL, *at_bits, *at_out;
    size_t size = IMAGE + 64 * MOST_K * 2 + got.size() * 4;
    bool good = cuda_good(out, cudaMalloc((void **)&device, size));
    at_bits = device + IMAGE, at_out = at_bits + 64 * MOST_K * 2;
    struct product p = {device, (uint16_t *)at_bits, (float *)at_out, left, right, k};
    good = good && cuda_good(out, cudaMemcpy(device, image.data(), IMAGE, cudaMemcpyHostToDevice)) &&
           cuda_good(out, cudaMemcpy(at_bits, bits.data(), bits.size() * 2, cudaMemcpyHostToDevice)) &&
           cuda_good(out, launch_room(multiply<N, TA, TB, REGISTERS>, IMAGE)) &&
           cuda_good(out, LAUNCH((multiply<N, TA, TB, REGISTERS>), dim3(1), dim3(128), IMAGE, 0, p)) &&
           cuda_good(out, cudaMemcpy(got.data(), at_out, got.size() * 4, cudaMemcpyDeviceToHost));
    cudaFree(device);
    for (int i = 0; i < 64 && good; i++) {
        for (int j = 0; j < N && good; j++) {
            int sum = 0;
            for (int x = 0; x < k; x++) sum += a[(size_t)(i * k + x)] * b[(size_t)(j * k + x)];
            good = got[(size_t)(i * N + j)] == (float)sum;
        }
    }
    return good;
}

// `left` and `right` as the kernels say it, then, if that is wrong, other readings of the right one's
// strides.
template <int N, int TA, int TB, bool REGISTERS>
static int probe_form(FILE *out, const char *what, struct side left, struct side right, int k) {
    bool good = product_right<N, TA, TB, REGISTERS>(out, left, right, k);
    fprintf(out, "%s  wgmma m64n%d %s\n", good ? "right" : "WRONG", N, what);
    if (good) return 0;
    const uint32_t other[][2] = {
        {right.stride, right.lead}, {16, 1024}, {1024, 1024}, {8192, 1024}, {1024, 8192}};
    for (const uint32_t *o : other) {
        struct side r = right, l = left;
        r.lead = o[0], r.stride = o[1];
        if (TA) l.lead = o[0], l.stride = o[1];
        if (product_right<N, TA, TB, REGISTERS>(out, l, r, k))
            fprintf(out, "       but right with lead %u, stride %u\n", o[0], o[1]);
    }
    return 1;
}

int probe_wgmma(FILE *out, int form) {
    const struct side q = {A_AT, WGMMA_BY_ROWS, 1024, 128, 128}, k = {B_AT, WGMMA_BY_ROWS, 1024, 128, 128},
                      stage = {B_AT, WGMMA_BY_ROWS, 1024, 64, 128};
    const struct side ds = {A_AT, 0, 1024, 128, 128}, one = {B_AT, 0, 1024, 128, 128},
                      half = {B_AT, 0, 512, 128, 64};
    const struct side v = {B_AT, 128 * 128, 1024, 128, 128}, gradient = {B_AT, 64 * 128, 1024, 64, 128};
    switch (form) {
    case 0:
        return probe_form<128, 0, 0, false>(out, "q k^T: both by rows, 128 columns in two panels", q, k, 128);
    case 1:
        return probe_form<64, 0, 0, false>(out, "k q^T: both by rows, panels of 128 and 64 rows", q, stage,
                                           128);
    case 2: return probe_form<128, 0, 1, true>(out, "p v: A in registers, B turned, two panels", q, v, 128);
    case 3: return probe_form<128, 0, 1, true>(out, "p^T dO: the same, panels of 64 rows", q, gradient, 64);
    case 4: return probe_form<64, 0, 1, true>(out, "p v: A in registers, B turned, one panel", q, one, 128);
    case 5: return probe_form<64, 1, 1, false>(out, "ds k: both turned", ds, one, 128);
    case 6: return probe_form<32, 1, 1, false>(out, "ds k: both turned, rows of 64 bytes", ds, half, 128);
    default: return -1;
    }
}

// ---- boxes

enum { ROWS = 100, COLUMNS = 128, STRIDE = 136, SEQUENCES = 2, BOX = 64 * 128 };
// Where a box of 64 rows begins, and its columns.
struct box_place {
    int x, y, z, columns;
};

enum { BOXES = 3 };
struct boxes {
    CUtensorMap from, narrow, to; // boxes of 64, 32 and 64 columns
    struct box_place place[BOXES];
    unsigned char *seen; // [BOXES][BOX], as they lie in shared memory
};

static __global__ void move_boxes(const __grid_constant__ struct boxes b) {
#if SM90_CODE
    DYNAMIC_SHARED(shared);
    uint32_t base = shared_address(shared), bar = base + BOXES * BOX;
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_init_done();
    }
    __syncthreads();
    for (uint32_t i = 0; i < BOXES; i++) {
        if (threadIdx.x == 0) {
            struct box_place p = b.place[i];
            mbar_expect(bar, 64 * 2 * p.columns);
            tma_load(base + i * BOX, p.columns == 64 ? &b.from : &b.narrow, bar, p.x, p.y, p.z);
        }
        mbar_wait(bar, i & 1);
        __syncthreads(); // all have seen this round
    }
    for (int i = 0; i < BOXES; i++) {
        for (int c = i * BOX + (int)threadIdx.x * 16; c < i * BOX + 64 * 2 * b.place[i].columns;
             c += 128 * 16)
            *(uint4 *)(b.seen + c) = *(uint4 *)(shared + c);
    }
    __syncthreads();
    // Written anew by ordinary stores, then out again: the first box where it came from, but of sequence 0.
    for (int i = (int)threadIdx.x; i < BOX / 4; i += 128) ((uint32_t *)shared)[i] += 0x00010001;
    fence_async();
    __syncthreads();
    if (threadIdx.x != 0) return;
    tma_store(&b.to, base, 64, 64, 0);
    bulk_commit();
    bulk_wait<0>();
#endif
}

// One box lies in shared memory as the swizzle of its rows has it.
static bool box_in(const std::vector<uint16_t> &x, struct box_place p, const uint16_t *seen) {
    for (int row = 0; row < 64; row++) {
        for (int c = 0; c < p.columns; c++) {
            size_t from = (size_t)((p.z * ROWS + p.y + row) * STRIDE + p.x + c);
            uint16_t want = p.y + row < ROWS ? x[from] : 0;
            if (seen[in_panel(row, c, 2 * p.columns) / 2] != want) return false;
        }
    }
    return true;
}

static bool box_out(const std::vector<uint16_t> &x, const std::vector<uint16_t> &got) {
    for (int s = 0; s < SEQUENCES; s++) {
        for (int row = 0; row < ROWS; row++) {
            for (int c = 0; c < STRIDE; c++) {
                size_t at = (size_t)((s * ROWS + row) * STRIDE + c);
                bool in = s == 0 && row >= 64 && c >= 64 && c < COLUMNS;
                uint16_t want = in ? (uint16_t)(x[at + (size_t)(ROWS * STRIDE)] + 1) : (uint16_t)0xffff;
                if (got[at] != want) return false;
            }
        }
    }
    return true;
}

int probe_boxes(FILE *out) {
    const size_t n = (size_t)SEQUENCES * ROWS * STRIDE;
    std::vector<uint16_t> x(n), got(n), seen(BOXES * BOX / 2);
    for (size_t i = 0; i < n; i++) x[i] = (uint16_t)((i * 2 + 1) & 0x7fff);
    unsigned char *device = NULL;
    attention_encode_fn *encode = NULL;
    // The first and the last reach beyond their sequences.
    struct boxes b = {{}, {}, {}, {{64, 64, 1, 64}, {0, 0, 0, 64}, {32, 64, 0, 32}}, NULL};
    struct err e = {};
    if (!cuda_good(out, cudaMalloc((void **)&device, 4 * n + BOXES * BOX + 512))) return 1;
    unsigned char *to = device + (2 * n + 255) / 256 * 256;
    b.seen = to + (2 * n + 255) / 256 * 256;
    int rc = attention_encoder(&encode, &e);
    struct attention_rows in = {(bf16 *)device, STRIDE}, back = {(bf16 *)to, STRIDE};
    if (rc == 0) rc = attention_map(encode, &b.from, in, COLUMNS, ROWS, SEQUENCES, 64, 64, &e);
    if (rc == 0) rc = attention_map(encode, &b.narrow, in, COLUMNS, ROWS, SEQUENCES, 32, 64, &e);
    if (rc == 0) rc = attention_map(encode, &b.to, back, COLUMNS, ROWS, SEQUENCES, 64, 64, &e);
    if (rc != 0) fprintf(out, "WRONG  tensor map: %s\n", e.text);
    bool ran = rc == 0 && cuda_good(out, cudaMemcpy(device, x.data(), 2 * n, cudaMemcpyHostToDevice)) &&
               cuda_good(out, cudaMemset(to, 0xff, 2 * n)) &&
               cuda_good(out, LAUNCH(move_boxes, dim3(1), dim3(128), BOXES * BOX + 16, 0, b)) &&
               cuda_good(out, cudaMemcpy(seen.data(), b.seen, BOXES * BOX, cudaMemcpyDeviceToHost)) &&
               cuda_good(out, cudaMemcpy(got.data(), to, 2 * n, cudaMemcpyDeviceToHost));
    cudaFree(device);
    if (!ran) return 1;
    int wrong = 0;
    for (int i = 0; i < BOXES; i++) {
        bool right = box_in(x, b.place[i], &seen[(size_t)(i * BOX / 2)]);
        fprintf(out,
                "%s  box of %d columns in: swizzle, rows beyond a sequence are zero, barrier's bytes and "
                "parity\n",
                right ? "right" : "WRONG", b.place[i].columns);
        wrong += !right;
    }
    bool right = box_out(x, got);
    fprintf(out, "%s  box out: swizzle, rows beyond a sequence are not written\n", right ? "right" : "WRONG");
    return wrong + !right;
}

// ---- pairs of blocks

enum { PAIR_ROUNDS = 32, PAIR_FULL = BOX, PAIR_EMPTY = BOX + 8, PAIR_TOLD = BOX + 16, PAIR_WORD = BOX + 24 };

struct pair {
    CUtensorMap from;
    unsigned char *seen; // [PAIR_ROUNDS][2][BOX]: the stage as each block saw it
    uint32_t *words;     // [PAIR_ROUNDS]: what the second block was told
};

// The first block fetches one box after another into the same place of both, and tells the second a word with
// each; both say when they are done with it.
static __global__ void fetch_in_pairs(const __grid_constant__ struct pair p) {
#if SM90_CODE
    DYNAMIC_SHARED(shared);
    uint32_t base = shared_address(shared), rank = cluster_rank();
    uint32_t full = base + PAIR_FULL, empty = base + PAIR_EMPTY, told = base + PAIR_TOLD;
    if (threadIdx.x == 0) {
        mbar_init(full, 1);
        mbar_init(empty, 8);
        mbar_init(told, 1);
        mbar_init_done();
    }
    cluster_sync();
    for (uint32_t i = 0; i < PAIR_ROUNDS; i++) {
        if (threadIdx.x == 0 && rank == 0) {
            mbar_wait(empty, (i & 1) ^ 1);
            mbar_expect(full, BOX / 2);
            cluster_load(base, &p.from, full, 0, 4 * (int)i, 0, 3); // the last lie wholly beyond
            cluster_tell(cluster_address(base + PAIR_WORD, 1), 3 * i + 1, cluster_address(told, 1));
        } else if (threadIdx.x == 0) {
            mbar_expect(full, BOX / 2);
            mbar_expect(told, 4);
        }
        mbar_wait(full, i & 1);
        if (rank == 1) mbar_wait(told, i & 1);
        for (int c = (int)threadIdx.x; c < BOX / 2 / 16; c += 128)
            ((uint4 *)(p.seen + (2 * i + rank) * BOX))[c] = ((const uint4 *)shared)[c];
        if (rank == 1 && threadIdx.x == 0) p.words[i] = *(const volatile uint32_t *)(shared + PAIR_WORD);
        __syncwarp();
        if (threadIdx.x % 32 == 0) cluster_arrive(cluster_address(empty, 0));
    }
    cluster_sync();
#endif
}

int probe_pairs(FILE *out) {
    const size_t n = (size_t)SEQUENCES * ROWS * STRIDE, seen = (size_t)2 * PAIR_ROUNDS * BOX;
    std::vector<uint16_t> x(n), got(seen / 2);
    std::vector<uint32_t> words(PAIR_ROUNDS);
    for (size_t i = 0; i < n; i++) x[i] = (uint16_t)((i * 2 + 1) & 0x7fff);
    unsigned char *device = NULL;
    attention_encode_fn *encode = NULL;
    struct pair p = {};
    struct err e = {};
    if (!cuda_good(out, cudaMalloc((void **)&device, seen + 2 * n + 4096))) return 1;
    p.seen = device;
    p.words = (uint32_t *)(device + seen);
    struct attention_rows in = {(bf16 *)(device + seen + 1024), STRIDE};
    int rc = attention_encoder(&encode, &e), wrong = 0;
    if (rc == 0) rc = attention_map(encode, &p.from, in, COLUMNS, ROWS, SEQUENCES, 32, 64, &e);
    if (rc != 0) fprintf(out, "WRONG  tensor map: %s\n", e.text);
    bool ran = rc == 0 && cuda_good(out, cudaMemcpy(in.data, x.data(), 2 * n, cudaMemcpyHostToDevice)) &&
               cuda_good(out, launch_pairs(fetch_in_pairs, dim3(2), dim3(128), (size_t)BOX + 32,
                                           (cudaStream_t)0, p)) &&
               cuda_good(out, cudaMemcpy(got.data(), p.seen, seen, cudaMemcpyDeviceToHost)) &&
               cuda_good(out, cudaMemcpy(words.data(), p.words, PAIR_ROUNDS * 4, cudaMemcpyDeviceToHost));
    cudaFree(device);
    for (int i = 0; i < 2 * PAIR_ROUNDS && ran; i++)
        wrong += !box_in(x, {0, 4 * (i / 2), 0, 32}, &got[(size_t)i * (BOX / 2)]);
    for (uint32_t i = 0; i < PAIR_ROUNDS && ran; i++) wrong += words[i] != 3 * i + 1;
    fprintf(out, "%s  pairs of blocks: a box for both, words, barriers of each other: %d wrong\n",
            ran && wrong == 0 ? "right" : "WRONG", wrong);
    return !ran || wrong > 0;
}

// ---- additions in the order of flags

enum { TILE = 8192, TILES = 32, ADDERS = 96 };

struct additions {
    const float *x; // [ADDERS]: what each adds, everywhere
    float *sum;     // [TILES][TILE]
    uint32_t *next, *flag;
    bool early; // the flag is raised when the source has been read, not when the addition is done
};

static __global__ void add_in_order(const struct additions a) {
#if SM90_CODE
    DYNAMIC_SHARED(shared);
    __shared__ int item;
    for (;;) {
        if (threadIdx.x == 0) item = (int)atomicAdd(a.next, 1u);
        __syncthreads();
        int i = item;
        if (i >= ADDERS) return;
        for (int c = (int)threadIdx.x; c < TILE; c += 128) ((float *)shared)[c] = a.x[i];
        fence_async();
        __syncthreads();
        for (int t = 0; t < TILES && threadIdx.x == 0; t++) {
            flag_wait(a.flag + t, (uint32_t)i);
            fence_async_global();
            if (i == 0) {
                bulk_store(a.sum + t * TILE, shared_address(shared), TILE * 4);
            } else {
                bulk_add(a.sum + t * TILE, shared_address(shared), TILE * 4);
            }
            bulk_commit();
            bulk_wait_read<0>();
            if (!a.early) bulk_wait<0>();
            fence_async_global();
            flag_add(a.flag + t, 1);
        }
        __syncthreads();
    }
#endif
}

// Sums that depend on the order: numbers of very different sizes. Counts the elements that are not the
// host's.
static int64_t wrong_sums(FILE *out, struct additions a, const float *x, int blocks) {
    std::vector<float> got((size_t)TILES * TILE);
    float want = x[0];
    for (int i = 1; i < ADDERS; i++) want += x[i];
    bool ran = cuda_good(out, cudaMemset(a.next, 0, (1 + TILES) * sizeof *a.next)) &&
               cuda_good(out, LAUNCH(add_in_order, dim3((unsigned)blocks), dim3(128), TILE * 4, 0, a)) &&
               cuda_good(out, cudaMemcpy(got.data(), a.sum, got.size() * 4, cudaMemcpyDeviceToHost));
    int64_t wrong = 0;
    for (float v : got) wrong += v != want;
    return ran ? wrong : -1;
}

int probe_order(FILE *out, int blocks, int rounds, int early_rounds) {
    float x[ADDERS];
    unsigned seed = 3;
    for (int i = 0; i < ADDERS; i++)
        x[i] = (float)small_number(&seed) * (i % 3 == 0 ? 1e6f : i % 3 == 1 ? 0.37f : 1e-3f);
    unsigned char *device = NULL;
    size_t sums = (size_t)TILES * TILE * 4;
    if (!cuda_good(out, cudaMalloc((void **)&device, sums + sizeof x + 4096))) return 1;
    struct additions a = {(float *)(device + sums), (float *)device, (uint32_t *)(device + sums + sizeof x),
                          NULL, false};
    a.flag = a.next + 1;
    bool ran = cuda_good(out, cudaMemcpy((void *)a.x, x, sizeof x, cudaMemcpyHostToDevice));
    int64_t wrong = ran ? 0 : -1, early = 0;
    for (int i = 0; i < rounds && wrong == 0; i++) wrong = wrong_sums(out, a, x, blocks);
    a.early = true;
    for (int i = 0; i < early_rounds && ran; i++) early += wrong_sums(out, a, x, blocks);
    cudaFree(device);
    fprintf(out, "%s  additions in the order of flags: %lld elements differ, %d rounds\n",
            wrong == 0 ? "right" : "WRONG", (long long)wrong, rounds);
    if (early_rounds == 0) return wrong != 0;
    fprintf(out, "note   with the flag raised after .read only: %lld differ\n", (long long)early);
    return wrong != 0;
}

#ifdef __CUDACC__
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

// One probe in a process of its own: a kernel that hangs or faults ends with it.
static bool alone(const char *name, int (*run)(int), int arg) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        int rc = run(arg);
        fflush(stdout);
        _exit(rc != 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        printf("WRONG  %s %d: ended by signal %d (14: it hung)\n", name, arg, WTERMSIG(status));
    return status == 0;
}

static int device(int) {
    return !cuda_good(stdout, cudaFree(NULL));
}
static int wgmma_form(int form) {
    return probe_wgmma(stdout, form);
}
static int boxes_both(int) {
    return probe_boxes(stdout);
}
static int pairs(int) {
    return probe_pairs(stdout);
}
static int order(int) {
    return probe_order(stdout, 132, 20, 20);
}

int main() {
    int bad = 0;
    if (!alone("device", device, 0)) return 1;
    for (int form = 0; form < PROBE_FORMS; form++) bad += !alone("wgmma", wgmma_form, form);
    bad += !alone("boxes", boxes_both, 0) + !alone("order", order, 0) + !alone("pairs", pairs, 0);
    printf("probes: %s\n", bad > 0 ? "WRONG" : "all right");
    return bad > 0;
}
#endif
