#include "cmd/lora_list.h"

#include "base/alloc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int bad_list(struct err *e, const char *part, const char *what)
{
    return err_reason(e, ERR_INVALID, "invalid_config", "--lora: '%.200s' %s", part, what);
}

static int add(struct lora_list *l, const char *path, float scale, bool pictures_only,
               struct err *e)
{
    if (l->n == ENGINE_MAX_LORAS) {
        return err_reason(e, ERR_INVALID, "invalid_config", "at most %d LoRA adapters",
                          ENGINE_MAX_LORAS);
    }
    l->at[l->n++] =
        (struct engine_lora){.path = path, .scale = scale, .pictures_only = pictures_only};
    return 0;
}

/* One part of the list, which is cut behind its path. */
static int parse_part(struct lora_list *l, char *part, struct err *e)
{
    float scale = 1;
    char *colon = strrchr(part, ':');
    if (colon) {
        char *end;
        float number = strtof(colon + 1, &end);
        if (end > colon + 1 && *end == '\0') {
            if (!(fabsf(number) <= ENGINE_LORA_MAX_SCALE)) {
                return bad_list(e, part, "has a scale that is not in -100..100");
            }
            scale = number;
            *colon = '\0';
        }
    }
    return *part ? add(l, part, scale, false, e) : bad_list(e, part, "names no file");
}

int lora_list_parse(struct lora_list *l, const char *text, struct err *e)
{
    *l = (struct lora_list){.text = mem_strdup(text)};
    if (!l->text) {
        return err_no_memory(e, strlen(text));
    }
    char *part = *text ? l->text : NULL;
    while (part) {
        char *comma = strchr(part, ',');
        if (comma) {
            *comma = '\0';
        }
        if (parse_part(l, part, e)) {
            return -1;
        }
        part = comma ? comma + 1 : NULL;
    }
    return 0;
}

int lora_list_add_for_pictures(struct lora_list *l, const char *path, struct err *e)
{
    return *path ? add(l, path, 1, true, e) : 0;
}

void lora_list_clear(struct lora_list *l)
{
    mem_free(l->text);
    *l = (struct lora_list){.n = 0};
}
