/* What will be done to one request: one method and one rate for each modality.
 * plan = profile (+) configuration (+) request override (+) image_url.detail. */
#ifndef TAMP_COMPRESS_PLAN_H
#define TAMP_COMPRESS_PLAN_H

#include "base/err.h"
#include "compress/chat.h"
#include "compress/compressor.h"
#include "compress/guard.h"

#include <stddef.h>

struct calibration;
struct buf;

struct plan_step {
    const struct compressor *method; /* never NULL; &compressor `off` = nothing */
    enum stage stage;
    double options[COMPRESSOR_MAX_OPTIONS]; /* as info.options; NaN = auto */
    int rung;                /* of a cascade, from 0; options[ratio] is that of the rung */
    const float *thresholds; /* compress_call.thresholds; follow from the model and options */
};

struct plan {
    char profile[32];
    struct plan_step step[MODALITY_COUNT];
    bool protect_system; /* system prompt is never merged */
    int protect_tail;    /* rows at the end of the last user message that never merge */
    int min_text_rows;   /* fewer text rows than this: not worth it, skipped */
    struct guard guard;
    /* The operator's text before the messages of each request, such as a policy, NULL = none.
     * Not owned; it must stay as long as plans with it are used. */
    const char *static_prefix;
    double budget_ms; /* to the first token: compress no more than that takes; 0 = none */
    double cap;       /* no step compresses more than so many times; 0 = as planned. Not part of the
                         id: what holds the plan back (roll-out, budget), not what it is */
};

#define PLAN_MAX_LM_STEPS 3  /* `steps` of the lm slot */
#define PLAN_MAX_PROFILES 64 /* built in and of the operator together */

/* The profiles there are, name by name, the built-in ones first; NULL past the last. */
const char *plan_profile_name(int i);
const char *plan_profile_summary(int i);

/* Start from a profile ("off", "balanced", "product_search", "customer_service", or one
 * that was added from the configuration). ERR_INVALID names the ones there are. */
int plan_from_profile(struct plan *p, const char *name, struct err *e);

/* Nothing is merged, the static prefix stays. */
int plan_turn_off(struct plan *p, struct err *e);

/* Profiles of the operator, read from the configuration at start; copied. Not
 * thread-safe: before the server starts. A name that exists is replaced. Names are 1 to 31
 * of a-z 0-9 _ - (they become part of logs and metrics). */
int plan_add_profile(const char *name, const struct plan *p, struct err *e);

/* Whether methods that exist for comparisons only may be chosen (not by default). As
 * plan_add_profile: before the server starts. */
void plan_allow_baselines(bool allowed);

/* Override: the method of one slot (options go to their defaults), then one option.
 * Values as JSON gives them; enum options and "auto" take the text form, bool options
 * "true" and "false" or 0 and 1. e->param is "compression.image.ratio". */
int plan_set_method(struct plan *p, enum modality m, const char *method, struct err *e);
int plan_set_number(struct plan *p, enum modality m, const char *option, double value,
                    struct err *e);
int plan_set_text(struct plan *p, enum modality m, const char *option, const char *value,
                  struct err *e);

/* 1 to 600000, 0 = none. ERR_RANGE with param "compression.budget_ms". */
int plan_set_budget(struct plan *p, double ms, struct err *e);

/* The step for one picture: detail low = the strongest image plan, high = none, auto =
 * the plan; `auto` ratios resolved from the original size (pixels) and the rows it would
 * cost. A plan whose image method is off stays off whatever the detail.
 * *skipped (may be NULL) gets a static reason when the plan was not used, else NULL. */
void plan_image_step(const struct plan *p, enum image_detail detail, int width, int height,
                     int n_rows, struct plan_step *out, const char **skipped);
/* Whether the counts of a picture's step follow its content, by thresholds for this ratio. */
bool plan_step_is_adaptive(const struct plan_step *step);
/* Rows in for each row out that a picture's step of n rows asks for. */
double plan_step_ratio(const struct plan_step *step, int n);
/* Rungs of a step that is a cascade, 1 for others; and the step at one of them, made from the
 * step as it was planned. */
int plan_step_rungs(const struct plan_step *step);
void plan_step_set_rung(struct plan_step *step, const struct plan_step *planned, int rung);
/* The lead that each of the first tokens needs on the rungs before the last, and how many they
 * are; 0 without a cascade. */
double plan_step_margin(const struct plan_step *step);
int plan_step_tokens(const struct plan_step *step);
/* The step for n_rows rows, at no more than `cap` times, or off where its method has no such
 * rate. */
void plan_step_cap(struct plan_step *step, enum modality m, int n_rows, double cap);
/* Nothing is merged; the name of the profile and the guard stay. */
void plan_make_plain(struct plan *p);
/* The step for the text of a prompt with n_text_rows rows; a target ratio becomes a
 * threshold through the calibration of this model (NULL: none at hand, skipped). */
void plan_text_step(const struct plan *p, enum modality m, int n_text_rows,
                    const struct calibration *cal, struct plan_step *out, const char **skipped);

/* The same for the lm slot of a decoder with n_layer blocks: one step for each place where it
 * acts, with that block as `cutoff` and its part of the ratio, ascending. Returns how many
 * there are; 0: nothing will be done, and *skipped (never NULL) says why, if it was asked. */
int plan_lm_steps(const struct plan *p, int n_layer, int n_text_rows, const struct calibration *cal,
                  struct plan_step out[PLAN_MAX_LM_STEPS], const char **skipped);

/* "image tome ratio=4 schedule=constant counts=fixed; text cosine threshold=0.85 max_group=4
 * norm=direction; protect_system=true protect_tail=32 min_text_rows=64; guard margin=0.15 tokens=1
 * min_ratio=1.1", or "off": log, report, docs. Options that have no effect are left out. -1 when
 * out is full. */
int plan_print(const struct plan *p, struct buf *out);
/* Same plan -> same id, across restarts: goes into cache keys. */
unsigned long long plan_id(const struct plan *p);

#endif
