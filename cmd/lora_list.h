/* --lora and --mmproj-lora -> what the engine opens. */
#ifndef TAMP_CMD_LORA_LIST_H
#define TAMP_CMD_LORA_LIST_H

#include "engine/engine.h"

struct lora_list {
    struct engine_lora at[ENGINE_MAX_LORAS];
    int n;
    char *text; /* the paths lie in here */
};

/* "FILE[:SCALE],...": all behind the last colon of a part is a scale if it is a number.
 * -1: a scale out of range, a part without a file, too many. */
int lora_list_parse(struct lora_list *l, const char *text, struct err *e);
/* One more, for requests with pictures, at the end; path stays the caller's. */
int lora_list_add_for_pictures(struct lora_list *l, const char *path, struct err *e);
void lora_list_clear(struct lora_list *l);

#endif
