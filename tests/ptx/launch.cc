// SPDX-License-Identifier: Apache-2.0
// Launches of the emulator that run what nvcc made of a kernel instead of its C++.
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <fstream>

#include "tests/ptx/machine.h"

namespace {

std::map<std::string, ptx_kernel> &kernels() { // asked for before the program's main
    static std::map<std::string, ptx_kernel> all;
    return all;
}

// ---- which kernel a pointer is: the symbol table of the program or library that holds it

struct symbols {
    std::map<uintptr_t, std::string> names;
};

std::string read_all(const char *path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
}

symbols symbols_of(const char *path) {
    symbols out;
    std::string image = read_all(path);
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)image.data();
    const Elf64_Shdr *section = (const Elf64_Shdr *)(image.data() + head->e_shoff);
    for (int i = 0; i < head->e_shnum; i++) {
        if (section[i].sh_type != SHT_SYMTAB) continue;
        const Elf64_Sym *s = (const Elf64_Sym *)(image.data() + section[i].sh_offset);
        const char *text = image.data() + section[section[i].sh_link].sh_offset;
        for (size_t n = section[i].sh_size / sizeof *s; n > 0; n--, s++)
            if (ELF64_ST_TYPE(s->st_info) == STT_FUNC) out.names[s->st_value] = text + s->st_name;
    }
    return out;
}

std::map<const void *, ptx_kernel *> known;

ptx_kernel *kernel_at(const void *function) {
    static std::map<std::string, symbols> files;
    auto found = known.find(function);
    if (found != known.end()) return found->second;
    Dl_info info;
    if (!dladdr(function, &info)) simt_fail("a kernel at %p, in no file", function);
    auto file = files.find(info.dli_fname);
    if (file == files.end()) file = files.emplace(info.dli_fname, symbols_of(info.dli_fname)).first;
    uintptr_t at = (uintptr_t)function - (uintptr_t)info.dli_fbase;
    std::string name = ptx_plain_name(file->second.names[at].c_str());
    auto kernel = kernels().find(name);
    if (kernel == kernels().end()) simt_fail("no PTX of kernel %s", name.c_str());
    return known[function] = &kernel->second;
}

// ---- a thread

uint64_t special(const std::string &name) {
    const struct simt_block &block = *simt_now;
    const simt_thread *me = simt_self;
    size_t dot = name.find('.');
    std::string what = name.substr(0, dot);
    char axis = dot == std::string::npos ? 'x' : name[dot + 1];
    auto pick = [axis](unsigned x, unsigned y, unsigned z) {
        return (uint64_t)(axis == 'x' ? x : axis == 'y' ? y : z);
    };
    if (what == "%tid") return pick(me->tid.x, me->tid.y, me->tid.z);
    if (what == "%ctaid") return pick(block.index.x, block.index.y, block.index.z);
    if (what == "%ntid") return pick(block.dim.x, block.dim.y, block.dim.z);
    if (what == "%nctaid") return pick(block.grid.x, block.grid.y, block.grid.z);
    if (what == "%laneid") return (uint64_t)me->lane;
    if (what == "%cluster_ctarank") return (uint64_t)block.rank;
    simt_fail("%s is not modelled", name.c_str());
    return 0;
}

void begin(ptx_run *t, const ptx_kernel *k, const unsigned char *params) {
    size_t dynamic = (k->static_shared + 1023) / 1024 * 1024;
    for (const ptx_preset &p : k->presets) {
        uint64_t v = p.value;
        if (p.kind == ptx_preset::DYNAMIC) v = dynamic;
        if (p.kind == ptx_preset::LOCAL) v += (uint64_t)(uintptr_t)t->local;
        if (p.kind == ptx_preset::PARAM) v += (uint64_t)(uintptr_t)params;
        t->r[p.at] = v;
    }
    for (const ptx_special &s : k->specials) t->r[s.at] = special(s.name);
}

void run_thread(ptx_kernel *k, const unsigned char *params) {
    std::vector<uint64_t> registers((size_t)k->registers, 0xfff7dead7fc0dead); // NaN, in both widths
    std::vector<unsigned char> local(k->local_bytes + 1, 0xff);
    ptx_run t = {k, params, registers.data(), local.data(), 0, false, false, {}, NULL};
    begin(&t, k, params);
    while (!t.over) {
        ptx_code *c = &k->code[(size_t)t.at++];
        if (c->guard >= 0 && ((t.r[c->guard] & 1) != 0) == c->unless) continue;
        if (c->run == NULL) ptx_fail(c, "is not modelled");
        c->runs++;
        c->run(&t, c);
    }
}

void launch(const void *function, dim3 grid, dim3 block, size_t bytes, int cluster,
            const unsigned char *params, size_t param_bytes) {
    ptx_kernel *k = kernel_at(function);
    if (k->param_bytes != param_bytes)
        simt_fail("%s: %zu bytes of arguments, %zu expected", k->name.c_str(), param_bytes, k->param_bytes);
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (k->most_threads > 0 && threads > (uint64_t)k->most_threads)
        simt_fail("%s: %llu threads, at most %d", k->name.c_str(), (unsigned long long)threads,
                  k->most_threads);
    size_t shared = bytes == 0 ? k->static_shared : (k->static_shared + 1023) / 1024 * 1024 + bytes;
    bool copies = false;
    for (const ptx_code &c : k->code) copies = copies || strncmp(c.name, "cp.async.cg", 11) == 0;
    watch_launch();
    k->launches++;
    auto run = [&] {
        for (int i = 0; i < simt_now->cluster; i++)
            if (simt_now->of_cluster[i]->witness == NULL) watch_block(simt_now->of_cluster[i], copies);
        run_thread(k, params);
    };
    simt_launch(grid, block, shared, run, cluster);
}

const struct simt_witness witness = {watch_allocated, watch_freed, watch_written, watch_copied};

void tell_what_ran() {
    const char *folder = getenv("ORRERY_PTX_RAN");
    if (folder == NULL) return;
    std::ofstream out(std::string(folder) + "/" + std::to_string(getpid()));
    for (auto &k : kernels()) {
        size_t n = 0;
        out << k.first << '\t' << k.second.launches << '\t' << k.second.bytes_read << '\t'
            << k.second.bytes_written << '\n';
        for (const ptx_code &c : k.second.code)
            out << k.first << '\t' << n++ << '\t' << c.name << '\t' << c.file << ':' << c.line << '\t'
                << c.runs << '\n';
    }
}

} // namespace

void ptx_fail(const ptx_code *c, const char *format, ...) {
    char text[1000];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    simt_fail("%s:%d (%s): %s", c->file, c->line, c->name, text);
    abort();
}

void ptx_use(const char *folder) {
    known.clear();
    if (folder != NULL) kernels() = ptx_read_folder(folder);
    simt_instead = folder != NULL ? launch : NULL;
    simt_watched = folder != NULL ? &witness : NULL;
    simt_phase_over = folder != NULL ? watch_mbar_over : NULL;
}

__attribute__((constructor)) static void use_what_is_named() {
    const char *folder = getenv("ORRERY_PTX");
    if (folder == NULL) return;
    ptx_use(folder);
    atexit(tell_what_ran);
}
