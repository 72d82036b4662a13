/* GET /v1/compression/methods: the tables of compress/ as JSON, for whoever builds a form
 * or checks a configuration. */
#include "server/server_impl.h"

#include "server/json_write.h"

/* Some methods and profiles of 4 KiB each; an operator may add PLAN_MAX_PROFILES. */
#define METHODS_BYTES ((size_t)1 << 20)

static const char *stage_at(int i)
{
    return stage_name((enum stage)i);
}

static const char *modality_at(int i)
{
    return modality_name((enum modality)i);
}

static void names_of(struct json_writer *w, const char *key, unsigned mask, int n,
                     const char *(*name)(int))
{
    json_key(w, key);
    json_begin_array(w);
    for (int i = 0; i < n; i++) {
        if (mask & 1u << i) {
            json_string(w, name(i));
        }
    }
    json_end_array(w);
}

static void render_default(struct json_writer *w, const struct compressor_option *o)
{
    json_key(w, "default");
    if (o->def < o->min) {
        json_null(w);
    } else if (o->type == OPTION_ENUM) {
        json_string(w, o->choices[(int)o->def]);
    } else if (o->type == OPTION_BOOL) {
        json_bool(w, o->def != 0);
    } else {
        json_number(w, o->def, 9);
    }
}

static void render_range(struct json_writer *w, const struct compressor_option *o)
{
    if (o->type == OPTION_ENUM) {
        json_key(w, "choices");
        json_begin_array(w);
        for (int i = 0; o->choices[i]; i++) {
            json_string(w, o->choices[i]);
        }
        json_end_array(w);
    } else if (o->type != OPTION_BOOL) {
        json_key(w, "min");
        json_number(w, o->min, 9);
        json_key(w, "max");
        json_number(w, o->max, 9);
        json_key(w, "auto");
        json_bool(w, o->auto_ok);
        json_put(w, "unit", o->unit);
    }
}

/* slots: those of the method. */
static void render_option(struct json_writer *w, const struct compressor_option *o, unsigned slots)
{
    static const char *const types[] = {[OPTION_FLOAT] = "number",
                                        [OPTION_INT] = "integer",
                                        [OPTION_BOOL] = "boolean",
                                        [OPTION_ENUM] = "string"};
    json_begin_object(w);
    json_put(w, "name", o->name);
    json_put(w, "type", types[o->type]);
    render_range(w, o);
    render_default(w, o);
    json_put(w, "help", o->help);
    json_put(w, "replaces", o->replaces);
    names_of(w, "slots", o->modalities ? o->modalities & slots : slots, MODALITY_COUNT,
             modality_at);
    json_end_object(w);
}

/* Modifiers are listed with the options of the methods that have them. */
static void render_method(struct json_writer *w, const struct compressor *c)
{
    const struct compressor_info *info = &c->info;
    json_begin_object(w);
    json_put(w, "name", info->name);
    json_put(w, "summary", info->summary);
    json_put(w, "source", info->source);
    names_of(w, "slots", info->modalities, MODALITY_COUNT, modality_at);
    names_of(w, "stages", info->stages, STAGE_COUNT, stage_at);
    json_key(w, "whole_prompt");
    json_bool(w, info->whole_prompt);
    json_key(w, "drops");
    json_bool(w, info->drops);
    json_key(w, "baseline");
    json_bool(w, info->baseline);
    json_key(w, "options");
    json_begin_array(w);
    for (int i = 0; i < compressor_n_options(c); i++) {
        const struct compressor_option *o = compressor_option(c, i);
        if (!o->modalities || o->modalities & info->modalities) {
            render_option(w, o, info->modalities);
        }
    }
    json_end_array(w);
    json_end_object(w);
}

static void render_profile(struct json_writer *w, int i)
{
    struct plan p;
    struct err e = ERR_INIT;
    struct buf text;
    buf_init(&text, 4096);
    json_begin_object(w);
    json_put(w, "name", plan_profile_name(i));
    json_put(w, "summary", plan_profile_summary(i));
    bool ok = plan_from_profile(&p, plan_profile_name(i), &e) == 0 && plan_print(&p, &text) == 0;
    json_put(w, "plan", ok ? buf_str(&text) : NULL);
    json_end_object(w);
    buf_free(&text);
}

enum http_next methods_handle(struct exchange *ex)
{
    struct buf body;
    struct json_writer w;
    buf_init(&body, METHODS_BYTES);
    json_writer_init(&w, &body);
    json_begin_object(&w);
    json_put(&w, "object", "compression.methods");
    json_put(&w, "default_profile", ex->server->default_plan.profile);
    names_of(&w, "slots", ~0u, MODALITY_COUNT, modality_at);
    names_of(&w, "stages", ~0u, STAGE_COUNT, stage_at);
    json_key(&w, "profiles");
    json_begin_array(&w);
    for (int i = 0; plan_profile_name(i); i++) {
        render_profile(&w, i);
    }
    json_end_array(&w);
    json_key(&w, "methods");
    json_begin_array(&w);
    for (int i = 0; compressors[i]; i++) {
        render_method(&w, compressors[i]);
    }
    json_end_array(&w);
    json_end_object(&w);
    return http_answer(ex, 200, "application/json", &body, NULL);
}
