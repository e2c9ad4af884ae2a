// SPDX-License-Identifier: Apache-2.0
// The instruction set: a table of names and what each does to the registers of one thread (PTX ISA 9.0,
// chapter 9). What moves data asynchronously, and products, are in async.cc. Compiled without contraction: a
// fused addition is one only where the text says fma.
#include <fenv.h>
#include <math.h>

#include <algorithm>
#include <unordered_map>

#include "tests/ptx/async.h"
#include "tests/ptx/machine.h"

namespace {

#define DO       [](ptx_run * t, const ptx_code *c)
#define IN(T, n) ptx_get<T>(t, c, n)
#define OUT(v)   ptx_put(t, c, 0, v)

typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef uint8_t u8;
typedef uint16_t u16, b16;
typedef uint32_t u32, b32;
typedef uint64_t u64, b64;
typedef float f32;
typedef double f64;
typedef bool pred;

#define ONE(name, T, expr)                                                                                   \
    {                                                                                                        \
        name "." #T, DO {                                                                                    \
            T a = IN(T, 1);                                                                                  \
            OUT((T)(expr));                                                                                  \
        }                                                                                                    \
    }
#define TWO(name, T, expr)                                                                                   \
    {                                                                                                        \
        name "." #T, DO {                                                                                    \
            T a = IN(T, 1), b = IN(T, 2);                                                                    \
            OUT((T)(expr));                                                                                  \
        }                                                                                                    \
    }
#define THREE(name, T, expr)                                                                                 \
    {                                                                                                        \
        name "." #T, DO {                                                                                    \
            T a = IN(T, 1), b = IN(T, 2), d = IN(T, 3);                                                      \
            OUT((T)(expr));                                                                                  \
        }                                                                                                    \
    }
#define INTEGERS(ROW, name, expr)                                                                            \
    ROW(name, s16, expr), ROW(name, u16, expr), ROW(name, s32, expr), ROW(name, u32, expr),                  \
        ROW(name, s64, expr), ROW(name, u64, expr)
#define BITS(ROW, name, expr)                                                                                \
    ROW(name, b16, expr), ROW(name, b32, expr), ROW(name, b64, expr), ROW(name, pred, expr)
#define FLOATS(ROW, name, expr) ROW(name, f32, expr), ROW(name, f64, expr)

// Signed sums wrap around.
template <class T> T plus(T a, T b) {
    if constexpr (std::is_integral_v<T>)
        return (T)((u64)a + (u64)b);
    else
        return a + b;
}
template <class T> T minus(T a, T b) {
    if constexpr (std::is_integral_v<T>)
        return (T)((u64)a - (u64)b);
    else
        return a - b;
}
template <class T> T times(T a, T b) {
    return (T)((u64)a * (u64)b);
}
template <class T> T high(T a, T b) {
    return (T)(((__int128)a * (__int128)b) >> (8 * sizeof(T)));
}
template <> u64 high(u64 a, u64 b) {
    return (u64)(((unsigned __int128)a * b) >> 64);
}
template <class T> T quotient(T a, T b) {
    if (b == 0) return (T)-1;
    return b == (T)-1 && std::is_signed_v<T> ? minus((T)0, a) : (T)(a / b);
}
template <class T> T rest(T a, T b) {
    if (b == 0) return a;
    return b == (T)-1 && std::is_signed_v<T> ? (T)0 : (T)(a % b);
}
// Shifts by the width or more leave nothing, or the sign.
template <class T> T left(T a, u32 by) {
    return by >= 8 * sizeof(T) ? 0 : (T)(a << by);
}
template <class T> T right(T a, u32 by) {
    u32 most = 8 * sizeof(T) - 1;
    if (by > most) return std::is_signed_v<T> ? (T)(a >> most) : (T)0;
    return (T)(a >> by);
}
#define SHIFT(name, T, f)                                                                                    \
    {                                                                                                        \
        name "." #T, DO {                                                                                    \
            OUT(f(IN(T, 1), IN(u32, 2)));                                                                    \
        }                                                                                                    \
    }

