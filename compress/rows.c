/* Rows and the two ways to change their number or order. Both build the new rows aside
 * in scratch and copy them over at the end: a failed allocation leaves the rows as they
 * were, and that is what makes every compressor fail open. */
#include "compress/rows.h"

#include "base/checked.h"
#include "compress/merge.h"

#include <math.h>
#include <string.h>

int rows_init(struct rows *r, struct arena *a, int n, int n_embd, enum row_kind kind,
              float first_position, struct err *e)
{
    size_t count = (size_t)n;
    size_t values;
    if (n < 0 || n_embd < 1 || !ck_mul(count, (size_t)n_embd, &values)) {
        return err_set(e, ERR_INTERNAL, "cannot make %d rows of width %d", n, n_embd);
    }
    *r = (struct rows){
        .n = n,
        .n_source = n,
        .n_embd = n_embd,
        .x = arena_alloc(a, values, sizeof *r->x),
        .mass = arena_alloc(a, count, sizeof *r->mass),
        .position = arena_alloc(a, count, sizeof *r->position),
        .kind = arena_alloc(a, count, sizeof *r->kind),
        .flags = arena_zalloc(a, count, sizeof *r->flags),
        .owner = arena_alloc(a, count, sizeof *r->owner),
    };
    if (!r->x || !r->mass || !r->position || !r->kind || !r->flags || !r->owner) {
        return err_no_memory(e, (unsigned long long)values * sizeof *r->x);
    }
    for (int i = 0; i < n; i++) {
        r->mass[i] = 1.0f;
        r->position[i] = first_position + (float)i;
        r->kind[i] = (uint8_t)kind;
        r->owner[i] = i;
    }
    return 0;
}

void rows_assign(struct rows *to, const struct rows *from)
{
    size_t n = (size_t)from->n;
    memcpy(to->x, from->x, n * (size_t)from->n_embd * sizeof *to->x);
    memcpy(to->mass, from->mass, n * sizeof *to->mass);
    memcpy(to->position, from->position, n * sizeof *to->position);
    memcpy(to->owner, from->owner, (size_t)from->n_source * sizeof *to->owner);
    memcpy(to->kind, from->kind, n);
    memcpy(to->flags, from->flags, n);
    if (from->attention) {
        memcpy(to->attention, from->attention, (size_t)from->n_source * sizeof *to->attention);
    }
}

int rows_copy(struct rows *to, const struct rows *from, struct arena *a, struct err *e)
{
    struct rows copy;
    size_t n_source = (size_t)from->n_source;
    if (rows_init(&copy, a, from->n, from->n_embd, ROW_IMAGE, 0, e)) {
        return -1;
    }
    copy.n_source = from->n_source;
    copy.owner = arena_alloc(a, n_source, sizeof *copy.owner);
    copy.attention = from->attention ? arena_alloc(a, n_source, sizeof *copy.attention) : NULL;
    if (!copy.owner || (from->attention && !copy.attention)) {
        return err_no_memory(e, n_source * sizeof *copy.owner);
    }
    rows_assign(&copy, from);
    *to = copy;
    return 0;
}

/* Room for n new rows without owners. */
static int new_rows(struct rows *t, const struct rows *like, int n, struct arena *a, struct err *e)
{
    size_t count = (size_t)n;
    size_t values = count * (size_t)like->n_embd;
    *t = (struct rows){
        .n = n,
        .n_embd = like->n_embd,
        .x = arena_alloc(a, values, sizeof *t->x),
        .mass = arena_alloc(a, count, sizeof *t->mass),
        .position = arena_alloc(a, count, sizeof *t->position),
        .kind = arena_alloc(a, count, sizeof *t->kind),
        .flags = arena_alloc(a, count, sizeof *t->flags),
    };
    if (!t->x || !t->mass || !t->position || !t->kind || !t->flags) {
        return err_no_memory(e, (unsigned long long)values * sizeof *t->x);
    }
    return 0;
}

/* t's rows take the place of r's; owners follow map. */
static void replace(struct rows *r, const struct rows *t, const int32_t *map)
{
    size_t count = (size_t)t->n;
    memcpy(r->x, t->x, count * (size_t)r->n_embd * sizeof *r->x);
    memcpy(r->mass, t->mass, count * sizeof *r->mass);
    memcpy(r->position, t->position, count * sizeof *r->position);
    memcpy(r->kind, t->kind, count);
    memcpy(r->flags, t->flags, count);
    for (int i = 0; i < r->n_source; i++) {
        r->owner[i] = r->owner[i] < 0 ? ROW_DROPPED : map[r->owner[i]];
    }
    r->n = t->n;
}

/* The old rows of new row g: row[begin[g] .. begin[g + 1]), ascending. */
struct members {
    int32_t *begin; /* [m + 2], the last one is room to count in */
    int32_t *row;   /* [n] */
};

