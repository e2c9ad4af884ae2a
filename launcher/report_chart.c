// SPDX-License-Identifier: Apache-2.0
#include "launcher/report_chart.h"

#include <math.h>
#include <stdlib.h>

#define WIDTH      640.0
#define HEIGHT     260.0
#define LEFT       60.0
#define RIGHT      14.0
#define TOP        12.0
#define BOTTOM     40.0
#define TICKS      5
#define POINTS_MAX ((size_t)1 << 20)
#define VALUE_MAX  1e30 // larger ones are rubbish, and overflow the arithmetic of axes
#define DRAWN_MAX  1200 // points of a line; more are thinned out

int report_series_add(struct report_series *s, double x, double y, struct err *e) {
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        if (cap > POINTS_MAX) return err_set(e, ERR_DATA, "more than %zu points in a curve", POINTS_MAX);
        double *more_x = realloc(s->x, cap * sizeof *more_x);
        if (more_x) s->x = more_x;
        double *more_y = realloc(s->y, cap * sizeof *more_y);
        if (more_y) s->y = more_y;
        if (!more_x || !more_y) return err_set(e, ERR_MEMORY, "no memory for a curve of %zu points", cap);
        s->cap = cap;
    }
    s->x[s->n] = x;
    s->y[s->n++] = y;
    return 0;
}

void report_series_fini(struct report_series *s) {
    free(s->x);
    free(s->y);
    s->x = s->y = NULL;
    s->n = s->cap = 0;
}

int report_escape(struct buf *out, const char *text, struct err *e) {
    int rc = 0;
    for (; *text && !rc; text++) {
        switch (*text) {
        case '<': rc = buf_appends(out, "&lt;", e); break;
        case '>': rc = buf_appends(out, "&gt;", e); break;
        case '&': rc = buf_appends(out, "&amp;", e); break;
        case '"': rc = buf_appends(out, "&quot;", e); break;
        case '\'': rc = buf_appends(out, "&#39;", e); break;
        default:
            rc = buf_append(out, (unsigned char)*text < ' ' && *text != '\n' && *text != '\t' ? "?" : text, 1,
                            e);
        }
    }
    return rc;
}

// ---- the frame: from values to pixels.
struct frame {
    const struct report_chart *c;
    double x0, x1, y0, y1; // y in log10 when log_y
};

static double scale_y(const struct report_chart *c, double y) {
    if (!c->log_y) return y;
    return y > 0 ? log10(y) : NAN;
}

static bool usable(const struct report_chart *c, double x, double y) {
    if (c->cut && y < c->floor) return false;
    return fabs(x) <= VALUE_MAX && fabs(y) <= VALUE_MAX && isfinite(scale_y(c, y));
}

static bool measure(struct frame *f) {
    bool any = false;
    for (size_t k = 0; k < f->c->n; k++)
        for (size_t i = 0; i < f->c->series[k].n; i++) {
            double x = f->c->series[k].x[i], y = scale_y(f->c, f->c->series[k].y[i]);
            if (!usable(f->c, x, f->c->series[k].y[i])) continue;
            f->x0 = any ? fmin(f->x0, x) : x;
            f->x1 = any ? fmax(f->x1, x) : x;
            f->y0 = any ? fmin(f->y0, y) : y;
            f->y1 = any ? fmax(f->y1, y) : y;
            any = true;
        }
    if (f->c->y_zero && f->y0 > 0) f->y0 = 0;
    if (!(f->x1 > f->x0)) f->x1 = f->x0 + 1;
    if (!(f->y1 > f->y0)) f->y1 = f->y0 + (f->c->log_y ? 1 : fmax(1e-6, fabs(f->y0)));
    return any;
}

