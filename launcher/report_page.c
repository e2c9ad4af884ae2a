// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "launcher/report.h"

static const char style[] =
    ":root{color-scheme:light "
    "dark;--bg:#fbfbfd;--ink:#1c2230;--dim:#667085;--line:#e2e5ec;--card:#fff;--good:#0a7d4b;"
    "--bad:#c22f3d;--s0:#2563eb;--s1:#ea7a12;--s2:#0d9467;--s3:#9251d6;--s4:#8692a6;--s5:#dc3a4b;--s6:#"
    "0891b2;"
    "--s7:#a16207}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#0f121a;--ink:#e4e8f0;--dim:#98a2b3;--line:#2a3040;--card:#"
    "161b26;"
    "--good:#3ecf8e;--bad:#ff6b78;--s0:#5b9dff;--s1:#ff9d3c;--s2:#35c792;--s3:#bd8bff;--s4:#77839a;--s5:#"
    "ff6473;"
    "--s6:#35bfd9;--s7:#d8a23a}}\n"
    "body{background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:0 "
    "auto;"
    "padding:24px}h1{margin:0 0 4px}h2{margin:36px 0 10px;font-size:19px}.note,small{color:var(--dim)}"
    "small{display:block;font-size:11px;font-weight:400;white-space:nowrap}\n"
    "table{border-collapse:collapse;background:var(--card)}th,td{padding:6px 12px;border-bottom:1px solid "
    "var(--line);"
    "text-align:left;vertical-align:top}th{font-weight:600;font-size:13px}.n{text-align:right;font-variant-"
    "numeric:"
    "tabular-nums}.wide{overflow-x:auto}.wide td,.wide th{padding:5px 7px;font-size:13px}.wide "
    "small{font-size:9.5px}"
    ".pass{color:var(--good);font-weight:600}.miss{color:var(--bad);font-"
    "weight:600}"
    ".best{font-weight:700}.model td{background:color-mix(in srgb,var(--s0) 10%,transparent)}\n"
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:16px;margin-top:16px}"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px}"
    "figcaption{font-weight:600;font-size:13px;margin-bottom:6px}svg{width:100%;height:auto;display:block}"
    ".grid{stroke:var(--line)}.tick,.axis{fill:var(--dim);font-size:11px}.line{fill:none;stroke-width:1.8}"
    "ul.legend{list-style:none;margin:6px 0 0;padding:0;display:flex;flex-wrap:wrap;gap:4px "
    "16px;font-size:12px}"
    ".legend i{display:inline-block;width:14px;height:3px;margin-right:6px;vertical-align:middle}\n"
    ".s0{stroke:var(--s0)}.s1{stroke:var(--s1)}.s2{stroke:var(--s2)}.s3{stroke:var(--s3)}.s4{stroke:var(--s4)"
    "}"
    ".s5{stroke:var(--s5)}.s6{stroke:var(--s6)}.s7{stroke:var(--s7)}.dot{fill:var(--card);stroke-width:1.5}"
    "i.s0{background:var(--s0)}i.s1{background:var(--s1)}i.s2{background:var(--s2)}i.s3{background:var(--s3)}"
    "i.s4{background:var(--s4)}i.s5{background:var(--s5)}i.s6{background:var(--s6)}i.s7{background:var(--s7)}"
    "\n"
    "img{max-width:100%;image-rendering:pixelated;border-radius:8px}pre{overflow:auto;background:var(--card);"
    "border:1px solid var(--line);border-radius:8px;padding:12px;font-size:12px}.none{color:var(--dim)}"
    ".bar{display:flex;height:18px;border-radius:6px;overflow:hidden;background:var(--line);max-width:900px}"
    "code{background:var(--line);padding:1px 5px;border-radius:4px}";

static int put_base64(struct buf *out, const struct buf *in, struct err *e) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)in->data;
    int rc = buf_reserve(out, out->len + in->len / 3 * 4 + 8, e);
    for (size_t i = 0; i < in->len && !rc; i += 3) {
        size_t left = in->len - i;
        uint32_t v =
            (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        char four[4] = {letters[v >> 18], letters[v >> 12 & 63], left > 1 ? letters[v >> 6 & 63] : '=',
                        left > 2 ? letters[v & 63] : '='};
        rc = buf_append(out, four, 4, e);
    }
    return rc;
}

