/* How long a pass takes, as the engine sees it while it runs: a fixed cost (the weights come
 * from memory once, however many rows there are) and a cost for each row. Two running means
 * are kept, of small passes (answers alone) and of large ones (with rows of prompts), and a
 * straight line goes through both. A mean is only moved by passes of its own kind, so that
 * a long time without prompts does not make the engine forget what their rows cost. Growing
 * contexts, another load of the machine or other clock rates are followed within some
 * passes, for the line is right at least at the size that was run last.
 *
 * Only how much is done in a pass follows from these numbers, never a bit of a result. */
#ifndef TAMP_ENGINE_PACE_H
#define TAMP_ENGINE_PACE_H

/* Passes of so many rows and fewer are small. */
#define PACE_SMALL_ROWS 16

struct pace_mean {
    double rows, ms; /* 0 rows: nothing seen yet */
};

/* Begins as zeros. */
struct pace {
    struct pace_mean small, large;
};

/* A pass of n_rows >= 1 rows took so many milliseconds. */
void pace_add(struct pace *p, int n_rows, double ms);

/* Milliseconds of n_passes passes over n_rows rows in all; 0 as long as nothing is known. */
double pace_ms(const struct pace *p, int n_passes, double n_rows);

/* Rows of a pass that is to take so many milliseconds: at least 0, at most `most`, which
 * is the answer as long as nothing is known. */
int pace_rows(const struct pace *p, double ms, int most);

#endif