static int list_members(struct members *l, const int32_t *map, int n, int m, struct arena *scratch,
                        struct err *e)
{
    *l = (struct members){
        .begin = arena_zalloc(scratch, (size_t)m + 2, sizeof *l->begin),
        .row = arena_alloc(scratch, (size_t)n, sizeof *l->row),
    };
    if (!l->begin || !l->row) {
        return err_no_memory(e, ((unsigned long long)n + (unsigned long long)m) * sizeof *l->row);
    }
    /* begin[g + 2] counts group g; then begin[g + 1] runs from its begin to its end. */
    for (int i = 0; i < n; i++) {
        if (map[i] >= 0) {
            l->begin[map[i] + 2]++;
        }
    }
    for (int g = 0; g < m; g++) {
        l->begin[g + 2] += l->begin[g + 1];
    }
    for (int i = 0; i < n; i++) {
        if (map[i] >= 0) {
            l->row[l->begin[map[i] + 1]++] = i;
        }
    }
    return 0;
}

static void merge_group(const struct rows *r, const int32_t *members, int n, struct rows *t, int g)
{
    size_t width = (size_t)r->n_embd;
    float *x = t->x + (size_t)g * width;
    int first = members[0];
    t->mass[g] = r->mass[first];
    t->position[g] = r->position[first];
    t->kind[g] = r->kind[first];
    t->flags[g] = r->flags[first];
    if (n == 1) {
        memcpy(x, r->x + (size_t)first * width, width * sizeof *x);
        return;
    }
    merge_weighted_mean(x, r->x, r->mass, members, n, r->n_embd);
    for (int i = 1; i < n; i++) {
        int old = members[i];
        t->mass[g] += r->mass[old];
        t->position[g] = fminf(t->position[g], r->position[old]);
        t->flags[g] |= r->flags[old];
    }
}

int rows_merge(struct rows *r, const int32_t *map, int m, struct arena *scratch, struct err *e)
{
    struct members l;
    struct rows t;
    if (list_members(&l, map, r->n, m, scratch, e) || new_rows(&t, r, m, scratch, e)) {
        return -1;
    }
    for (int g = 0; g < m; g++) {
        int n = l.begin[g + 1] - l.begin[g];
        if (n == 0) {
            return err_set(e, ERR_INTERNAL, "merged row %d of %d stands for nothing", g, m);
        }
        merge_group(r, l.row + l.begin[g], n, &t, g);
    }
    replace(r, &t, map);
    return 0;
}

int rows_permute(struct rows *r, const int32_t *perm, struct arena *scratch, struct err *e)
{
    int32_t *map = arena_alloc(scratch, (size_t)r->n, sizeof *map);
    if (!map) {
        return err_no_memory(e, (unsigned long long)r->n * sizeof *map);
    }
    for (int i = 0; i < r->n; i++) {
        map[perm[i]] = i;
    }
    return rows_merge(r, map, r->n, scratch, e);
}

void rows_first_source(const struct rows *r, int32_t *first)
{
    for (int i = r->n_source - 1; i >= 0; i--) {
        if (r->owner[i] >= 0) {
            first[r->owner[i]] = i;
        }
    }
}

int rows_number_groups(const struct rows *r, int32_t *map, int32_t *first)
{
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        first[i] = -1;
    }
    for (int i = 0; i < r->n; i++) {
        int32_t group = map[i];
        if (group >= 0 && first[group] < 0) {
            first[group] = n++;
        }
        map[i] = group < 0 ? ROW_DROPPED : first[group];
    }
    return n;
}

int rows_dropped(const struct rows *r)
{
    int n = 0;
    for (int s = 0; s < r->n_source; s++) {
        n += r->owner[s] < 0;
    }
    return n;
}

int rows_check(const struct rows *r, struct err *e)
{
    double total = 0;
    for (int i = 0; i < r->n; i++) {
        if (!(r->mass[i] > 0)) {
            return err_set(e, ERR_INTERNAL, "row %d has mass %g", i, (double)r->mass[i]);
        }
        total += (double)r->mass[i];
    }
    int dropped = rows_dropped(r);
    if (total != (double)(r->n_source - dropped)) {
        return err_set(e, ERR_INTERNAL, "masses add up to %g for %d sources, %d of them dropped",
                       total, r->n_source, dropped);
    }
    for (int i = 0; i < r->n_source; i++) {
        if (r->owner[i] < ROW_DROPPED || r->owner[i] >= r->n) {
            return err_set(e, ERR_INTERNAL, "source %d is owned by row %d of %d", i, r->owner[i],
                           r->n);
        }
    }
    for (int i = 0; i < r->n; i++) {
        double owned = 0;
        for (int s = 0; s < r->n_source; s++) {
            owned += r->owner[s] == i;
        }
        if (owned != (double)r->mass[i]) {
            return err_set(e, ERR_INTERNAL, "row %d has mass %g and owns %g sources", i,
                           (double)r->mass[i], owned);
        }
    }
    return 0;
}
