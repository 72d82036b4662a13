/* THE interface of the middleware; read this first.
 *
 * A compressor turns n rows into m <= n rows at one stage. It is pure and
 * deterministic: the same rows and options give the same bytes, whatever the
 * batch, the threads or the history. It sees no HTTP, no files, no globals.
 * Rules that the property tests check for every entry of the table:
 *   1. origins partition the input: each source is owned by exactly one row, and the masses
 *      add up to the number of sources. Only a method that says so (info.drops) may leave
 *      sources without a row; they are counted as dropped, never given to another row
 *   2. protected rows leave as they came, in a row of their own; text and image
 *      rows never merge with each other
 *   3. `off` is bit-identical to a build without the middleware
 *   4. it fails open: if it cannot act it leaves the rows alone and says why
 *   5. its own time is part of the report
 * Adding one: compress/<name>.c, one line in registry.c, one test, one docs row. */
#ifndef TAMP_COMPRESS_COMPRESSOR_H
#define TAMP_COMPRESS_COMPRESSOR_H

#include "base/arena.h"
#include "base/err.h"
#include "compress/rows.h"

#include <stdbool.h>

struct buf;

/* In the order in which a request passes them. */
enum stage {
    STAGE_PIXELS,     /* choose the resolution */
    STAGE_VIT_LAYER,  /* between attention and MLP of each block of the vision tower */
    STAGE_IMAGE_ROWS, /* after the projector */
    STAGE_TEXT_ROWS,  /* after the token embedding */
    STAGE_LM_LAYER,   /* between two decoder blocks */
    STAGE_COUNT
};
#define STAGE_BIT(s) (1u << (s))
const char *stage_name(enum stage s); /* "vit-layer" */

enum modality { MODALITY_IMAGE, MODALITY_TEXT, MODALITY_LM, MODALITY_COUNT };
const char *modality_name(enum modality m); /* the JSON key: "image", "text", "lm" */

enum option_type { OPTION_FLOAT, OPTION_INT, OPTION_BOOL, OPTION_ENUM };

struct compressor_option {
    const char *name; /* JSON and YAML key: "ratio" */
    enum option_type type;
    double min, max, def;       /* OPTION_ENUM: index into choices; def < min = not set */
    const char *const *choices; /* NULL-terminated, OPTION_ENUM only */
    bool auto_ok;               /* "auto" is allowed; stored as NaN, resolved by plan_resolve_* */
    const char *unit;           /* "" if it has none */
    const char *help;           /* one line */
    const char *replaces;       /* while this one is set that one has no effect, and setting
                                   that one unsets this one; NULL = none */
    unsigned modalities;        /* slots it belongs to, as in the info; 0 = each of them */
};

#define COMPRESSOR_MAX_OPTIONS 16 /* of a method and its modifiers together */
#define COMPRESSOR_MAX_RUNGS   4  /* of a cascade */

/* What is known of a picture besides its rows. Sources are the cells of its grid in raster
 * order: patches, or blocks of patches where the projector takes these together. */
struct picture_facts {
    int width, height;      /* of the grid; n_source = width * height */
    const uint64_t *digest; /* [n_source] equal for cells with equal pixels, or NULL */
    const struct picture_facts *previous; /* the picture before it in the request, NULL = none */
    const struct rows *rows;              /* of a previous one: what is left of it */
};

/* What users see; kept apart from the code that acts. */
struct compressor_info {
    const char *name;
    unsigned stages;     /* STAGE_BIT mask: where it can act */
    unsigned modalities; /* 1u << enum modality mask: whose slot of a plan it may fill */
    const char *summary; /* one line for --help and docs */
    const char *source;  /* paper or origin of the maths */
    const struct compressor_option *options; /* [n_options] */
    int n_options;
    bool whole_prompt; /* at lm-layer it acts once on all rows of a prompt, not chunk by chunk,
                          and its metric is the attention that the question pays to each of them,
                          [n, 1], of as many heads as its option `heads` says */
    bool static_part;  /* at lm-layer it acts on the static prefix alone (rows.h: ROW_STATIC) */
    bool drops;        /* may leave sources without a row */
    bool grid;         /* needs the whole grid of a picture (compress_call.picture) */
    int looks_back;    /* 1 + the option (bool) that makes it look at earlier pictures; 0 = never */
    bool baseline;     /* only for comparisons: a server does not take it by default */
};

struct compress_call {
    enum stage stage;
    int layer;           /* block index at *-layer stages, else -1 */
    int n_layer;         /* blocks of the tower */
    const float *metric; /* [rows->n, n_metric] similarity features (ViT: keys averaged over
                            heads); NULL = the rows themselves */
    int n_metric;
    const double *options;               /* values in the order of info.options; no NaN left */
    const struct picture_facts *picture; /* at pixels and image-rows, else NULL */
    const float *thresholds; /* [n_layer] of adaptive counts; NULL = none were measured */
};

struct compress_outcome {
    const char *skipped; /* static reason when it did not act, else NULL */
    float weakest;       /* tome with fixed counts: similarity of the last pair that it merged; left
                            alone when none was */
};

struct compressor_ops {
    /* rows in place. 0, or -1 only for out of memory (the caller then goes on
     * uncompressed: rows must be untouched). scratch is rewound by the caller. */
    int (*apply)(const struct compress_call *call, struct rows *rows, struct arena *scratch,
                 struct compress_outcome *out, struct err *e);
    /* Rows that will be left when it starts from n free (unprotected) rows, or -1 if that
     * depends on the content. Lets the context check run before any work. At a *-layer
     * stage: after the last block of a tower that is deep enough. A method of the grid:
     * from a full square one of n cells; it never leaves more where some are protected. */
    int (*predict)(const double *options, int n);
};

struct compressor {
    struct compressor_info info;
    struct compressor_ops ops;
};

/* The one table, NULL-terminated; entry 0 is `off`. */
extern const struct compressor *const compressors[];
const struct compressor *compressor_find(const char *name); /* NULL if unknown */
/* A method's options, and behind them the modifiers that all methods but `off` have
 * (modifiers.h): values are kept in this order. */
int compressor_n_options(const struct compressor *c);
const struct compressor_option *compressor_option(const struct compressor *c, int i);
/* Index of an option, -1 if the method has none of that name. */
int compressor_option_index(const struct compressor *c, const char *name);
/* The options of a method and its modifiers at their defaults. */
void compressor_defaults(const struct compressor *c, double options[COMPRESSOR_MAX_OPTIONS]);
/* Whether options[i] has a value: NaN (auto) counts, below the minimum does not. */
bool compressor_option_is_set(const struct compressor *c, const double *options, int i);
/* The methods and their options as Markdown, for docs/compression.md; -1 when out is full. */
int compressors_print_docs(struct buf *out);

/* How vision/ and model/ call back without knowing plans: they run `run` after each
 * layer that `wants` it. ctx belongs to the engine. NULL hook = stage not used. */
struct stage_hook {
    bool (*wants)(void *ctx, int layer);
    int (*run)(void *ctx, int layer, int n_layer, struct rows *rows, const float *metric,
               int n_metric, struct err *e);
    void *ctx;
};

#endif
