#include "cmd/calibrate_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- words ----------------------------------------------------------------------------- */

void calibrate_print_promise(const struct calibrate_summary *s, struct buf *out)
{
    const struct sequence *q = s->sequence;
    if (q->kept < 0) {
        buf_printf(out,
                   "No plan of the ladder is sure to answer %.1f %% of such requests as without "
                   "compression; the profile merges nothing.",
                   q->target * 100);
        return;
    }
    buf_printf(out,
               "With \"%s\" at least %.1f %% of such requests are answered as without compression "
               "(95 %% sure), at %.0f %% of the rows.",
               s->steps[q->kept], q->target * 100, s->rows[q->kept] * 100);
}

static const char *verdict(const struct sequence *q, int step)
{
    const struct sequence_tally *t = q->tally[step];
    if (step == q->kept) {
        return "kept";
    }
    if (t[HALF_CHOOSE].good + t[HALF_CHOOSE].bad == 0) {
        return "not asked";
    }
    if (!t[HALF_CHOOSE].holds) {
        return "does not hold";
    }
    return step > q->chosen ? "behind one that fails" : step < q->kept ? "holds" : "not confirmed";
}

/* ---- two formats, one text --------------------------------------------------------------- */

struct page {
    struct buf *out;
    bool html;
};

/* At most max_bytes of text that is somebody else's, on one line. */
static void put(struct page *p, const char *text, size_t max_bytes)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n && i < max_bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < ' ') {
            buf_putc(p->out, ' ');
        } else if (p->html && strchr("<>&\"", c)) {
            buf_printf(p->out, "&#%d;", c);
        } else if (!p->html && strchr("|`<>*_\\", c)) {
            buf_printf(p->out, "\\%c", c);
        } else {
            buf_putc(p->out, (char)c);
        }
    }
    if (n > max_bytes) {
        buf_puts(p->out, "...");
    }
}

static void heading(struct page *p, int level, const char *text)
{
    if (p->html) {
        buf_printf(p->out, "<h%d>%s</h%d>\n", level, text, level);
    } else {
        buf_printf(p->out, "\n%.*s %s\n", level, "##", text);
    }
}

static void begin_paragraph(struct page *p)
{
    buf_puts(p->out, p->html ? "<p>" : "\n");
}

static void end_paragraph(struct page *p)
{
    buf_puts(p->out, p->html ? "</p>\n" : "\n");
}

static void begin_row(struct page *p)
{
    buf_puts(p->out, p->html ? "<tr>" : "|");
}

static void cell(struct page *p, const char *text)
{
    buf_puts(p->out, p->html ? "<td>" : " ");
    put(p, text, 160);
    buf_puts(p->out, p->html ? "</td>" : " |");
}

static void end_row(struct page *p)
{
    buf_puts(p->out, p->html ? "</tr>\n" : "\n");
}

static void table_head(struct page *p, const char *const *names, int n)
{
    buf_puts(p->out, p->html ? "<table>\n" : "\n");
    begin_row(p);
    for (int i = 0; i < n; i++) {
        cell(p, names[i]);
    }
    end_row(p);
    if (!p->html) {
        for (int i = 0; i < n; i++) {
            buf_puts(p->out, i ? "---|" : "|---|");
        }
        buf_putc(p->out, '\n');
    }
}

static void table_end(struct page *p)
{
    buf_puts(p->out, p->html ? "</table>\n" : "");
}

/* ---- the tables ---------------------------------------------------------------------------- */

static void tally_cells(struct page *p, const struct sequence_tally *t)
{
    char text[64] = "";
    int n = t->good + t->bad;
    if (n) {
        snprintf(text, sizeof text, "%d of %d%s", t->good, n, t->complete ? "" : ", then left");
    }
    cell(p, text);
    if (n) {
        snprintf(text, sizeof text, "%.4f", t->bound);
    }
    cell(p, text);
}

static void share_cell(struct page *p, double share)
{
    char text[32] = "";
    if (isfinite(share)) {
        snprintf(text, sizeof text, "%.1f %%", share * 100);
    }
    cell(p, text);
}