// Bits of b with the lowest `length` of a from `at` on.
template <class T> T inserted(T a, T b, u32 at, u32 length) {
    T mask = left(minus(left((T)1, length & 255), (T)1), at & 255);
    return (T)((b & ~mask) | (left(a, at & 255) & mask));
}
#define INSERT(T)                                                                                            \
    {                                                                                                        \
        "bfi." #T, DO {                                                                                      \
            OUT(inserted(IN(T, 1), IN(T, 2), IN(u32, 3), IN(u32, 4)));                                       \
        }                                                                                                    \
    }

template <class T> T flushed(T x) {
    return fpclassify(x) == FP_SUBNORMAL ? copysign((T)0, x) : x;
}
f32 fma_down(f32 a, f32 b, f32 d) {
    volatile f32 x = a, y = b, z = d, r;
    int old = fegetround();
    fesetround(FE_DOWNWARD);
    r = fmaf(x, y, z);
    fesetround(old);
    return r;
}
// The hardware's first guess: the upper half of the word.
f64 guessed_inverse(f64 x) {
    f64 y = 1 / flushed(x);
    u64 bits;
    memcpy(&bits, &y, 8);
    bits &= 0xffffffff00000000u;
    memcpy(&y, &bits, 8);
    return y;
}

// ---- comparisons

#define COMPARE(name, T, test)                                                                               \
    {                                                                                                        \
        "setp." name "." #T, DO {                                                                            \
            T a = IN(T, 1), b = IN(T, 2);                                                                    \
            OUT((bool)(test));                                                                               \
        }                                                                                                    \
    }
#define COMPARE_ALL(name, test)                                                                              \
    COMPARE(name, s16, test), COMPARE(name, u16, test), COMPARE(name, s32, test), COMPARE(name, u32, test),  \
        COMPARE(name, s64, test), COMPARE(name, u64, test), COMPARE(name, b16, test),                        \
        COMPARE(name, b32, test), COMPARE(name, b64, test)
// Ordered: false with a NaN. Unordered: true.
#define COMPARE_FLOATS(name, test)                                                                           \
    COMPARE(name, f32, a == a && b == b && (test)), COMPARE(name, f64, a == a && b == b && (test)),          \
        COMPARE(name "u", f32, a != a || b != b || (test)),                                                  \
        COMPARE(name "u", f64, a != a || b != b || (test))

// ---- conversions

// Towards zero or to the nearest, saturated; NaN is 0.
template <class I, class F> I integer_of(F x) {
    if (x != x) return 0;
    if (x <= (F)std::numeric_limits<I>::min()) return std::numeric_limits<I>::min();
    if (x >= (F)std::numeric_limits<I>::max()) return std::numeric_limits<I>::max();
    return (I)x;
}
#define CVT(name, TO, FROM, expr)                                                                            \
    {                                                                                                        \
        "cvt" name "." #TO "." #FROM, DO {                                                                   \
            FROM a = IN(FROM, 1);                                                                            \
            OUT((TO)(expr));                                                                                 \
        }                                                                                                    \
    }
#define CVT_FROM_INTEGERS(TO)                                                                                \
    CVT("", TO, s8, a), CVT("", TO, u8, a), CVT("", TO, s16, a), CVT("", TO, u16, a), CVT("", TO, s32, a),   \
        CVT("", TO, u32, a), CVT("", TO, s64, a), CVT("", TO, u64, a)
#define CVT_TO_FLOAT(F)                                                                                      \
    CVT(".rn", F, s32, a), CVT(".rn", F, u32, a), CVT(".rn", F, s64, a), CVT(".rn", F, u64, a),              \
        CVT(".rn", F, s16, a), CVT(".rn", F, u16, a)
#define CVT_TO_INTEGER(I, F)                                                                                 \
    CVT(".rzi", I, F, integer_of<I>(trunc(a))), CVT(".rni", I, F, integer_of<I>(nearbyint(a))),              \
        CVT(".rmi", I, F, integer_of<I>(floor(a))), CVT(".rpi", I, F, integer_of<I>(ceil(a)))

u16 bf16_of(f32 x) {
    return __float2bfloat16(x).bits;
}

// ---- carries

