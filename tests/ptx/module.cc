// SPDX-License-Identifier: Apache-2.0
// The reader of PTX text.
#include "tests/ptx/module.h"

#include <cxxabi.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <sstream>

#include "tests/ptx/watch.h"

namespace {

[[noreturn]] void give_up(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fprintf(stderr, "ptx: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    va_end(list);
    exit(1);
}

// Names of instructions and files stay as long as the program.
const char *kept(const std::string &text) {
    static std::map<std::string, int> all;
    return all.emplace(text, 0).first->first.c_str();
}

// ---- words

struct word {
    std::string text;
    const char *file;
    int line;
};

int number_of(const std::string &w) {
    return (int)strtol(w.c_str(), nullptr, 10);
}

bool is_name_char(char c) {
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.';
}

struct text {
    std::vector<word> words;
    std::map<int, const char *> files;
    const char *file = "?";
    int line = 0;

    void add(const std::string &s) { words.push_back({s, file, line}); }
    void cut(const std::string &s) {
        for (size_t i = 0; i < s.size();) {
            size_t from = i;
            if (isspace((unsigned char)s[i])) {
                i++;
            } else if (s[i] == '"') {
                i = s.find('"', i + 1) + 1;
                add(s.substr(from, i - from));
            } else if (is_name_char(s[i]) ||
                       (s[i] == '-' && i + 1 < s.size() && isdigit((unsigned char)s[i + 1]))) {
                for (i++; i < s.size(); i++) {
                    bool twin = s[i] == ':' && i + 1 < s.size() && s[i + 1] == ':';
                    if (twin) i++;
                    if (!twin && !is_name_char(s[i])) break;
                }
                add(s.substr(from, i - from));
            } else {
                add(s.substr(i++, 1));
            }
        }
    }
};

void cut_file(const std::string &path, text *out) {
    std::ifstream in(path);
    if (!in) give_up("cannot read %s", path.c_str());
    std::vector<std::string> lines;
    for (std::string s; std::getline(in, s);) {
        size_t comment = s.find("//");
        lines.push_back(comment == std::string::npos ? s : s.substr(0, comment));
        int number;
        char name[1000];
        if (sscanf(s.c_str(), " .file %d \"%999[^\"]\"", &number, name) == 2) {
            const char *base = strrchr(name, '/');
            out->files[number] = kept(base ? base + 1 : name);
        }
    }
    for (const std::string &s : lines) {
        int file, line;
        if (s.find(".section") != std::string::npos) break; // debug information
        if (sscanf(s.c_str(), " .loc %d %d", &file, &line) == 2) {
            out->file = out->files[file];
            out->line = line;
            continue;
        }
        static const char *const skipped[] = {".version", ".target", ".address_size", ".file"};
        if (std::none_of(skipped, skipped + 4,
                         [&](const char *w) { return s.find(w) == s.find_first_not_of(" \t"); }))
            out->cut(s);
    }
}

// ---- kernels

struct symbol {
    enum { REGISTER, SHARED, DYNAMIC, LOCAL, PARAM, GLOBAL } kind;
    int at;          // register
    uint64_t offset; // or address
};

struct scope {
    std::map<std::string, symbol> names;
    std::map<std::string, int> labels;
    std::vector<std::pair<size_t, std::string>> jumps; // of instructions, to labels
};

size_t bytes_of(const std::string &type) {
    if (type == ".pred") return 1;
    return (size_t)number_of(type.substr(type.find_first_of("0123456789"))) / 8;
}

size_t aligned(size_t at, size_t to) {
    return (at + to - 1) / to * to;
}

class reader {
  public:
    reader(const text &t, std::map<std::string, ptx_kernel> *out) : words(t.words), out(out) {}

    void file() {
        while (at < words.size()) {
            if (is(".func")) {
                size_t start = at;
                std::string name = skip_function();
                if (name != "") functions.push_back({name, start});
            } else if (is(".entry")) {
                entry();
            } else if (is(".global") || is(".const")) {
                module_variable();
            } else if (is(".extern") && words[at + 1].text == ".shared") {
                next(), next();
                std::string name = declared(nullptr, nullptr);
                module_names[name] = {symbol::DYNAMIC, 0, 0};
                take(";");
            } else {
                next(); // .visible and the like
            }
        }
    }

  private:
    const std::vector<word> &words;
    std::map<std::string, ptx_kernel> *out;
    size_t at = 0;
    std::map<std::string, symbol> module_names;
    std::vector<std::pair<std::string, size_t>> functions; // name, its first word
    std::map<std::string, std::vector<size_t>> called;     // of the kernel that is read: by name, calls

    ptx_kernel k;
    std::vector<scope> scopes;
    std::map<std::string, int> constants, special;

    bool is(const char *s) const { return at < words.size() && words[at].text == s; }
    const std::string &next() {
        if (at >= words.size()) give_up("the text ends early");
        return words[at++].text;
    }
    void take(const char *s) {
        if (!is(s))
            give_up("%s:%d: %s expected, %s found", words[at].file, words[at].line, s,
                    words[at].text.c_str());
        at++;
    }
    bool took(const char *s) {
        bool yes = is(s);
        if (yes) at++;
        return yes;
    }
    void skip_body() {
        take("{");
        for (int depth = 1; depth > 0;) {
            const std::string &w = next();
            depth += w == "{" ? 1 : w == "}" ? -1 : 0;
        }
    }

    // [.align N] .type name[count] -> name, with its size and alignment.
    std::string declared(size_t *size, size_t *align) {
        size_t n = 1, to = 0, one = 0;
        std::string name;
        while (is(".align") || words[at].text[0] == '.') {
            if (took(".align")) {
                to = (size_t)number_of(next());
            } else if (is(".b8") || isdigit((unsigned char)words[at].text.back())) {
                one = bytes_of(next());
            } else {
                next(); // .ptr, .global and other hints
            }
        }
        name = next();
        if (took("[")) {
            n = is("]") ? 0 : (size_t)number_of(next());
            take("]");
        }
        if (size) *size = n * one;
        if (align) *align = to ? to : one;
        return name;
    }

    void module_variable() {
        size_t size, align, from = at;
        next();
        std::string name = declared(&size, &align);
        bool of_bytes = std::any_of(words.begin() + (ptrdiff_t)from, words.begin() + (ptrdiff_t)at,
                                    [](const word &w) { return w.text == ".b8" || w.text == ".u8"; });
        if (is("=") && !of_bytes) give_up("%s: only values in bytes are read", name.c_str());
        unsigned char *memory = (unsigned char *)aligned_alloc(256, aligned(size ? size : 1, 256));
        memset(memory, 0, size);
        if (took("=")) {
            size_t n = 0;
            take("{");
            while (!took("}")) {
                if (!took(",") && n < size) memory[n++] = (unsigned char)number_of(next());
            }
        }
        take(";");
        watch_allocated(memory, size);
        watch_written(memory, size);
        module_names[name] = {symbol::GLOBAL, 0, (uint64_t)(uintptr_t)memory};
    }

    std::string skip_function() {
        take(".func");
        if (is("(")) {
            while (next() != ")") {
            }
        }
        std::string name = next();
        if (is("(")) {
            while (next() != ")") {
            }
        }
        while (!is(";") && !is("{")) next();
        if (took(";")) return "";
        skip_body();
        return name;
    }

    int new_register() { return k.registers++; }
    int constant(uint64_t value) { return preset(ptx_preset::VALUE, value); }
    int preset(int kind, uint64_t value) {
        std::string key = std::to_string(kind) + " " + std::to_string(value);
        auto found = constants.find(key);
        if (found != constants.end()) return found->second;
        int r = new_register();
        ptx_preset p;
        p.at = r, p.value = value;
        p.kind = (decltype(p.kind))kind;
        k.presets.push_back(p);
        return constants[key] = r;
    }

    void begin(const std::string &name) {
        k = ptx_kernel();
        k.name = name;
        scopes.clear();
        scopes.push_back({module_names, {}, {}});
        constants.clear();
        special.clear();
        called.clear();
    }

    void entry() {
        take(".entry");
        begin(next());
        take("(");
        while (!took(")")) {
            if (took(",")) continue;
            size_t size, align;
            take(".param");
            std::string name = declared(&size, &align);
            k.param_bytes = aligned(k.param_bytes, align);
            scopes[0].names[name] = {symbol::PARAM, 0, k.param_bytes};
            k.param_bytes += size;
        }
        while (!is("{")) { // .maxntid and the like
            if (!took(".maxntid")) {
                next();
                continue;
            }
            k.most_threads = number_of(next());
            while (took(",")) k.most_threads *= number_of(next());
        }
        body();
        add_functions();
        if (!scopes[0].jumps.empty())
            give_up("%s: no label %s", k.name.c_str(), scopes[0].jumps[0].second.c_str());
        (*out)[ptx_plain_name(k.name.c_str())] = k;
    }

    // The functions that the kernel calls, each once, behind it.
    void add_functions() {
        size_t here = at;
        std::map<std::string, std::vector<size_t>> calls = called;
        for (auto &c : calls) {
            auto text =
                std::find_if(functions.begin(), functions.end(), [&](auto &f) { return f.first == c.first; });
            if (text == functions.end()) text = find_later(c.first);
            ptx_function f = {c.first, (int)k.code.size(), 0, 0, 0, 0};
            at = text->second;
            take(".func");
            scopes.push_back({});
            if (took("(")) f.result = parameter(&f.result_bytes);
            next();
            take("(");
            f.in = parameter(&f.in_bytes);
            body();
            scopes.pop_back();
            for (size_t i : c.second) k.code[i].target = (int)k.functions.size();
            k.functions.push_back(f);
        }
        at = here;
    }
    std::vector<std::pair<std::string, size_t>>::iterator find_later(const std::string &name) {
        for (size_t i = at; i < words.size(); i++) {
            if (words[i].text != ".func") continue;
            at = i;
            size_t start = at;
            if (skip_function() != name) continue;
            functions.push_back({name, start});
            return functions.end() - 1;
        }
        give_up("%s: no function %s", k.name.c_str(), name.c_str());
    }
    // One parameter and the parenthesis behind it.
    int parameter(int *bytes) {
        size_t size, align;
        take(".param");
        std::string name = declared(&size, &align);
        take(")");
        k.local_bytes = aligned(k.local_bytes, align);
        int offset = (int)k.local_bytes;
        scopes.back().names[name] = {symbol::LOCAL, 0, k.local_bytes};
        k.local_bytes += size;
        *bytes = (int)size;
        return offset;
    }

    void body() {
        take("{");
        scopes.push_back({});
        while (!is("}")) statement();
        next();
        scope s = scopes.back();
        scopes.pop_back();
        for (auto &jump : s.jumps) {
            auto label = s.labels.find(jump.second);
            if (label != s.labels.end()) {
                k.code[jump.first].target = label->second;
            } else {
                scopes.back().jumps.push_back(jump); // a label further out
            }
        }
    }

    void statement() {
        if (is("{")) return body();
        if (words[at].text[0] == '.') return declaration();
        if (words[at + 1].text == ":") {
            scopes.back().labels[next()] = (int)k.code.size();
            take(":");
            return;
        }
        instruction();
    }

    void declaration() {
        std::string what = next();
        if (what == ".reg") {
            next(); // type
            do {
                std::string name = next();
                if (took("<")) {
                    int n = number_of(next());
                    take(">");
                    for (int i = 0; i < n; i++)
                        scopes.back().names[name + std::to_string(i)] = {symbol::REGISTER, new_register(), 0};
                } else {
                    scopes.back().names[name] = {symbol::REGISTER, new_register(), 0};
                }
            } while (took(","));
        } else if (what == ".shared" || what == ".local" || what == ".param") {
            size_t size, align;
            std::string name = declared(&size, &align);
            bool shared = what == ".shared";
            size_t *end = shared ? &k.static_shared : &k.local_bytes;
            *end = aligned(*end, align);
            scopes.back().names[name] = {shared ? symbol::SHARED : symbol::LOCAL, 0, *end};
            *end += size;
        } else {
            while (!is(";")) next();
        }
        take(";");
    }

    const symbol *find(const std::string &name) const {
        for (size_t i = scopes.size(); i-- > 0;) {
            auto found = scopes[i].names.find(name);
            if (found != scopes[i].names.end()) return &found->second;
        }
        return nullptr;
    }

    int place(const std::string &w) {
        const symbol *s = find(w);
        if (s) {
            switch (s->kind) {
            case symbol::REGISTER: return s->at;
            case symbol::SHARED: return preset(ptx_preset::SHARED, s->offset);
            case symbol::DYNAMIC: return preset(ptx_preset::DYNAMIC, 0);
            case symbol::LOCAL: return preset(ptx_preset::LOCAL, s->offset);
            case symbol::PARAM: return preset(ptx_preset::PARAM, s->offset);
            case symbol::GLOBAL: return constant(s->offset);
            }
        }
        if (w == "_") return constant(0);
        if (w == "WARP_SZ") return constant(32);
        if (w[0] == '%') {
            auto found = special.find(w);
            if (found != special.end()) return found->second;
            int r = special[w] = new_register();
            k.specials.push_back({r, w});
            return r;
        }
        if (w.compare(0, 2, "0f") == 0 || w.compare(0, 2, "0F") == 0 || w.compare(0, 2, "0d") == 0 ||
            w.compare(0, 2, "0D") == 0)
            return constant(strtoull(w.c_str() + 2, nullptr, 16));
        char *end;
        uint64_t v = w[0] == '-' ? (uint64_t)strtoll(w.c_str(), &end, 0) : strtoull(w.c_str(), &end, 0);
        if (*end == 'U') end++;
        if (*end != 0) give_up("%s: what is %s?", k.name.c_str(), w.c_str());
        return constant(v);
    }

    void operand(ptx_code *c) {
        if (took("{")) {
            do operand(c);
            while (took(","));
            take("}");
            return;
        }
        if (took("[")) {
            do operand(c);
            while (took(","));
            take("]");
            return;
        }
        if (took("!")) give_up("%s: negated operands are not read", k.name.c_str());
        c->at.push_back(place(next()));
        c->offset.push_back(took("+") ? number_of(next()) : 0);
    }

    void call(ptx_code *c) {
        take("(");
        operand(c); // result
        take(")"), take(",");
        std::string name = next();
        take(","), take("(");
        operand(c);
        take(")");
        called[name].push_back(k.code.size());
    }

    void instruction() {
        ptx_code c = {};
        c.guard = c.target = -1;
        if (took("@")) {
            c.unless = took("!");
            c.guard = place(next());
        }
        std::string name = words[at].text;
        c.file = words[at].file, c.line = words[at].line;
        next();
        if (name == "bra" || name == "bra.uni") {
            scopes.back().jumps.push_back({k.code.size(), next()});
            name = "bra";
        } else if (name == "call.uni" || name == "call") {
            call(&c);
            name = "call";
        } else {
            for (int i = 0; !is(";"); i++) {
                size_t before = c.at.size();
                operand(&c);
                if (i == 0) c.first = (int)(c.at.size() - before);
                if (i == 1) c.second = (int)(c.at.size() - before);
                if (!took("|")) took(",");
            }
        }
        take(";");
        decode(name, &c);
        k.code.push_back(c);
    }

    void decode(const std::string &name, ptx_code *c) {
        std::string kind = name.substr(0, name.find('.'));
        c->name = kept(name);
        bool async = name.compare(0, 9, "st.async.") == 0;
        if ((kind == "ld" || kind == "st") && !async) return decode_memory(name, c);
        std::string form = name;
        if (kind == "mov" && (c->first > 1 || c->second > 1)) form = c->first > 1 ? "mov.unpack" : "mov.pack";
        if (name.compare(0, 6, "wgmma.") == 0 || name.compare(0, 13, "cp.async.bulk") == 0)
            k.has_async = true;
        c->run = ptx_instruction(form);
        for (char d : name.substr(name.rfind('.') + 1)) // the last type's width
            if (isdigit((unsigned char)d)) c->bytes = c->bytes * 10 + (d - '0');
        c->bytes /= 8;
    }

    void decode_memory(const std::string &name, ptx_code *c) {
        std::stringstream parts(name);
        c->count = 1;
        for (std::string p; std::getline(parts, p, '.');) {
            if (p == "global") c->space = PTX_GLOBAL;
            if (p.compare(0, 6, "shared") == 0) c->space = PTX_SHARED;
            if (p == "local") c->space = PTX_LOCAL;
            if (p == "param") c->space = PTX_PARAM;
            if (p == "volatile") c->is_volatile = true;
            if (p == "v2") c->count = 2;
            if (p == "v4") c->count = 4;
            if (strchr("busf", p[0]) && p.size() > 1 && isdigit((unsigned char)p[1])) {
                c->bytes = number_of(p.substr(1)) / 8;
                c->is_signed = p[0] == 's';
            }
        }
        c->run = ptx_instruction(name.substr(0, 2) +
                                 (name.find(".acquire") != std::string::npos ? ".acquire" : ""));
    }
};

} // namespace

std::string ptx_plain_name(const char *linker_name) {
    int status = 0;
    char *plain = abi::__cxa_demangle(linker_name, nullptr, nullptr, &status);
    std::string s = plain ? plain : linker_name;
    free(plain);
    return s;
}

std::map<std::string, ptx_kernel> ptx_read_folder(const char *folder) {
    static std::deque<text> texts;
    std::map<std::string, ptx_kernel> out;
    DIR *d = opendir(folder);
    if (!d) give_up("cannot open %s", folder);
    while (struct dirent *f = readdir(d)) {
        std::string name = f->d_name;
        if (name.size() < 4 || name.substr(name.size() - 4) != ".ptx") continue;
        texts.emplace_back();
        cut_file(std::string(folder) + "/" + name, &texts.back());
        reader(texts.back(), &out).file();
        texts.pop_back();
    }
    closedir(d);
    return out;
}