static void steps_table(struct page *p, const struct calibrate_summary *s)
{
    static const char *const names[] = {"plan",  "rows",         "prompt time", "chosen by",
                                        "bound", "confirmed by", "bound",       "verdict"};
    table_head(p, names, 8);
    for (int i = 0; i < s->sequence->n_steps; i++) {
        begin_row(p);
        cell(p, s->steps[i]);
        share_cell(p, s->rows[i]);
        share_cell(p, s->prompt[i]);
        tally_cells(p, &s->sequence->tally[i][HALF_CHOOSE]);
        tally_cells(p, &s->sequence->tally[i][HALF_CONFIRM]);
        cell(p, verdict(s->sequence, i));
        end_row(p);
    }
    table_end(p);
}

static void differences_table(struct page *p, const struct calibrate_summary *s)
{
    static const char *const names[] = {"plan", "line", "without compression", "with it"};
    heading(p, 2, "Answers that differ");
    if (!s->n_differences) {
        begin_paragraph(p);
        buf_puts(p->out, "None.");
        end_paragraph(p);
        return;
    }
    table_head(p, names, 4);
    for (int i = 0; i < s->n_differences; i++) {
        const struct calibrate_difference *d = &s->differences[i];
        char line[16];
        snprintf(line, sizeof line, "%d", d->line);
        begin_row(p);
        cell(p, s->steps[d->step]);
        cell(p, line);
        cell(p, d->without);
        cell(p, d->with);
        end_row(p);
    }
    table_end(p);
}

static void how(struct page *p, const struct calibrate_summary *s)
{
    const struct sequence *q = s->sequence;
    heading(p, 2, "How");
    begin_paragraph(p);
    buf_printf(p->out, "%d requests of ", s->n_requests);
    put(p, s->data, 200);
    buf_puts(p->out, ", model ");
    put(p, s->model, 200);
    buf_printf(p->out,
               ". Greedy answers of up to %d tokens. A request counts as answered as without "
               "compression when the text is the same",
               s->max_tokens);
    if (s->n_expected) {
        buf_printf(p->out,
                   "; one that says what is expected (%d do), when that stands in the answer. "
                   "Those that are wrong without compression, too, are left out; %d are counted",
                   s->n_expected, s->n_judged);
    }
    buf_printf(p->out,
               ". The requests were split by lot: %d choose, %d confirm. Plans were tried from the "
               "mildest to the strongest, each at the full level of 5 %%, until the first one "
               "whose one-sided Clopper-Pearson bound is below %.4f; so the chance of keeping any "
               "plan below it is at most 5 %%. A plan that can no longer reach it is left. The "
               "last one that holds had to hold again on the other half. Rows: mean over the "
               "decoder's layers, against no compression. All of this is about requests like "
               "these; when yours change, calibrate again.",
               q->n_items[HALF_CHOOSE], q->n_items[HALF_CONFIRM], q->target);
    end_paragraph(p);
}

static void whole(struct page *p, const struct calibrate_summary *s)
{
    begin_paragraph(p);
    struct buf promise;
    buf_init(&promise, 4096);
    calibrate_print_promise(s, &promise);
    put(p, buf_str(&promise), 1000);
    buf_free(&promise);
    end_paragraph(p);
    steps_table(p, s);
    if (p->html) {
        calibrate_print_svg(s, p->out);
    } else {
        buf_puts(p->out, "\n![agreement over rows](report.svg)\n");
    }
    how(p, s);
    differences_table(p, s);
}

void calibrate_print_markdown(const struct calibrate_summary *s, struct buf *out)
{
    struct page p = {.out = out};
    buf_printf(out, "# Calibration to %.1f %%\n", s->sequence->target * 100);
    whole(&p, s);
}

void calibrate_print_html(const struct calibrate_summary *s, struct buf *out)
{
    struct page p = {.out = out, .html = true};
    buf_printf(out,
               "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Calibration</title>"
               "<style>body{font:15px sans-serif;max-width:62em;margin:2em auto;padding:0 1em;"
               "color:#24292f}table{border-collapse:collapse;font-size:13px}td{border:1px solid "
               "#d0d7de;padding:3px 7px}tr:first-child{font-weight:bold}</style>\n"
               "<h1>Calibration to %.1f %%</h1>\n",
               s->sequence->target * 100);
    whole(&p, s);
    buf_puts(out, "</html>\n");
}

