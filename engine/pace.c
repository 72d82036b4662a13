#include "engine/pace.h"

/* Weight of the last pass in its mean: a change is followed within ten passes, and one pass
 * that was held up counts for a fifth. */
#define LAST 0.2

static void move_mean(struct pace_mean *m, double rows, double ms)
{
    double weight = m->rows > 0 ? LAST : 1;
    m->rows += weight * (rows - m->rows);
    m->ms += weight * (ms - m->ms);
}

void pace_add(struct pace *p, int n_rows, double ms)
{
    move_mean(n_rows <= PACE_SMALL_ROWS ? &p->small : &p->large, n_rows, ms);
}

/* The line ms = fixed + each * rows. With one mean alone, or two that contradict each other,
 * all is taken to be the cost of rows. */
static void line(const struct pace *p, double *fixed, double *each)
{
    const struct pace_mean *m = p->large.rows > 0 ? &p->large : &p->small;
    *fixed = 0;
    *each = m->rows > 0 ? m->ms / m->rows : 0;
    if (p->small.rows <= 0 || p->large.rows <= 0 || p->large.ms <= p->small.ms) {
        return;
    }
    double slope = (p->large.ms - p->small.ms) / (p->large.rows - p->small.rows);
    double rest = p->small.ms - slope * p->small.rows;
    if (rest > 0) {
        *each = slope;
        *fixed = rest;
    }
}

double pace_ms(const struct pace *p, int n_passes, double n_rows)
{
    double fixed;
    double each;
    line(p, &fixed, &each);
    return n_passes * fixed + n_rows * each;
}

int pace_rows(const struct pace *p, double ms, int most)
{
    double fixed;
    double each;
    line(p, &fixed, &each);
    if (each <= 0) {
        return most;
    }
    double rows = (ms - fixed) / each;
    return rows <= 0 ? 0 : rows < most ? (int)rows : most;
}