static double at_x(const struct frame *f, double x) {
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const struct frame *f, double y) {
    return HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

// The least of 1, 2, 5 times a power of ten that gives at most TICKS steps.
static double tick_step(double span) {
    double unit = pow(10, floor(log10(span / TICKS)));
    const double factors[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++)
        if (span / (unit * factors[i]) <= TICKS) return unit * factors[i];
    return 10 * unit;
}

// The nearest of 1, 2, 5 times a power of ten at or below (or above) 10^y, as its logarithm.
static double log_tick(double y, bool above) {
    static const double marks[] = {0, 0.30103, 0.69897, 1};
    double whole = floor(y), found = above ? 1 : 0;
    for (int i = 0; i < 4; i++) {
        if (above && marks[i] >= y - whole - 1e-6) return whole + marks[i];
        if (!above && marks[i] <= y - whole + 1e-6) found = marks[i];
    }
    return whole + found;
}

static void widen(struct frame *f) {
    double step = tick_step(f->y1 - f->y0);
    if (f->c->log_y) {
        f->y0 = log_tick(f->y0, false);
        f->y1 = log_tick(f->y1, true);
        if (!(f->y1 > f->y0)) f->y1 = f->y0 + 1;
        return;
    }
    f->y0 = floor(f->y0 / step + 1e-9) * step;
    f->y1 = ceil(f->y1 / step - 1e-9) * step;
}

static int grid_line(struct buf *out, double y, double value, struct err *e) {
    int rc = buf_appendf(out, e, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>",
                         LEFT, y, WIDTH - RIGHT, y);
    return rc ? rc
              : buf_appendf(out, e,
                            "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>",
                            LEFT - 6, y + 4, value);
}

// Whole decades, and 2 and 5 between them where there are few.
static int log_axis(const struct frame *f, struct buf *out, struct err *e) {
    double span = f->y1 - f->y0, stride = span > 8 ? ceil(span / 8) : 1;
    int rc = 0;
    for (double y = log_tick(f->y0, true); y <= f->y1 + 1e-6 && !rc;) {
        rc = grid_line(out, at_y(f, y), pow(10, y), e);
        y = span <= 2 ? log_tick(y + 1e-3, true) : floor(y + 1e-6) + stride;
    }
    return rc;
}

static int linear_axis(const struct frame *f, struct buf *out, struct err *e) {
    double step = tick_step(f->y1 - f->y0);
    int rc = 0;
    for (int i = 0; i <= 2 * TICKS && !rc; i++) {
        double y = f->y0 + i * step;
        if (y > f->y1 + 1e-9 * step) break;
        rc = grid_line(out, at_y(f, y), fabs(y) < 1e-9 * step ? 0 : y, e);
    }
    return rc;
}

static int axes(const struct frame *f, struct buf *out, struct err *e) {
    double xstep = tick_step(f->x1 - f->x0);
    int rc = f->c->log_y ? log_axis(f, out, e) : linear_axis(f, out, e);
    for (int i = 0; i <= 2 * TICKS && !rc; i++) {
        double x = ceil(f->x0 / xstep - 1e-9) * xstep + i * xstep;
        if (x > f->x1 + 1e-9 * xstep) break;
        rc = buf_appendf(out, e,
                         "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.6g</text>",
                         at_x(f, x), HEIGHT - BOTTOM + 16, x);
    }
    return rc;
}

static int labels(const struct frame *f, struct buf *out, struct err *e) {
    int rc = buf_appendf(out, e, "<text class=\"axis\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                         (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6);
    if (!rc) rc = report_escape(out, f->c->x_label, e);
    if (!rc)
        rc = buf_appendf(out, e,
                         "</text><text class=\"axis\" transform=\"translate(12 %.1f) rotate(-90)\" "
                         "text-anchor=\"middle\">",
                         (TOP + HEIGHT - BOTTOM) / 2);
    if (!rc) rc = report_escape(out, f->c->y_label, e);
    return rc ? rc : buf_appends(out, "</text>", e);
}

static int line(const struct frame *f, const struct report_series *s, struct buf *out, struct err *e) {
    size_t stride = s->n / DRAWN_MAX + 1;
    bool pen = false;
    int rc = buf_appendf(out, e, "<path class=\"line s%d\" d=\"", s->colour & 7);
    for (size_t i = 0; i < s->n && !rc; i += stride) {
        if (!usable(f->c, s->x[i], s->y[i])) {
            pen = false;
            continue;
        }
        rc = buf_appendf(out, e, "%s%.1f %.1f", pen ? "L" : "M", at_x(f, s->x[i]),
                         at_y(f, scale_y(f->c, s->y[i])));
        pen = true;
    }
    return rc ? rc : buf_appends(out, "\"/>", e);
}

static int dots(const struct frame *f, const struct report_series *s, struct buf *out, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < s->n && i < DRAWN_MAX && !rc; i++) {
        if (!usable(f->c, s->x[i], s->y[i])) continue;
        rc = buf_appendf(out, e, "<circle class=\"dot s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>",
                         s->colour & 7, at_x(f, s->x[i]), at_y(f, scale_y(f->c, s->y[i])));
        if (!rc) rc = report_escape(out, s->name, e);
        if (!rc) rc = buf_appendf(out, e, ", %.6g: %.4g</title></circle>", s->x[i], s->y[i]);
    }
    return rc;
}

static int legend(const struct report_chart *c, struct buf *out, struct err *e) {
    int rc = buf_appends(out, "<ul class=\"legend\">", e);
    for (size_t k = 0; k < c->n && !rc; k++) {
        if (!c->series[k].n) continue;
        rc = buf_appendf(out, e, "<li><i class=\"s%d\"></i>", c->series[k].colour & 7);
        if (!rc) rc = report_escape(out, c->series[k].name, e);
        if (!rc) rc = buf_appends(out, "</li>", e);
    }
    return rc ? rc : buf_appends(out, "</ul>", e);
}

static int drawing(struct frame *f, struct buf *out, struct err *e) {
    widen(f);
    int rc = buf_appendf(out, e, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\">", WIDTH, HEIGHT);
    if (!rc) rc = axes(f, out, e);
    if (!rc) rc = labels(f, out, e);
    for (size_t k = 0; k < f->c->n && !rc; k++) {
        rc = line(f, &f->c->series[k], out, e);
        if (!rc && f->c->dots) rc = dots(f, &f->c->series[k], out, e);
    }
    if (!rc) rc = buf_appends(out, "</svg>", e);
    return rc ? rc : legend(f->c, out, e);
}

int report_chart_write(const struct report_chart *c, struct buf *out, struct err *e) {
    struct frame f = {.c = c};
    int rc = buf_appends(out, "<figure><figcaption>", e);
    if (!rc) rc = report_escape(out, c->title, e);
    if (!rc) rc = buf_appends(out, "</figcaption>", e);
    if (!rc) rc = measure(&f) ? drawing(&f, out, e) : buf_appends(out, "<p class=\"none\">no data</p>", e);
    return rc ? rc : buf_appends(out, "</figure>\n", e);
}