u32 with_carry(ptx_run *t, u64 sum) {
    t->carry = sum >> 32 != 0;
    return (u32)sum;
}
u32 with_borrow(ptx_run *t, u64 a, u64 b) {
    t->carry = a < b;
    return (u32)(a - b);
}

// ---- memory

void *memory(ptx_run *t, const ptx_code *c, int operand, enum watch_kind kind) {
    size_t bytes = (size_t)c->bytes * (size_t)c->count;
    uint64_t at = ptx_address(t, c, operand);
    unsigned char *p = (unsigned char *)(uintptr_t)at;
    bool shared = c->space == PTX_SHARED;
    if (shared) {
        watch_shared(c, (uint32_t)at, bytes, kind);
        return simt_shared((uint32_t)at, bytes);
    }
    bool local = p >= t->local && p < t->local + t->kernel->local_bytes;
    bool param = p >= t->params && p < t->params + t->kernel->param_bytes;
    size_t left = local ? (size_t)(t->local + t->kernel->local_bytes - p)
                        : (size_t)(t->params + t->kernel->param_bytes - p);
    if ((local || param) && left < bytes) ptx_fail(c, "%zu bytes where %zu are left", bytes, left);
    if (param && kind != WATCH_READ) ptx_fail(c, "writes a parameter");
    if (local || param) return p;
    (kind == WATCH_READ ? t->kernel->bytes_read : t->kernel->bytes_written) += bytes;
    watch_global(c, p, bytes, kind);
    return p;
}

void load(ptx_run *t, const ptx_code *c) {
    const unsigned char *p = (const unsigned char *)memory(t, c, c->count, WATCH_READ);
    for (int i = 0; i < c->count; i++, p += c->bytes) {
        u64 word = 0;
        memcpy(&word, p, (size_t)c->bytes);
        u32 unused = 64 - 8 * (u32)c->bytes;
        if (c->is_signed) word = (u64)((s64)(word << unused) >> unused);
        t->r[c->at[(size_t)i]] = word;
    }
}
void store(ptx_run *t, const ptx_code *c) {
    unsigned char *p = (unsigned char *)memory(t, c, 0, WATCH_WRITE);
    for (int i = 0; i < c->count; i++)
        memcpy(p + i * c->bytes, &t->r[c->at[(size_t)i + 1]], (size_t)c->bytes);
    if (c->space == PTX_SHARED && t->kernel->has_async)
        simt_stored(simt_self->number, ptx_shared_address(t, c, 0), (size_t)c->bytes * (size_t)c->count);
}

void *atomic_place(ptx_run *t, const ptx_code *c, int operand) {
    void *p = (void *)(uintptr_t)ptx_address(t, c, operand);
    watch_global(c, p, (size_t)c->bytes, WATCH_ATOMIC);
    return p;
}

// ---- control

void branch(ptx_run *t, const ptx_code *c) {
    t->at = c->target;
}
void call(ptx_run *t, const ptx_code *c) {
    const ptx_function *f = &t->kernel->functions[(size_t)c->target];
    if (t->in) ptx_fail(c, "calls within calls are not modelled");
    memcpy(t->local + f->in, (void *)(uintptr_t)t->r[c->at[1]], (size_t)f->in_bytes);
    t->calls.push_back({t->at, c});
    t->in = f;
    t->at = f->entry;
}
void leave(ptx_run *t, const ptx_code *) {
    if (t->calls.empty()) {
        t->over = true;
        return;
    }
    const ptx_code *from = t->calls.back().second;
    memcpy((void *)(uintptr_t)t->r[from->at[0]], t->local + t->in->result, (size_t)t->in->result_bytes);
    t->at = t->calls.back().first;
    t->calls.pop_back();
    t->in = NULL;
}

// ---- lanes

// d|p = what the lane that f names holds, p: it is within the bounds. c: bounds and width, as the ISA packs
// them.
template <class F> void shuffle(ptx_run *t, const ptx_code *c, F f) {
    int value = (int)c->at.size() - 4; // d, or d and p, come first
    u32 by = IN(u32, value + 1), bounds = IN(u32, value + 2), mask = IN(u32, value + 3);
    int lane = simt_self->lane, clamp = (int)(bounds & 31), segment = (int)(bounds >> 8 & 31);
    int first = lane & segment, last = first | (clamp & ~segment);
    bool in;
    int from = f(lane, (int)(by & 31), first, last, &in);
    OUT(simt_shuffle(mask, IN(u32, value), in ? from : lane, c->name));
    if (value == 2) ptx_put(t, c, 1, in);
}

