/* The one list of methods. Look-up, --help, the checks of configuration and requests,
 * the documentation and the property tests all walk this table, so a line here is the
 * only registration a method needs. */
#include "compress/compressor.h"
#include "compress/modifiers.h"

#include <math.h>
#include <string.h>

extern const struct compressor compressor_downscale;
extern const struct compressor compressor_tome;
extern const struct compressor compressor_pool;
extern const struct compressor compressor_prune;
extern const struct compressor compressor_dedup;
extern const struct compressor compressor_cascade;
extern const struct compressor compressor_random;
extern const struct compressor compressor_stride;
extern const struct compressor compressor_truncate;
extern const struct compressor compressor_cosine;
extern const struct compressor compressor_slerp;
extern const struct compressor compressor_concept;
extern const struct compressor compressor_query;
extern const struct compressor compressor_static_prefix;

static int off_apply(const struct compress_call *call, struct rows *rows, struct arena *scratch,
                     struct compress_outcome *out, struct err *e)
{
    (void)call;
    (void)rows;
    (void)scratch;
    (void)e;
    out->skipped = NULL;
    return 0;
}

static int off_predict(const double *options, int n)
{
    (void)options;
    return n;
}

static const struct compressor compressor_off = {
    .info = {.name = "off",
             .stages = (1u << STAGE_COUNT) - 1,
             .modalities = (1u << MODALITY_COUNT) - 1,
             .summary = "leave the rows as they are",
             .source = "",
             .options = NULL,
             .n_options = 0},
    .ops = {.apply = off_apply, .predict = off_predict},
};

const struct compressor *const compressors[] = {
    &compressor_off,     &compressor_downscale, &compressor_tome,          &compressor_pool,
    &compressor_prune,   &compressor_dedup,     &compressor_cascade,       &compressor_random,
    &compressor_stride,  &compressor_truncate,  &compressor_cosine,        &compressor_slerp,
    &compressor_concept, &compressor_query,     &compressor_static_prefix, NULL,
};

const struct compressor *compressor_find(const char *name)
{
    for (int i = 0; compressors[i]; i++) {
        if (strcmp(compressors[i]->info.name, name) == 0) {
            return compressors[i];
        }
    }
    return NULL;
}

int compressor_n_options(const struct compressor *c)
{
    return c->info.n_options + (c != compressors[0] ? N_MODIFIERS : 0);
}

const struct compressor_option *compressor_option(const struct compressor *c, int i)
{
    return i < c->info.n_options ? &c->info.options[i] : &modifier_options[i - c->info.n_options];
}

int compressor_option_index(const struct compressor *c, const char *name)
{
    for (int i = 0; i < compressor_n_options(c); i++) {
        if (strcmp(compressor_option(c, i)->name, name) == 0) {
            return i;
        }
    }
    return -1;
}

void compressor_defaults(const struct compressor *c, double options[COMPRESSOR_MAX_OPTIONS])
{
    for (int i = 0; i < COMPRESSOR_MAX_OPTIONS; i++) {
        options[i] = i < compressor_n_options(c) ? compressor_option(c, i)->def : 0;
    }
}

bool compressor_option_is_set(const struct compressor *c, const double *options, int i)
{
    return isnan(options[i]) || options[i] >= compressor_option(c, i)->min;
}

const char *stage_name(enum stage s)
{
    static const char *const names[STAGE_COUNT] = {
        [STAGE_PIXELS] = "pixels",         [STAGE_VIT_LAYER] = "vit-layer",
        [STAGE_IMAGE_ROWS] = "image-rows", [STAGE_TEXT_ROWS] = "text-rows",
        [STAGE_LM_LAYER] = "lm-layer",
    };
    return (unsigned)s < STAGE_COUNT ? names[s] : "?";
}

const char *modality_name(enum modality m)
{
    static const char *const names[MODALITY_COUNT] = {
        [MODALITY_IMAGE] = "image",
        [MODALITY_TEXT] = "text",
        [MODALITY_LM] = "lm",
    };
    return (unsigned)m < MODALITY_COUNT ? names[m] : "?";
}