static int put_image(struct buf *out, const char *type, const char *words, const struct buf *image,
                     struct err *e) {
    int rc = buf_appendf(out, e, "<p><img alt=\"%s\" src=\"data:image/%s;base64,", words, type);
    if (!rc) rc = put_base64(out, image, e);
    return rc ? rc : buf_appends(out, "\"></p>\n", e);
}

static int put_missing(struct buf *out, const char *what, const char *verb, const char *run_dir,
                       struct err *e) {
    int rc = buf_appendf(out, e, "<p class=\"note\">%s: <code>orrery %s ", what, verb);
    if (!rc) rc = report_escape(out, run_dir, e);
    return rc ? rc : buf_appends(out, "</code> makes it.</p>\n", e);
}

static int put_title(const struct report_input *in, struct buf *out, struct err *e) {
    char now[CLOCK_ISO_BYTES];
    const struct json_value *run = in->run ? json_root(in->run) : NULL;
    const char *state = json_string_or(run, "state", NULL);
    int rc =
        buf_appends(out,
                    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
                    "content=\"width=device-width,initial-scale=1\"><title>Orrery: ",
                    e);
    if (!rc) rc = report_escape(out, in->run_dir, e);
    if (!rc) rc = buf_appendf(out, e, "</title><style>%s</style></head><body>\n<h1>", style);
    if (!rc) rc = report_escape(out, json_string_or(run, "id", in->run_dir), e);
    if (!rc) rc = buf_appends(out, "</h1><p class=\"note\">", e);
    if (!rc && state) rc = report_escape(out, state, e);
    if (!rc && state) rc = buf_appends(out, ", ", e);
    return rc ? rc
              : buf_appendf(out, e, "report of %s, orrery " ORRERY_VERSION "</p>\n",
                            clock_iso(clock_utc_ns(), now));
}

static int put_summary(const struct json_value *eval, struct buf *out, struct err *e) {
    int64_t passed = 0;
    size_t n = json_size(json_get(eval, "bars"));
    if (!n || !json_as_int(json_get(eval, "bars_passed"), &passed)) return 0;
    return buf_appendf(out, e, "<p class=\"%s\">%lld of %zu bars passed</p>\n",
                       (size_t)passed == n ? "pass" : "miss", (long long)passed, n);
}

static int put_pictures(const struct report_input *in, struct buf *out, struct err *e) {
    int rc = buf_appends(out, "<h2>Rollouts</h2>\n", e);
    if (rc) return rc;
    if (!in->gif.len && !in->strip.len) return put_missing(out, "No pictures yet", "rollout", in->run_dir, e);
    rc = buf_appends(
        out,
        "<p class=\"note\">Held-out sequences, the first in which something is touched and moves. "
        "Grey frame: given "
        "to the model; white frame: it goes on alone, told the commands (the arrow).</p>\n",
        e);
    if (!rc && in->gif.len) rc = put_image(out, "gif", "truth beside the model, moving", &in->gif, e);
    if (!rc && in->strip.len)
        rc = put_image(out, "png", "truth above the model, frame by frame", &in->strip, e);
    return rc;
}

static int put_curve(const char *title, const char *label, bool log_y, const struct report_series *s,
                     size_t n, struct buf *out, struct err *e) {
    struct report_chart c = {.title = title,
                             .x_label = "step",
                             .y_label = label,
                             .log_y = log_y,
                             .y_zero = !log_y,
                             .series = s,
                             .n = n};
    return report_chart_write(&c, out, e);
}