void warp_barrier(ptx_run *t, const ptx_code *c) {
    if (IN(u32, 0) != 0xffffffffu) ptx_fail(c, "only the full mask is modelled");
    int place = SIMT_WARP + simt_self->number / 32, none = 0;
    watch_join(place);
    simt_warp_all(0xffffffffu, c->name, &none, [place](int **, int n) {
        int first = simt_self->number & ~31, lanes[32];
        for (int i = 0; i < n; i++) lanes[i] = first + i;
        watch_met(place, lanes, n);
    });
}

struct come {
    int place, thread;
};
void block_barrier(ptx_run *t, const ptx_code *c) {
    int id = (int)IN(u32, 0);
    bool all = c->at.size() == 1;
    int place = all ? SIMT_BLOCK : id, count = all ? simt_now->running : (int)IN(u32, 1);
    if (all && id != 0) ptx_fail(c, "a named barrier without a count is not modelled");
    if (!all && (id < 1 || id > 15 || count % 32 != 0)) ptx_fail(c, "barrier %d of %d threads", id, count);
    come me = {place, simt_self->number};
    watch_join(place);
    simt_meet(
        place, count, "barrier", &me,
        [](void **args, int n, void *) {
            std::vector<int> threads;
            for (int i = 0; i < n; i++)
                if (args[i]) threads.push_back(((come *)args[i])->thread);
            if (!threads.empty()) watch_met(((come *)args[0])->place, threads.data(), (int)threads.size());
        },
        NULL);
}
// Barrier 0, and how many threads' predicates hold.
int block_count(ptx_run *t, const ptx_code *c) {
    int place = SIMT_BLOCK, me[2] = {simt_self->number, IN(bool, (int)c->at.size() - 1)};
    if (IN(u32, 1) != 0) ptx_fail(c, "only barrier 0 is modelled");
    watch_join(place);
    simt_meet(
        place, simt_now->running, "barrier", me,
        [](void **args, int n, void *) {
            std::vector<int> threads;
            int sum = 0;
            for (int i = 0; i < n; i++) threads.push_back(((int *)args[i])[0]), sum += ((int *)args[i])[1];
            watch_met(SIMT_BLOCK, threads.data(), n);
            for (int i = 0; i < n; i++) ((int *)args[i])[1] = sum;
        },
        NULL);
    return me[1];
}
void block_arrive(ptx_run *t, const ptx_code *c) {
    watch_join((int)IN(u32, 0));
    simt_arrive((int)IN(u32, 0), (int)IN(u32, 1), "barrier");
}

