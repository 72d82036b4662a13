#include "cmd/greeting.h"

#include "config/version.h"

#include <string.h>
#include <unistd.h>

/* A request with a picture, ready to send; it ships with the sources. */
#define EXAMPLE "docs/examples/photo.json"
#define MB      1e6

static void print_models(const struct engine_info *info, struct buf *out)
{
    buf_printf(out, "model        %s (%s, %d layers, %.0f MB of weights), context %d rows\n",
               info->model_name, info->family, info->n_layer, (double)info->weight_bytes / MB,
               info->n_ctx);
    buf_printf(out, "text         %s tokens, chat template %s\n", info->tokenizer,
               info->chat_template);
    if (info->mmproj_name) {
        buf_printf(out, "pictures     %s (%s), %d rows each\n", info->mmproj_name, info->projector,
                   info->image_rows);
    } else {
        buf_puts(out, "pictures     none: this model has no --mmproj\n");
    }
    if (info->n_loras > 0) {
        buf_printf(out, "adapters     %d LoRA file%s beside the model, see GET /lora-adapters\n",
                   info->n_loras, info->n_loras == 1 ? "" : "s");
    }
}

static void print_plan(const struct plan *plan, struct buf *out)
{
    buf_printf(out, "compression  %s: ", plan->profile);
    plan_print(plan, out);
    buf_putc(out, '\n');
}

static void print_computing(const struct engine_info *info, struct buf *out)
{
    buf_printf(out, "computing    %s in %s, %d thread%s, OpenBLAS core %s, %d requests at once\n",
               info->kernel, info->precision, info->n_threads, info->n_threads == 1 ? "" : "s",
               info->blas_core, info->n_parallel);
    if (info->blas_correction && *info->blas_correction) {
        buf_printf(out, "             %s\n", info->blas_correction);
    }
}

static void print_example(const struct config *c, const char *url, bool pictures, struct buf *out)
{
    const char *key = c->n_api_keys ? " -H \"Authorization: Bearer $TAMP_API_KEY\"" : "";
    buf_puts(out, "try          curl -s");
    if (pictures && access(EXAMPLE, R_OK) == 0) {
        buf_printf(out, "%s --json @" EXAMPLE " %s/v1/chat/completions\n", key, url);
    } else {
        buf_printf(out,
                   "%s --json '{\"messages\":[{\"role\":\"user\",\"content\":\"What is a "
                   "T-shirt?\"}]}' %s/v1/chat/completions\n",
                   key, url);
    }
}

void greeting_print(const struct config *c, const struct engine_info *info, const struct plan *plan,
                    int port, struct buf *out)
{
    char url[300];
    bool v6 = strchr(c->host, ':') != NULL;
    snprintf(url, sizeof url, "http://%s%.255s%s:%d", v6 ? "[" : "", c->host, v6 ? "]" : "", port);
    buf_printf(out, "tamp %s\n", TAMP_VERSION);
    print_models(info, out);
    print_plan(plan, out);
    print_computing(info, out);
    buf_printf(out, "listening    %s%s\n", url, c->web ? "/ (open it in a browser)" : "");
    print_example(c, url, info->mmproj_name != NULL, out);
}