static int put_training(const struct report_curves *c, struct buf *out, struct err *e) {
    int rc = buf_appends(out, "<h2>Training</h2><div class=\"charts\">\n", e);
    if (!rc) rc = put_curve("Loss by modality", "loss", true, c->loss, c->n_loss, out, e);
    if (!rc) rc = put_curve("Learning rate", "rate", false, &c->lr, 1, out, e);
    if (!rc && c->speed.n) rc = put_curve("Sequences per second", "1/s", false, &c->speed, 1, out, e);
    if (!rc && c->grad_norm.n) rc = put_curve("Gradient norm", "norm", true, &c->grad_norm, 1, out, e);
    return rc ? rc : buf_appends(out, "</div>\n", e);
}

// ---- where the wall time went.
static bool is_category(const char *key) {
    const char *const others[] = {"total", "seconds", "time", "event"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!strcmp(key, others[i])) return false;
    return true;
}

typedef int category_fn(struct buf *out, const char *key, double seconds, double total, int colour,
                        struct err *e);

static int category_bar(struct buf *out, const char *key, double seconds, double total, int colour,
                        struct err *e) {
    (void)key;
    return buf_appendf(out, e, "<i class=\"s%d\" style=\"width:%.2f%%;background:var(--s%d)\"></i>", colour,
                       100 * seconds / total, colour);
}

static int category_line(struct buf *out, const char *key, double seconds, double total, int colour,
                         struct err *e) {
    int rc = buf_appendf(out, e, "<tr><td><ul class=\"legend\"><li><i class=\"s%d\"></i>", colour);
    for (; *key && !rc; key++) rc = report_escape(out, *key == '_' ? " " : (const char[]){*key, 0}, e);
    return rc ? rc
              : buf_appendf(out, e,
                            "</li></ul></td><td class=\"n\">%.1f s</td><td class=\"n\">%.1f %%</td></tr>\n",
                            seconds, 100 * seconds / total);
}

static int for_categories(const struct json_value *ledger, double total, category_fn *each, struct buf *out,
                          struct err *e) {
    const char *key;
    const struct json_value *v;
    double seconds;
    int rc = 0, colour = 0;
    for (size_t i = 0; json_member(ledger, i, &key, &v) && !rc; i++)
        if (is_category(key) && json_as_double(v, &seconds))
            rc = each(out, key, seconds, total, colour++ & 7, e);
    return rc;
}

static int put_ledger(const struct json *doc, struct buf *out, struct err *e) {
    const struct json_value *ledger = doc ? json_root(doc) : NULL;
    double total = json_double_or(ledger, "total", 0), productive = json_double_or(ledger, "productive", NAN);
    if (!(total > 0)) return 0;
    int rc =
        buf_appendf(out, e, "<h2>Wall time</h2><p>Goodput <b>%.1f %%</b> of %.1f s</p><div class=\"bar\">",
                    100 * productive / total, total);
    if (!rc) rc = for_categories(ledger, total, category_bar, out, e);
    if (!rc) rc = buf_appends(out, "</div><table><tbody>\n", e);
    if (!rc) rc = for_categories(ledger, total, category_line, out, e);
    return rc ? rc : buf_appends(out, "</tbody></table>\n", e);
}

static int put_config(const struct buf *config, struct buf *out, struct err *e) {
    if (!config->len) return 0;
    int rc = buf_appends(
        out,
        "<h2>Configuration</h2><details><summary>config.yaml, every value with its origin</summary>"
        "<pre>",
        e);
    if (!rc) rc = report_escape(out, config->data, e);
    return rc ? rc : buf_appends(out, "</pre></details>\n", e);
}

int report_write(const struct report_input *in, struct buf *out, struct err *e) {
    const struct json_value *eval = in->eval ? json_root(in->eval) : NULL;
    int rc = put_title(in, out, e);
    if (!rc && eval) rc = put_summary(eval, out, e);
    if (!rc) rc = put_pictures(in, out, e);
    if (!rc)
        rc = eval ? report_write_eval(eval, out, e)
                  : put_missing(out, "No evaluation yet", "eval", in->run_dir, e);
    if (!rc) rc = put_training(&in->curves, out, e);
    if (!rc) rc = put_ledger(in->ledger, out, e);
    if (!rc) rc = put_config(&in->config, out, e);
    return rc ? rc : buf_appends(out, "</body></html>\n", e);
}
