#include "compress/neighbours.h"

#include <math.h>

bool neighbours_may_join(const struct rows *r, int i)
{
    return !((r->flags[i] | r->flags[i - 1]) & ROW_PROTECTED) && !(r->flags[i] & ROW_BREAK) &&
           r->kind[i] == r->kind[i - 1];
}

int neighbours_segment(const struct rows *r, const float *x, int width, double threshold,
                       int max_group, int32_t *map)
{
    int n_groups = 0;
    int length = 0;
    for (int i = 0; i < r->n; i++) {
        const float *row = x + (size_t)i * (size_t)width;
        bool joins = i > 0 && length < max_group && neighbours_may_join(r, i) &&
                     (double)merge_cosine(row - width, row, width) > threshold;
        length = joins ? length + 1 : 1;
        n_groups += !joins;
        map[i] = n_groups - 1;
    }
    return n_groups;
}

int neighbours_groups(const struct compress_call *call, const struct rows *r, const float *x,
                      int width, int32_t **map, struct arena *scratch, struct compress_outcome *out,
                      struct err *e)
{
    *map = arena_alloc(scratch, (size_t)r->n, sizeof **map);
    if (!*map) {
        return err_no_memory(e, (unsigned long long)r->n * sizeof **map);
    }
    int m = neighbours_segment(r, x, width, call->options[NEIGHBOURS_THRESHOLD],
                               (int)call->options[NEIGHBOURS_MAX_GROUP], *map);
    out->skipped = r->n < 2 ? "too_few_rows" : m == r->n ? "nothing_similar" : NULL;
    return m;
}

int neighbours_predict(const double *values, int n)
{
    return values[NEIGHBOURS_RATIO] < 1 && values[NEIGHBOURS_THRESHOLD] >= 1 ? n : -1;
}

/* What rows_merge does not keep, for each group. */
struct group {
    float mass, position, norm; /* the last two are sums until the merge is done */
    int n;
};

static void sum_groups(const struct rows *r, const int32_t *map, struct group *groups)
{
    for (int i = 0; i < r->n; i++) {
        const float *row = r->x + (size_t)i * (size_t)r->n_embd;
        struct group *g = &groups[map[i]];
        float mass = r->mass[i];
        g->mass += mass;
        g->position += mass * r->position[i];
        g->norm += mass * sqrtf(merge_dot(row, row, r->n_embd));
        g->n++;
    }
}

static void finish_group(struct rows *r, int i, const struct group *g, bool stretch)
{
    r->position[i] = g->position / g->mass;
    if (stretch) {
        merge_stretch(r->x + (size_t)i * (size_t)r->n_embd, r->n_embd, g->norm / g->mass);
    }
}

int neighbours_merge(struct rows *r, const int32_t *map, int m, enum merge_norm norm,
                     struct arena *scratch, struct err *e)
{
    struct group *groups = arena_zalloc(scratch, (size_t)m, sizeof *groups);
    if (!groups) {
        return err_no_memory(e, (unsigned long long)m * sizeof *groups);
    }
    sum_groups(r, map, groups);
    if (rows_merge(r, map, m, scratch, e)) {
        return -1;
    }
    for (int i = 0; i < m; i++) {
        if (groups[i].n > 1) {
            finish_group(r, i, &groups[i], norm == NORM_DIRECTION);
        }
    }
    return 0;
}
