// SPDX-License-Identifier: Apache-2.0
// The CPU as a device: memory, the choice of the instruction set, and the team of threads (OpenMP, here
// only).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/team.h"

enum { CPU_ALIGN = 64, CPU_HUGE = 2 << 20 };

struct isa {
    const char *name;
    const struct ops *ops;
};

// Fastest first.
#define CPU_ISA(isa_name) extern const struct ops cpu_ops_##isa_name;
#include "kernels/cpu/isa.def"
#undef CPU_ISA

static bool isa_runs_here(const char *name) {
#if defined(__x86_64__)
    if (strcmp(name, "avx512") == 0) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("bmi2");
    }
    if (strcmp(name, "avx2") == 0) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("bmi2");
    }
#endif
    return strcmp(name, "portable") == 0;
}

static int isa_choose(struct isa *out, struct err *e) {
    static const struct isa table[] = {
#define CPU_ISA(isa_name) {#isa_name, &cpu_ops_##isa_name},
#include "kernels/cpu/isa.def"
#undef CPU_ISA
    };
    const char *wanted = getenv("ORRERY_ISA");
    if (wanted != NULL && wanted[0] == '\0') wanted = NULL;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (wanted != NULL && strcmp(wanted, table[i].name) != 0) continue;
        if (!isa_runs_here(table[i].name)) continue;
        *out = table[i];
        return 0;
    }
    return err_set(e, ERR_USAGE, "ORRERY_ISA=%s: not an instruction set of this build and this processor",
                   wanted);
}

// Large blocks ask for large pages, which spare the products most of their address translation.
static int host_alloc(void **out, size_t bytes, struct err *e) {
    size_t align = bytes >= CPU_HUGE ? CPU_HUGE : CPU_ALIGN;
    size_t whole = bytes > SIZE_MAX - align ? 0 : (bytes + align - 1) / align * align;
    if (bytes == 0) whole = align;
    *out = whole > 0 ? aligned_alloc(align, whole) : NULL;
    if (*out == NULL)
        return err_set(e, ERR_MEMORY,
                       "cpu: no memory for %zu bytes more; 'orrery plan CONFIG' says what takes how much: a "
                       "smaller model, "
                       "train.batch or data.frames, or more comm.shards, take less",
                       bytes);
    if (align == CPU_HUGE) (void)madvise(*out, whole, MADV_HUGEPAGE); // a wish; refusal changes nothing
    return 0;
}

static int cpu_alloc(struct device *d, void **out, size_t bytes, struct err *e) {
    return host_alloc(out, bytes, e);
}
static void cpu_release(struct device *d, void *p) {
    free(p);
}

static int cpu_copy_in(struct device *d, void *dst, const void *src, size_t bytes, struct err *e) {
    if (bytes > 0) memcpy(dst, src, bytes);
    return 0;
}

static int cpu_copy_out(struct device *d, void *dst, const void *src, size_t bytes, struct err *e) {
    if (bytes > 0) memcpy(dst, src, bytes);
    return 0;
}

static int cpu_zero(struct device *d, void *dst, size_t bytes, struct err *e) {
    if (bytes > 0) memset(dst, 0, bytes);
    return 0;
}

static int cpu_copy(struct device *d, void *dst, const void *src, size_t bytes, struct err *e) {
    if (bytes > 0) memcpy(dst, src, bytes);
    return 0;
}

struct add_job {
    float *dst;
    const float *a, *b;
    int64_t n;
};

enum { ADD_BLOCK = 1 << 16 };

static void add_task(void *arg, int64_t task) {
    const struct add_job *j = arg;
    int64_t lo = task * ADD_BLOCK, hi = cpu_min(j->n, lo + ADD_BLOCK);
    for (int64_t i = lo; i < hi; i++) j->dst[i] = j->a[i] + j->b[i];
}

static int cpu_add(struct device *d, float *dst, const float *a, const float *b, int64_t n, struct err *e) {
    struct add_job job = {dst, a, b, n};
    cpu_run(d, cpu_blocks(n, ADD_BLOCK), add_task, &job);
    return 0;
}

static int cpu_sync(struct device *d, struct err *e) {
    return 0;
}

static void cpu_close(struct device *d) {
    struct cpu_device *c = (struct cpu_device *)d;
    team_destroy(c->team);
    free(c->scratch);
    free(c);
}

// The processor's name as the kernel tells it.
static void read_model(char *out, size_t bytes) {
    snprintf(out, bytes, "processor");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (f == NULL) return;
    char line[256];
    while (fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(out, bytes, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    fclose(f);
}

static void cpu_describe(const struct device *d, struct device_info *out) {
    const struct cpu_device *c = (const struct cpu_device *)d;
    char model[96];
    read_model(model, sizeof model);
    snprintf(out->model, sizeof out->model, "%s, %s", model, c->isa);
    out->threads = d->threads;
    out->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    out->free_bytes = -1;
}

static const struct device_vtable cpu_vtable = {
    .name = "cpu",
    .alloc = cpu_alloc,
    .release = cpu_release,
    .copy_in = cpu_copy_in,
    .copy_out = cpu_copy_out,
    .zero = cpu_zero,
    .copy = cpu_copy,
    .add = cpu_add,
    .sync = cpu_sync,
    .describe = cpu_describe,
    .close = cpu_close,
};

int cpu_scratch(struct device *d, void **out, size_t bytes, struct err *e) {
    struct cpu_device *c = (struct cpu_device *)d;
    if (bytes > c->scratch_bytes) {
        void *larger = NULL;
        int rc = host_alloc(&larger, bytes, e);
        if (rc != 0) return rc;
        free(c->scratch);
        c->scratch = larger;
        c->scratch_bytes = bytes;
    }
    *out = c->scratch;
    return 0;
}

void cpu_run(struct device *d, int64_t tasks, cpu_task_fn *fn, void *arg) {
    team_run(((struct cpu_device *)d)->team, tasks, fn, arg);
}

int device_open_cpu(struct device **out, int threads, struct err *e) {
    struct isa isa = {0};
    int rc = isa_choose(&isa, e);
    if (rc != 0) return rc;
    if (threads < 0) return err_set(e, ERR_USAGE, "cpu: %d threads", threads);
    struct cpu_device *c = calloc(1, sizeof *c);
    if (c == NULL) return err_set(e, ERR_MEMORY, "cpu: no memory for the device");
    c->base.vtable = &cpu_vtable;
    c->base.ops = isa.ops;
    c->base.host_memory = true;
    c->base.compute = DTYPE_F32;
    c->base.threads = threads > 0 ? threads : team_default_threads();
    c->isa = isa.name;
    rc = team_create(&c->team, c->base.threads, e);
    if (rc != 0) {
        free(c);
        return rc;
    }
    *out = &c->base;
    return 0;
}