// clang-format off
const struct {
    const char *name;
    ptx_do *run;
} TABLE[] = {
    INTEGERS(TWO, "add", plus(a, b)), FLOATS(TWO, "add", a + b), FLOATS(TWO, "add.rn", a + b),
    INTEGERS(TWO, "sub", minus(a, b)), FLOATS(TWO, "sub", a - b), FLOATS(TWO, "sub.rn", a - b),
    INTEGERS(TWO, "mul.lo", times(a, b)), INTEGERS(TWO, "mul.hi", high(a, b)),
    FLOATS(TWO, "mul", a * b), FLOATS(TWO, "mul.rn", a * b),
    {"mul.wide.s16", DO { OUT((s32)IN(s16, 1) * IN(s16, 2)); }},
    {"mul.wide.u16", DO { OUT((u32)IN(u16, 1) * (u32)IN(u16, 2)); }},
    {"mul.wide.s32", DO { OUT((s64)IN(s32, 1) * IN(s32, 2)); }},
    {"mul.wide.u32", DO { OUT((u64)IN(u32, 1) * IN(u32, 2)); }},
    INTEGERS(THREE, "mad.lo", plus(times(a, b), d)), INTEGERS(THREE, "mad.hi", plus(high(a, b), d)),
    {"mad.wide.s32", DO { OUT((s64)IN(s32, 1) * IN(s32, 2) + IN(s64, 3)); }},
    {"mad.wide.u32", DO { OUT((u64)IN(u32, 1) * IN(u32, 2) + IN(u64, 3)); }},
    INTEGERS(TWO, "div", quotient(a, b)), INTEGERS(TWO, "rem", rest(a, b)),
    FLOATS(TWO, "div.rn", a / b), FLOATS(THREE, "fma.rn", fma(a, b, d)),
    {"fma.rm.f32", DO { OUT(fma_down(IN(f32, 1), IN(f32, 2), IN(f32, 3))); }},
    {"add.cc.u32", DO { OUT(with_carry(t, (u64)IN(u32, 1) + IN(u32, 2))); }},
    {"addc.cc.u32", DO { OUT(with_carry(t, (u64)IN(u32, 1) + IN(u32, 2) + t->carry)); }},
    {"addc.u32", DO { OUT(IN(u32, 1) + IN(u32, 2) + t->carry); }},
    {"sub.cc.u32", DO { OUT(with_borrow(t, IN(u32, 1), IN(u32, 2))); }},
    {"subc.cc.u32", DO { OUT(with_borrow(t, IN(u32, 1), (u64)IN(u32, 2) + t->carry)); }},
    {"subc.u32", DO { OUT(IN(u32, 1) - IN(u32, 2) - t->carry); }},
    {"mad.lo.cc.u32", DO { OUT(with_carry(t, (u64)times(IN(u32, 1), IN(u32, 2)) + IN(u32, 3))); }},
    {"madc.lo.cc.u32", DO { OUT(with_carry(t, (u64)times(IN(u32, 1), IN(u32, 2)) + IN(u32, 3) + t->carry)); }},
    {"madc.hi.cc.u32", DO { OUT(with_carry(t, (u64)high(IN(u32, 1), IN(u32, 2)) + IN(u32, 3) + t->carry)); }},
    {"madc.hi.u32", DO { OUT(high(IN(u32, 1), IN(u32, 2)) + IN(u32, 3) + t->carry); }},
    INTEGERS(ONE, "neg", minus((decltype(a))0, a)), FLOATS(ONE, "neg", -a),
    ONE("abs", s16, a < 0 ? -a : a), ONE("abs", s32, a < 0 ? minus(0, a) : a), ONE("abs", s64, a < 0 ? minus(s64(0), a) : a),
    FLOATS(ONE, "abs", fabs(a)),
    INTEGERS(TWO, "min", std::min(a, b)), INTEGERS(TWO, "max", std::max(a, b)),
    FLOATS(TWO, "min", fmin(a, b)), FLOATS(TWO, "max", fmax(a, b)),
    BITS(TWO, "and", a & b), BITS(TWO, "or", a | b), BITS(TWO, "xor", a ^ b),
    ONE("not", b16, ~a), ONE("not", b32, ~a), ONE("not", b64, ~a), ONE("not", pred, !a),
    SHIFT("shl", b16, left), SHIFT("shl", b32, left), SHIFT("shl", b64, left),
    SHIFT("shr", u16, right), SHIFT("shr", s16, right), SHIFT("shr", u32, right), SHIFT("shr", s32, right),
    SHIFT("shr", u64, right), SHIFT("shr", s64, right),
    SHIFT("shr", b16, right), SHIFT("shr", b32, right), SHIFT("shr", b64, right),
    INSERT(b32), INSERT(b64),
    {"clz.b32", DO { u32 a = IN(u32, 1); OUT(a ? (u32)__builtin_clz(a) : 32u); }},
    {"clz.b64", DO { u64 a = IN(u64, 1); OUT(a ? (u32)__builtin_clzll(a) : 64u); }},
    {"popc.b32", DO { OUT((u32)__builtin_popcount(IN(u32, 1))); }},
    {"popc.b64", DO { OUT((u32)__builtin_popcountll(IN(u64, 1))); }},

    FLOATS(ONE, "sqrt.rn", sqrt(a)), FLOATS(ONE, "rcp.rn", 1 / a),
    ONE("rsqrt.approx", f32, 1 / sqrtf(a)), ONE("rcp.approx", f32, 1 / a),
    ONE("rcp.approx.ftz", f32, flushed(1 / flushed(a))),
    ONE("rcp.approx.ftz", f64, guessed_inverse(a)),
    ONE("ex2.approx", f32, exp2f(a)), ONE("ex2.approx.ftz", f32, flushed(exp2f(flushed(a)))),
    ONE("lg2.approx", f32, log2f(a)), ONE("lg2.approx.ftz", f32, log2f(flushed(a))),
    ONE("sin.approx", f32, sinf(a)), ONE("cos.approx", f32, cosf(a)),

    COMPARE_ALL("eq", a == b), COMPARE_ALL("ne", a != b), COMPARE_ALL("lt", a < b), COMPARE_ALL("le", a <= b),
    COMPARE_ALL("gt", a > b), COMPARE_ALL("ge", a >= b),
    COMPARE_ALL("lo", a < b), COMPARE_ALL("ls", a <= b), COMPARE_ALL("hi", a > b), COMPARE_ALL("hs", a >= b),
    COMPARE_FLOATS("eq", a == b), COMPARE_FLOATS("ne", a != b), COMPARE_FLOATS("lt", a < b),
    COMPARE_FLOATS("le", a <= b), COMPARE_FLOATS("gt", a > b), COMPARE_FLOATS("ge", a >= b),
    COMPARE("nan", f32, a != a || b != b), COMPARE("nan", f64, a != a || b != b),
    COMPARE("num", f32, a == a && b == b), COMPARE("num", f64, a == a && b == b),
#define SELECT(T) {"selp." #T, DO { OUT(IN(bool, 3) ? IN(T, 1) : IN(T, 2)); }}
    SELECT(b16), SELECT(b32), SELECT(b64), SELECT(u16), SELECT(u32), SELECT(u64), SELECT(s16), SELECT(s32),
    SELECT(s64), SELECT(f32), SELECT(f64),

#define MOVE(T) {"mov." #T, DO { OUT((T)(IN(T, 1) + (T)c->offset[1])); }}
    MOVE(b16), MOVE(b32), MOVE(b64), MOVE(u16), MOVE(u32), MOVE(u64), MOVE(s16), MOVE(s32), MOVE(s64),
    {"mov.f32", DO { OUT(IN(u32, 1)); }}, {"mov.f64", DO { OUT(IN(u64, 1)); }}, {"mov.pred", DO { OUT(IN(u8, 1) != 0); }},
    {"mov.pack", DO {
         u64 v = 0;
         int n = (int)c->at.size() - 1, bits = 8 * c->bytes / n;
         for (int i = 0; i < n; i++) v |= (IN(u64, i + 1) & (~0ull >> (64 - bits))) << (i * bits);
         OUT(v);
     }},
    {"mov.unpack", DO {
         int n = (int)c->at.size() - 1, bits = 8 * c->bytes / n;
         u64 v = IN(u64, n);
         for (int i = 0; i < n; i++) ptx_put(t, c, i, v >> (i * bits) & (~0ull >> (64 - bits)));
     }},
#define SAME(name) {name, DO { OUT(IN(u64, 1) + (u64)(s64)c->offset[1]); }}
    SAME("cvta.to.global.u64"), SAME("cvta.global.u64"), SAME("cvta.local.u64"), SAME("cvta.to.local.u64"),
    SAME("cvta.param.u64"), SAME("cvta.to.param.u64"),

    CVT_FROM_INTEGERS(s8), CVT_FROM_INTEGERS(u8), CVT_FROM_INTEGERS(s16), CVT_FROM_INTEGERS(u16),
    CVT_FROM_INTEGERS(s32), CVT_FROM_INTEGERS(u32), CVT_FROM_INTEGERS(s64), CVT_FROM_INTEGERS(u64),
    CVT_TO_FLOAT(f32), CVT_TO_FLOAT(f64),
    CVT_TO_INTEGER(s32, f32), CVT_TO_INTEGER(u32, f32), CVT_TO_INTEGER(s64, f32), CVT_TO_INTEGER(u64, f32),
    CVT_TO_INTEGER(s32, f64), CVT_TO_INTEGER(u32, f64), CVT_TO_INTEGER(s64, f64), CVT_TO_INTEGER(u64, f64),
    CVT(".rn", f32, f64, a), CVT("", f64, f32, a),
    CVT(".rzi", f32, f32, truncf(a)), CVT(".rni", f32, f32, nearbyintf(a)), CVT(".rmi", f32, f32, floorf(a)),
    CVT(".rpi", f32, f32, ceilf(a)), CVT(".rzi", f64, f64, trunc(a)), CVT(".rni", f64, f64, nearbyint(a)),
    CVT(".rmi", f64, f64, floor(a)), CVT(".rpi", f64, f64, ceil(a)),
    CVT(".sat", f32, f32, a > 0 ? (a < 1 ? a : 1) : 0),
    {"cvt.rn.bf16.f32", DO { OUT(bf16_of(IN(f32, 1))); }},
    {"cvt.rn.bf16x2.f32", DO { OUT((u32)bf16_of(IN(f32, 1)) << 16 | bf16_of(IN(f32, 2))); }},
    {"cvt.f32.bf16", DO { OUT((u32)IN(u16, 1) << 16); }},

    {"ld", load}, {"st", store},
    {"ld.acquire", DO {
         u32 v;
         memcpy(&v, atomic_place(t, c, 1), sizeof v);
         watch_acquire((void *)(uintptr_t)ptx_address(t, c, 1));
         OUT(v);
     }},
    {"red.relaxed.gpu.global.add.u32", DO { *(u32 *)atomic_place(t, c, 0) += IN(u32, 1); }},
    {"red.release.gpu.global.add.u32", DO {
         *(u32 *)atomic_place(t, c, 0) += IN(u32, 1);
         watch_release((void *)(uintptr_t)ptx_address(t, c, 0));
     }},
    {"atom.global.add.u32", DO {
         u32 *p = (u32 *)atomic_place(t, c, 1), old = *p;
         *p += IN(u32, 2);
         OUT(old);
     }},

    {"bra", branch}, {"call", call}, {"ret", leave}, {"exit", leave},
    {"nanosleep.u32", DO { simt_sleep(); }},
    {"shfl.sync.bfly.b32", DO {
         shuffle(t, c, [](int lane, int by, int, int last, bool *in) { return *in = (lane ^ by) <= last, lane ^ by; });
     }},
    {"shfl.sync.idx.b32", DO {
         shuffle(t, c, [](int, int by, int first, int last, bool *in) {
             int from = first | (by & ~first & 31);
             return *in = from <= last, from;
         });
     }},
    {"shfl.sync.up.b32", DO {
         shuffle(t, c, [](int lane, int by, int first, int, bool *in) { return *in = lane - by >= first, lane - by; });
     }},
    {"shfl.sync.down.b32", DO {
         shuffle(t, c, [](int lane, int by, int, int last, bool *in) { return *in = lane + by <= last, lane + by; });
     }},
    {"vote.sync.any.pred", DO { OUT((bool)__any_sync(IN(u32, 2), IN(bool, 1))); }},
    {"vote.sync.all.pred", DO { OUT((bool)__all_sync(IN(u32, 2), IN(bool, 1))); }},
    {"vote.sync.ballot.b32", DO { OUT(__ballot_sync(IN(u32, 2), IN(bool, 1))); }},
    {"bar.warp.sync", warp_barrier}, {"bar.sync", block_barrier}, {"barrier.sync", block_barrier},
    {"bar.arrive", block_arrive},
    {"bar.red.or.pred", DO { OUT(block_count(t, c) > 0); }},
    {"bar.red.and.pred", DO { OUT(block_count(t, c) == simt_now->running); }},
    {"bar.red.popc.u32", DO { OUT((u32)block_count(t, c)); }},
};
// clang-format on

} // namespace

ptx_do *ptx_instruction(const std::string &name) {
    static std::unordered_map<std::string, ptx_do *> all;
    if (all.empty()) {
        for (auto &row : TABLE) all[row.name] = row.run;
        ptx_async_instructions([](const char *n, ptx_do *run) { all[n] = run; });
    }
    auto found = all.find(name);
    return found == all.end() ? NULL : found->second;
}