/* ---- the chart ------------------------------------------------------------------------------- */

#define CHART_WIDTH  720
#define CHART_HEIGHT 340
#define CHART_LEFT   60
#define CHART_RIGHT  20
#define CHART_TOP    40
#define CHART_BOTTOM 50

struct chart {
    double low; /* of the y axis; it ends at 1 */
    struct buf *out;
};

/* Fewer rows stand further right. */
static double x_of(double rows)
{
    return CHART_LEFT + (CHART_WIDTH - CHART_LEFT - CHART_RIGHT) * (1 - rows);
}

static double y_of(const struct chart *c, double share)
{
    double up = (share - c->low) / (1 - c->low);
    return CHART_HEIGHT - CHART_BOTTOM - (CHART_HEIGHT - CHART_TOP - CHART_BOTTOM) * fmax(up, 0);
}

static void axes(const struct chart *c, double target)
{
    for (int i = 0; i <= 5; i++) {
        double share = c->low + (1 - c->low) * i / 5;
        double y = y_of(c, share);
        double x = x_of(1 - i / 5.0);
        buf_printf(c->out,
                   "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#d0d7de\"/>"
                   "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3f</text>"
                   "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d %%</text>\n",
                   CHART_LEFT, y, CHART_WIDTH - CHART_RIGHT, y, CHART_LEFT - 6, y + 4, share, x,
                   CHART_HEIGHT - CHART_BOTTOM + 18, 100 - 20 * i);
    }
    buf_printf(c->out,
               "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#cf222e\" "
               "stroke-dasharray=\"6 4\"/>\n"
               "<text x=\"%d\" y=\"24\">requests answered as without compression, and the 95 %% "
               "bound; dashed: the target</text>\n"
               "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">rows that are left</text>\n",
               CHART_LEFT, y_of(c, target), CHART_WIDTH - CHART_RIGHT, y_of(c, target), CHART_LEFT,
               (CHART_LEFT + CHART_WIDTH) / 2, CHART_HEIGHT - 10);
}

void calibrate_print_svg(const struct calibrate_summary *s, struct buf *out)
{
    const struct sequence *q = s->sequence;
    struct chart c = {.low = q->target, .out = out};
    for (int i = 0; i < q->n_steps; i++) {
        const struct sequence_tally *t = &q->tally[i][HALF_CHOOSE];
        if (t->good + t->bad) {
            c.low = fmin(c.low, t->bound);
        }
    }
    c.low = fmax(0, c.low - 0.1 * (1 - c.low));
    buf_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "font-family=\"sans-serif\" font-size=\"12\"><rect width=\"%d\" height=\"%d\" "
               "fill=\"white\"/>\n",
               CHART_WIDTH, CHART_HEIGHT, CHART_WIDTH, CHART_HEIGHT);
    axes(&c, q->target);
    for (int i = 0; i < q->n_steps; i++) {
        const struct sequence_tally *t = &q->tally[i][HALF_CHOOSE];
        int n = t->good + t->bad;
        if (!n || !isfinite(s->rows[i])) {
            continue;
        }
        double x = x_of(s->rows[i]);
        double share = (double)t->good / n;
        buf_printf(out,
                   "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#1f6feb\"/>"
                   "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\"/>\n",
                   x, y_of(&c, share), x, y_of(&c, t->bound), x, y_of(&c, share),
                   i == q->kept ? 6 : 4, t->holds ? "#1f6feb" : "#9a6700");
    }
    buf_puts(out, "</svg>\n");
}

/* ---- the profile -------------------------------------------------------------------------------
 */

void calibrate_print_profile(const struct calibrate_summary *s, struct buf *out)
{
    buf_puts(out,
             "# Written by `tamp calibrate`; `tamp serve --config` takes it. report.md says how "
             "it was made.\n# ");
    calibrate_print_promise(s, out);
    buf_printf(out, "\nprofiles:\n  - name: %s\n    from: \"off\"\n", s->name);
    if (*s->set) {
        buf_printf(out, "    set: \"%s\"\n", s->set);
    }
    buf_printf(out, "profile: %s\n", s->name);
}
