#include "compress/grid.h"

int grid_coarse(int i, int n, int n_coarse)
{
    return (int)((2 * (int64_t)i + 1) * n_coarse / (2 * (int64_t)n));
}

const char *grid_missing(const struct compress_call *call, const struct rows *rows)
{
    const struct picture_facts *p = call->picture;
    bool whole = p && rows->n == rows->n_source && (int64_t)p->width * p->height == rows->n;
    for (int s = 0; whole && s < rows->n_source; s++) {
        whole = rows->owner[s] == s;
    }
    return whole ? NULL : "no_grid";
}

int grid_partition(const struct picture_facts *p, const struct rows *rows, int width, int height,
                   int32_t *map, struct arena *scratch, struct err *e)
{
    int n_cells = width * height;
    int32_t *leader = arena_alloc(scratch, (size_t)n_cells, sizeof *leader);
    int32_t *first = arena_alloc(scratch, (size_t)rows->n, sizeof *first);
    if (!leader || !first) {
        return err_no_memory(e, (size_t)rows->n * sizeof *first);
    }
    for (int c = 0; c < n_cells; c++) {
        leader[c] = -1;
    }
    for (int i = 0; i < rows->n; i++) {
        int32_t *l = &leader[grid_coarse(i / p->width, p->height, height) * width +
                             grid_coarse(i % p->width, p->width, width)];
        if (rows->flags[i] & ROW_PROTECTED) {
            map[i] = i;
        } else {
            *l = *l < 0 ? i : *l;
            map[i] = *l;
        }
    }
    return rows_number_groups(rows, map, first);
}
