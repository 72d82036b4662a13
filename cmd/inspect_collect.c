/* What tamp would make of a file: each part is really opened by the code that would use
 * it, so that inspect and serve can never say different things. */
#include "cmd/inspect.h"
#include "model/chat_template.h"
#include "model/family.h"
#include "model/tokenizer.h"
#include "vision/vision.h"

#include <stdio.h>
#include <string.h>

static void verdict(struct inspection *in, const char *part, const struct err *e, const char *text)
{
    struct inspect_verdict *v = &in->verdicts[in->n_verdicts++];
    v->part = part;
    v->ok = e->code == ERR_NONE;
    snprintf(v->text, sizeof v->text, "%s", v->ok ? text : e->msg);
    in->usable = in->usable && v->ok;
}

static struct inspect_type *type_row(struct inspection *in, const struct gguf_tensor *t)
{
    const char *name = gguf_tensor_type_name(t);
    for (int i = 0; i < in->n_types; i++) {
        if (in->types[i].name == name) { /* one static name for each type */
            return &in->types[i];
        }
    }
    struct inspect_type *row = &in->types[in->n_types++];
    *row = (struct inspect_type){.name = name, .supported = tensor_type_traits(t->type) != NULL};
    return row;
}

static void collect_tensors(struct inspection *in)
{
    struct err e = ERR_INIT;
    for (size_t i = 0; i < gguf_n_tensors(in->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(in->gguf, i);
        struct inspect_type *row = type_row(in, t);
        row->n_tensors++;
        row->n_bytes += t->n_bytes;
        in->tensor_bytes += t->n_bytes;
        in->n_parameters += (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
        if (!row->supported && e.code == ERR_NONE) {
            err_set(&e, ERR_UNSUPPORTED, "%s is not supported (first seen in %s)", row->name,
                    t->name);
        }
    }
    verdict(in, "tensor types", &e, "all supported");
}

static void collect_family(struct inspection *in)
{
    struct err e = ERR_INIT;
    const struct family *family = NULL;
    struct hparams h;
    char text[256] = "";
    if (!family_read(in->gguf, &family, &h, &e) &&
        !family_check_tensors(in->gguf, family, &h, &e)) {
        snprintf(text, sizeof text,
                 "%s: %d layers, width %d, %d heads (%d for keys), vocabulary %d, context %d",
                 family->name, h.n_layer, h.n_embd, h.n_head, h.n_head_kv, h.n_vocab,
                 h.n_ctx_train);
    }
    verdict(in, "family", &e, text);
}

static void collect_tokenizer(struct inspection *in)
{
    struct err e = ERR_INIT;
    char text[128] = "";
    struct tokenizer *t = tokenizer_open(in->gguf, &e);
    if (t) {
        snprintf(text, sizeof text, "%s, %d tokens", tokenizer_kind(t), tokenizer_n_vocab(t));
    }
    verdict(in, "tokenizer", &e, text);
    tokenizer_close(t);
}

static void collect_template(struct inspection *in)
{
    struct err e = ERR_INIT;
    const struct chat_template *t = chat_template_choose(in->gguf, NULL, &e);
    verdict(in, "chat template", &e, t ? chat_template_name(t) : "");
}

static void collect_vision(struct inspection *in)
{
    struct err e = ERR_INIT;
    char text[256] = "";
    struct vision *v = vision_open(gguf_path(in->gguf), &e);
    if (v) {
        const struct vision_info *info = vision_info(v);
        snprintf(text, sizeof text,
                 "%s: %d px pictures, %d patches to %d rows of width %d, %d layers, width %d",
                 info->projector, info->image_size, info->n_patches, info->n_rows, info->n_embd_out,
                 info->n_layer, info->n_embd);
    }
    verdict(in, "vision", &e, text);
    vision_close(v);
}

void inspect_collect(const struct gguf *g, struct inspection *in)
{
    *in = (struct inspection){.gguf = g, .kind = "unknown", .usable = true};
    struct err e = ERR_INIT;
    struct gguf_string architecture;
    collect_tensors(in);
    if (gguf_get_string(g, "general.architecture", &architecture, &e) != GGUF_FOUND) {
        err_set(&e, ERR_FORMAT,
                "general.architecture is missing: neither a language model nor a "
                "vision projector");
        verdict(in, "family", &e, "");
        return;
    }
    if (architecture.len == 4 && !memcmp(architecture.ptr, "clip", 4)) {
        in->kind = "vision projector";
        collect_vision(in);
        return;
    }
    in->kind = "language model";
    collect_family(in);
    collect_tokenizer(in);
    collect_template(in);
}
