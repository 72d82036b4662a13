/* What the operator wants: flags > environment > file > defaults, from the one table
 * in config.c. Checked when it is read; afterwards it is plain data that cmd/ turns
 * into the parameters of engine and server, which never see this struct. */
#ifndef TAMP_CONFIG_CONFIG_H
#define TAMP_CONFIG_CONFIG_H

#include "base/log.h"
#include "config/schema.h"

#define CONFIG_MAX_OPTIONS         64
#define CONFIG_DEFAULT_MODEL       "models/SmolLM2-135M-Instruct.Q4_1.gguf"
#define CONFIG_DEFAULT_MMPROJ      "models/mmproj-dinov2-s14-smollm2.gguf"
#define CONFIG_DEFAULT_MMPROJ_LORA "models/lora-dinov2-s14-smollm2.gguf"

/* Which sub-commands take an option. */
enum config_command { CONFIG_SERVE = 1, CONFIG_RUN = 2 };

enum config_precision { PRECISION_INT8, PRECISION_F32 };
enum config_rollout { CONFIG_ROLLOUT_FULL, CONFIG_ROLLOUT_PROGRESSIVE };
enum config_cache_type { CACHE_TYPE_F16, CACHE_TYPE_Q8_0 };
enum config_pooling { POOL_AUTO, POOL_MEAN, POOL_LAST, POOL_CLS };

/* One entry of `profiles:` in the file. What `from` and `set` mean is for compress/plan. */
struct config_profile {
    char *name;
    char *from;          /* a profile that exists; NULL = balanced */
    char *set;           /* settings on top of it, "image.ratio=6,text.method=off"; NULL = none */
    char *static_prefix; /* text before the messages of each request; NULL = that of `from` */
    char *static_prefix_file; /* the same from a file, which config_load reads into the former */
};

struct config {
    char *host;
    int64_t port, max_queue, drain_timeout_s;
    char *api_key, *api_key_file;
    bool insecure, web;
    bool speculation;
    bool huge_pages;
    char *model, *mmproj, *mmproj_lora, *lora, *chat_template;
    int64_t ctx_size, max_images, image_cache_mb, prefix_cache_mb;
    bool prefix_cache;
    int64_t threads, parallel, itl_target_ms;
    char *kernel;
    int precision;  /* enum config_precision */
    int cache_type; /* enum config_cache_type */
    int pooling;    /* enum config_pooling */
    char *profile, *compression;
    bool baselines;
    double shadow, shadow_target; /* percent */
    int rollout;                  /* enum config_rollout */
    int log_format;               /* enum log_format */
    int log_level;                /* enum log_level */
    char *config_file;

    struct config_profile *profiles; /* [n_profiles] */
    int n_profiles;
    char **api_keys; /* [n_api_keys]: --api-key and the lines of --api-key-file */
    int n_api_keys;
    bool key_file_readable_by_others;
    unsigned char origin[CONFIG_MAX_OPTIONS];
};

const struct schema *config_schema(void);

/* Read flags, environment and file, check everything, and load the API keys. `extra` may
 * add a table of flags of the sub-command's own (NULL = none). Words that are no flags go
 * to positional (room for argc). On failure c is already cleared. */
int config_load(struct config *c, enum config_command command, struct schema_values *extra,
                int argc, char **argv, const char **positional, int *n_positional, struct err *e);
void config_clear(struct config *c);

/* True when something stronger than the default set this option. */
bool config_given(const struct config *c, const char *name);
enum schema_origin config_origin(const struct config *c, const char *name);

/* True when only this machine can reach the address. */
bool config_is_loopback(const char *host);

/* Log what is allowed but unwise: a key on the command line, a key file that others can
 * read, listening without a key, an environment variable that is nearly an option. */
void config_log_warnings(const struct config *c, enum config_command command);

/* api-key and the lines of api-key-file, into api_keys (config_keys.c). */
int config_load_keys(struct config *c, struct err *e);
/* The YAML file alone, into c (config_file.c). `name` is used in messages. */
int config_read_file(struct config *c, const char *path, struct err *e);
/* After it: the static prefixes of its profiles, from their files, checked. */
int config_read_prefixes(struct config *c, struct err *e);
int config_read_text(struct config *c, const char *name, const char *text, size_t len,
                     struct err *e);

/* The commented default file and docs/configuration.md. */
void config_print_yaml(struct buf *out);
void config_print_markdown(const struct schema *run_flags, struct buf *out);

#endif
