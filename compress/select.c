#include "compress/select.h"

#include "compress/merge.h"

int select_begin(struct selection *s, const struct compress_call *call, const struct rows *rows,
                 struct arena *scratch, struct compress_outcome *out, struct err *e)
{
    *s = (struct selection){
        .free_rows = arena_alloc(scratch, (size_t)rows->n, sizeof *s->free_rows),
        .keep = arena_zalloc(scratch, (size_t)rows->n, sizeof *s->keep),
    };
    if (!s->free_rows || !s->keep) {
        return err_no_memory(e, (size_t)rows->n * sizeof *s->free_rows);
    }
    for (int i = 0; i < rows->n; i++) {
        if (rows_is_free(rows, i)) {
            s->free_rows[s->n++] = i;
        }
    }
    s->k = select_predict(call->options, s->n);
    out->skipped = s->n < 2 ? (s->n == 0 && rows->n > 0 ? "all_protected" : "too_few_rows") : NULL;
    return 0;
}

int select_predict(const double *values, int n)
{
    return merge_target(values[SELECT_RATIO], values[SELECT_ROWS], n);
}

int select_baseline(const struct compress_call *call, struct rows *rows,
                    void (*choose)(const struct compress_call *call, struct selection *s),
                    struct arena *scratch, struct compress_outcome *out, struct err *e)
{
    struct selection s;
    if (select_begin(&s, call, rows, scratch, out, e)) {
        return -1;
    }
    if (out->skipped || s.k == s.n) {
        return 0;
    }
    choose(call, &s);
    return select_apply(rows, s.keep, false, NULL, 0, scratch, e);
}

void select_evenly(const int32_t *index, int n, int k, uint8_t *keep)
{
    for (int t = 0; t < k; t++) {
        keep[index[(2 * (int64_t)t + 1) * n / (2 * (int64_t)k)]] = 1;
    }
}

int select_apply(struct rows *rows, const uint8_t *keep, bool merge, const float *metric,
                 int n_metric, struct arena *scratch, struct err *e)
{
    size_t n = (size_t)rows->n;
    int32_t *map = arena_alloc(scratch, n, sizeof *map);
    int32_t *kept = arena_alloc(scratch, n, sizeof *kept);
    int32_t *left = arena_alloc(scratch, n, sizeof *left);
    int32_t *first = arena_alloc(scratch, n, sizeof *first);
    struct merge_match *match = arena_alloc(scratch, n, sizeof *match);
    if (!map || !kept || !left || !first || !match) {
        return err_no_memory(e, n * sizeof *match);
    }
    int n_kept = 0;
    int n_left = 0;
    for (int i = 0; i < rows->n; i++) {
        bool fixed = rows->flags[i] & ROW_PROTECTED;
        map[i] = fixed || keep[i] ? i : ROW_DROPPED;
        if (map[i] == ROW_DROPPED) {
            left[n_left++] = i;
        } else if (!fixed) {
            kept[n_kept++] = i;
        }
    }
    if (merge && n_kept > 0 &&
        merge_bipartite(metric ? metric : rows->x, metric ? n_metric : rows->n_embd, left, n_left,
                        kept, n_kept, match, scratch, e)) {
        return -1;
    }
    for (int i = 0; merge && n_kept > 0 && i < n_left; i++) {
        map[left[i]] = kept[match[i].to];
    }
    /* A group stands where its kept row stood: number these first. */
    int m = 0;
    for (int i = 0; i < rows->n; i++) {
        first[i] = map[i] == i ? m++ : ROW_DROPPED;
    }
    for (int i = 0; i < rows->n; i++) {
        map[i] = map[i] < 0 ? ROW_DROPPED : first[map[i]];
    }
    return rows_merge(rows, map, m, scratch, e);
}
