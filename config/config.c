#include "config/config.h"

#include "base/alloc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOTH (CONFIG_SERVE | CONFIG_RUN)

static const char *const log_formats[] = {"logfmt", "json", NULL};
static const char *const precisions[] = {"int8", "f32", NULL};
static const char *const cache_types[] = {"f16", "q8_0", NULL};
static const char *const poolings[] = {"auto", "mean", "last", "cls", NULL};
static const char *const rollouts[] = {"full", "progressive", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};

#define AT(member) offsetof(struct config, member)

static const struct schema_option options[] = {
    {.name = "config",
     .group = "Configuration file",
     .type = SCHEMA_STRING,
     .def = "",
     .metavar = "FILE",
     .unit = "",
     .help = "YAML file to read; config/tamp.yaml shows every key",
     .offset = AT(config_file),
     .flags = SCHEMA_NOT_IN_FILE,
     .commands = BOTH},

    {.name = "model",
     .group = "Model",
     .type = SCHEMA_STRING,
     .def = CONFIG_DEFAULT_MODEL,
     .metavar = "FILE",
     .unit = "",
     .help = "GGUF file of the language model",
     .offset = AT(model),
     .commands = BOTH},
    {.name = "mmproj",
     .group = "Model",
     .type = SCHEMA_STRING,
     .def = "",
     .metavar = "FILE",
     .unit = "",
     .help = "GGUF file of the vision tower and its projector; the default model has its own, any "
             "other model is text only without it",
     .offset = AT(mmproj),
     .commands = BOTH},
    {.name = "mmproj-lora",
     .group = "Model",
     .type = SCHEMA_STRING,
     .def = "",
     .metavar = "FILE",
     .unit = "",
     .help = "GGUF LoRA adapter, trained with the projector, that requests with pictures use; the "
             "default model has its own",
     .offset = AT(mmproj_lora),
     .commands = BOTH},
    {.name = "lora",
     .group = "Model",
     .type = SCHEMA_STRING,
     .def = "",
     .metavar = "FILES",
     .unit = "",
     .help = "GGUF LoRA adapters that all requests use unless they say otherwise, as "
             "FILE[:SCALE], several with commas between them; a scale of 0 loads one for "
             "requests that ask for it",
     .offset = AT(lora),
     .commands = BOTH},
    {.name = "chat-template",
     .group = "Model",
     .type = SCHEMA_STRING,
     .def = "",
     .metavar = "NAME",
     .unit = "",
     .help = "chat template to use in place of the one that the model file names",
     .offset = AT(chat_template),
     .commands = BOTH},
    {.name = "ctx-size",
     .group = "Model",
     .type = SCHEMA_INT,
     .def = "0",
     .min = 0,
     .max = 1 << 20,
     .metavar = "N",
     .unit = "rows",
     .help = "longest sequence, prompt and answer together; 0 takes what the model was trained "
             "for, at most 8192",
     .offset = AT(ctx_size),
     .commands = BOTH},

    {.name = "threads",
     .group = "Computing",
     .type = SCHEMA_INT,
     .def = "0",
     .min = 0,
     .max = 256,
     .metavar = "N",
     .unit = "",
     .help = "threads that compute; 0 takes one for each core or for each hardware thread that "
             "affinity and cgroup allow, whichever multiplies faster when it starts",
     .offset = AT(threads),
     .commands = BOTH},
    {.name = "parallel",
     .group = "Computing",
     .type = SCHEMA_INT,
     .def = "4",
     .min = 1,
     .max = 64,
     .metavar = "N",
     .unit = "requests",
     .help = "requests that are computed at the same time; each may come to need the keys and "
             "values of a whole context",
     .offset = AT(parallel),
     .commands = CONFIG_SERVE},
    {.name = "kernel",
     .group = "Computing",
     .type = SCHEMA_STRING,
     .def = "auto",
     .metavar = "NAME",
     .unit = "",
     .help = "set of compute kernels, for comparisons and bug reports; auto takes the fastest that "
             "the CPU can run",
     .offset = AT(kernel),
     .commands = BOTH},
    {.name = "precision",
     .group = "Computing",
     .type = SCHEMA_ENUM,
     .def = "int8",
     .choices = precisions,
     .metavar = "NAME",
     .unit = "",
     .help = "int8 keeps the file's weights in a layout for fast integer kernels and rounds "
             "activations to 12 bits, to bf16 for prompts where the CPU has bf16 tiles (AMX; "
             "--kernel vnni avoids them); f32 computes in single precision, several times slower",
     .offset = AT(precision),
     .commands = BOTH},
    {.name = "cache-type",
     .group = "Computing",
     .type = SCHEMA_ENUM,
     .def = "f16",
     .choices = cache_types,
     .metavar = "NAME",
     .unit = "",
     .help = "how keys and values are kept: f16, or q8_0 in 8 bits with a scale for 32 of them: "
             "about half the memory, slightly less exact",
     .offset = AT(cache_type),
     .commands = BOTH},

    {.name = "pooling",
     .group = "Computing",
     .type = SCHEMA_ENUM,
     .def = "auto",
     .choices = poolings,
     .metavar = "NAME",
     .unit = "",
     .help = "how the rows of a text become one embedding: auto is what the file says, and last "
             "where it says nothing",
     .offset = AT(pooling),
     .commands = CONFIG_SERVE},

    {.name = "huge-pages",
     .group = "Computing",
     .type = SCHEMA_BOOL,
     .def = "true",
     .metavar = "",
     .unit = "",
     .help = "ask the system for huge pages for weights, keys and values, where it has them",
     .offset = AT(huge_pages),
     .commands = BOTH},
    {.name = "speculation",
     .group = "Computing",
     .type = SCHEMA_BOOL,
     .def = "true",
     .metavar = "",
     .unit = "",
     .help = "draft the next tokens from what the prompt and the answer say already and check "
             "several in one pass: the same answers, sooner where they quote",
     .offset = AT(speculation),
     .commands = BOTH},
    {.name = "itl-target-ms",
     .group = "Computing",
     .type = SCHEMA_INT,
     .def = "80",
     .min = 0,
     .max = 60000,
     .metavar = "N",
     .unit = "ms",
     .help = "time between two tokens of an answer while prompts of others are computed beside "
             "it: the engine measures how many prompt rows that allows; fewer ms mean smoother "
             "answers and later first tokens; 0 never holds prompts back",
     .offset = AT(itl_target_ms),
     .commands = CONFIG_SERVE},
    {.name = "image-cache-mb",
     .group = "Computing",
     .type = SCHEMA_INT,
     .def = "256",
     .min = 0,
     .max = 1 << 20,
     .metavar = "N",
     .unit = "MB",
     .help = "memory for the rows of pictures, so that one that comes again costs nothing; each "
             "API key has its own; 0 keeps none",
     .offset = AT(image_cache_mb),
     .commands = CONFIG_SERVE},
    {.name = "prefix-cache",
     .group = "Computing",
     .type = SCHEMA_BOOL,
     .def = "true",
     .metavar = "",
     .unit = "",
     .help = "keep keys and values of prompts, so that what the next one begins with alike is not "
             "computed again; each API key has its own",
     .offset = AT(prefix_cache),
     .commands = CONFIG_SERVE},
    {.name = "prefix-cache-mb",
     .group = "Computing",
     .type = SCHEMA_INT,
     .def = "256",
     .min = 1,
     .max = 1 << 20,
     .metavar = "N",
     .unit = "MB",
     .help = "memory for what the prefix cache keeps; it is given up as soon as running requests "
             "need the room that --ctx-size and --parallel promise them",
     .offset = AT(prefix_cache_mb),
     .commands = CONFIG_SERVE},

    {.name = "profile",
     .group = "Compression",
     .type = SCHEMA_STRING,
     .def = "balanced",
     .metavar = "NAME",
     .unit = "",
     .help = "compression plan of requests that ask for none: off, balanced, product_search, "
             "customer_service, or one of the file's profiles",
     .offset = AT(profile),
     .commands = BOTH},
    {.name = "compression",
     .group = "Compression",
     .type = SCHEMA_STRING,
     .def = "on",
     .metavar = "PLAN",
     .unit = "",
     .help = "on uses the profile as it is, off merges nothing; a profile's name replaces the "
             "profile; settings such as image.ratio=2,text.threshold=0.9 change it",
     .offset = AT(compression),
     .commands = BOTH},
    {.name = "shadow",
     .group = "Compression",
     .type = SCHEMA_FLOAT,
     .def = "0",
     .min = 0,
     .max = 100,
     .metavar = "PERCENT",
     .unit = "",
     .help =
         "of compressed requests, run once more uncompressed while nobody waits, to compare the "
         "answers; a plan that falls below --shadow-target compresses less by itself",
     .offset = AT(shadow),
     .commands = CONFIG_SERVE},
    {.name = "shadow-target",
     .group = "Compression",
     .type = SCHEMA_FLOAT,
     .def = "95",
     .min = 0,
     .max = 100,
     .metavar = "PERCENT",
     .unit = "",
     .help = "of the first 32 tokens of compressed answers that the uncompressed prompt must lead "
             "to as well",
     .offset = AT(shadow_target),
     .commands = CONFIG_SERVE},
    {.name = "rollout",
     .group = "Compression",
     .type = SCHEMA_ENUM,
     .def = "full",
     .choices = rollouts,
     .metavar = "NAME",
     .unit = "",
     .help = "full compresses as planned from the start; progressive begins with shadows alone and "
             "climbs to 1.3, 2 and 4 times and the plan while --shadow says that answers agree",
     .offset = AT(rollout),
     .commands = CONFIG_SERVE},
    {.name = "baselines",
     .group = "Compression",
     .type = SCHEMA_BOOL,
     .def = "false",
     .metavar = "",
     .unit = "",
     .help = "take the methods that exist for comparisons only, random, stride and truncate: for "
             "measurements, not for users",
     .offset = AT(baselines),
     .commands = BOTH},

    {.name = "host",
     .group = "Server",
     .type = SCHEMA_STRING,
     .def = "127.0.0.1",
     .metavar = "ADDRESS",
     .unit = "",
     .help = "address to listen on; any but a loopback address needs a key or --insecure",
     .offset = AT(host),
     .commands = CONFIG_SERVE},
    {.name = "port",
     .group = "Server",
     .type = SCHEMA_INT,
     .def = "8080",
     .min = 0,
     .max = 65535,
     .metavar = "N",
     .unit = "",
     .help = "port to listen on; 0 takes a free one and prints it",
     .offset = AT(port),
     .commands = CONFIG_SERVE},
    {.name = "api-key",
     .group = "Server",
     .type = SCHEMA_STRING,
     .def = "",
     .metavar = "KEY",
     .unit = "",
     .help = "key that clients must send as a bearer token; a flag can be seen by every user of "
             "the machine, so prefer the file or the environment",
     .offset = AT(api_key),
     .flags = SCHEMA_SECRET,
     .commands = CONFIG_SERVE},
    {.name = "api-key-file",
     .group = "Server",
     .type = SCHEMA_STRING,
     .def = "",
     .metavar = "FILE",
     .unit = "",
     .help = "file with one key on each line; empty lines and lines that begin with # are skipped",
     .offset = AT(api_key_file),
     .commands = CONFIG_SERVE},
    {.name = "insecure",
     .group = "Server",
     .type = SCHEMA_BOOL,
     .def = "false",
     .metavar = "",
     .unit = "",
     .help = "allow listening beyond loopback without a key",
     .offset = AT(insecure),
     .commands = CONFIG_SERVE},
    {.name = "web",
     .group = "Server",
     .type = SCHEMA_BOOL,
     .def = "true",
     .metavar = "",
     .unit = "",
     .help = "serve the page at /: chat, what is packed, what the server does",
     .offset = AT(web),
     .commands = CONFIG_SERVE},
    {.name = "max-queue",
     .group = "Server",
     .type = SCHEMA_INT,
     .def = "64",
     .min = 0,
     .max = 10000,
     .metavar = "N",
     .unit = "requests",
     .help = "requests that may wait for a free place; the next one is answered 429 with "
             "Retry-After",
     .offset = AT(max_queue),
     .commands = CONFIG_SERVE},
    {.name = "max-images",
     .group = "Server",
     .type = SCHEMA_INT,
     .def = "16",
     .min = 0,
     .max = 64,
     .metavar = "N",
     .unit = "pictures",
     .help = "pictures in one request",
     .offset = AT(max_images),
     .commands = CONFIG_SERVE},
    {.name = "drain-timeout",
     .group = "Server",
     .type = SCHEMA_INT,
     .def = "30",
     .min = 0,
     .max = 3600,
     .metavar = "N",
     .unit = "seconds",
     .help = "how long running requests may go on after SIGTERM or Ctrl-C",
     .offset = AT(drain_timeout_s),
     .commands = CONFIG_SERVE},

    {.name = "log-format",
     .group = "Log",
     .type = SCHEMA_ENUM,
     .def = "logfmt",
     .choices = log_formats,
     .metavar = "NAME",
     .unit = "",
     .help = "form of the log lines on stderr",
     .offset = AT(log_format),
     .commands = BOTH},
    {.name = "log-level",
     .group = "Log",
     .type = SCHEMA_ENUM,
     .def = "info",
     .choices = log_levels,
     .metavar = "NAME",
     .unit = "",
     .help = "lowest level that is logged",
     .offset = AT(log_level),
     .commands = BOTH},
};

#define N_OPTIONS ((int)(sizeof options / sizeof *options))
_Static_assert(sizeof options / sizeof *options <= CONFIG_MAX_OPTIONS, "enlarge origin[]");

static const struct schema schema = {.options = options, .n = N_OPTIONS};

const struct schema *config_schema(void)
{
    return &schema;
}

static struct schema_values values(struct config *c)
{
    return (struct schema_values){.schema = &schema, .base = c, .origin = c->origin};
}

enum schema_origin config_origin(const struct config *c, const char *name)
{
    int i = schema_find(&schema, name, strlen(name));
    return i < 0 ? SCHEMA_DEFAULT : (enum schema_origin)c->origin[i];
}

bool config_given(const struct config *c, const char *name)
{
    return config_origin(c, name) != SCHEMA_DEFAULT;
}

/* -- what one option cannot check alone -------------------------------------------- */

bool config_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6);
    }
    return strcasecmp(host, "localhost") == 0;
}

static int check_exposure(const struct config *c, struct err *e)
{
    if (!*c->host) {
        return err_reason(e, ERR_INVALID, "invalid_config",
                          "--host: is empty; 127.0.0.1 listens to this machine, 0.0.0.0 to all");
    }
    if (config_is_loopback(c->host) || c->n_api_keys || c->insecure) {
        return 0;
    }
    return err_reason(e, ERR_FORBIDDEN, "invalid_config",
                      "--host: %s can be reached from other machines and there is no API key; "
                      "give --api-key-file, or say --insecure",
                      c->host);
}

/* The default model brings its own projector, and that its adapter; models of the user's do
 * not. */
static int default_mmproj(struct config *c, struct err *e)
{
    if (config_given(c, "model") || config_given(c, "mmproj")) {
        return 0;
    }
    struct schema_values v = values(c);
    if (schema_set(&v, schema_find(&schema, "mmproj", 6), CONFIG_DEFAULT_MMPROJ, SCHEMA_DEFAULT,
                   "mmproj", e)) {
        return -1;
    }
    return config_given(c, "mmproj-lora")
               ? 0
               : schema_set(&v, schema_find(&schema, "mmproj-lora", 11), CONFIG_DEFAULT_MMPROJ_LORA,
                            SCHEMA_DEFAULT, "mmproj-lora", e);
}

static int load(struct config *c, enum config_command command, struct schema_values *extra,
                int argc, char **argv, const char **positional, int *n_positional, struct err *e)
{
    struct schema_values v = values(c);
    struct schema_values *sets[] = {&v, extra};
    if (schema_defaults(&v, e) || (extra && schema_defaults(extra, e)) ||
        schema_args(sets, extra ? 2 : 1, command, argc, argv, positional, n_positional, e) ||
        schema_env(&v, e) ||
        (*c->config_file &&
         (config_read_file(c, c->config_file, e) || config_read_prefixes(c, e))) ||
        default_mmproj(c, e)) {
        return -1;
    }
    return command == CONFIG_SERVE ? (config_load_keys(c, e) || check_exposure(c, e) ? -1 : 0) : 0;
}

int config_load(struct config *c, enum config_command command, struct schema_values *extra,
                int argc, char **argv, const char **positional, int *n_positional, struct err *e)
{
    *c = (struct config){0};
    if (load(c, command, extra, argc, argv, positional, n_positional, e)) {
        config_clear(c);
        if (extra) {
            schema_clear(extra);
        }
        return -1;
    }
    return 0;
}

void config_clear(struct config *c)
{
    struct schema_values v = values(c);
    schema_clear(&v);
    for (int i = 0; i < c->n_profiles; i++) {
        mem_free(c->profiles[i].name);
        mem_free(c->profiles[i].from);
        mem_free(c->profiles[i].set);
        mem_free(c->profiles[i].static_prefix);
        mem_free(c->profiles[i].static_prefix_file);
    }
    mem_free(c->profiles);
    for (int i = 0; i < c->n_api_keys; i++) {
        explicit_bzero(c->api_keys[i], strlen(c->api_keys[i]));
        mem_free(c->api_keys[i]);
    }
    mem_free(c->api_keys);
    *c = (struct config){0};
}

void config_log_warnings(const struct config *c, enum config_command command)
{
    const char *meant;
    const char *variable = schema_env_typo(&schema, &meant);
    if (variable) {
        char name[72];
        char typed[72];
        schema_env_name(meant, name, sizeof name);
        snprintf(typed, sizeof typed, "%.*s", (int)strcspn(variable, "="), variable);
        log_event(LOG_WARN, "unknown environment variable", log_str("name", typed),
                  log_str("meant", name));
    }
    if (command != CONFIG_SERVE) {
        return;
    }
    if (config_origin(c, "api-key") == SCHEMA_FLAG) {
        log_event(LOG_WARN, "the API key can be read in the process list",
                  log_str("instead", "--api-key-file or TAMP_API_KEY"));
    }
    if (c->key_file_readable_by_others) {
        log_event(LOG_WARN, "other users can read the key file", log_str("file", c->api_key_file),
                  log_str("instead", "chmod 600"));
    }
    if (!config_is_loopback(c->host) && c->n_api_keys == 0) {
        log_event(LOG_WARN, "open to every machine that can reach it", log_str("host", c->host),
                  log_str("instead", "--api-key-file"));
    }
}

/* -- generated texts ------------------------------------------------------------------ */

void config_print_yaml(struct buf *out)
{
    buf_puts(out, "# Every key of the configuration file with its default; `tamp serve --config "
                  "FILE` reads it.\n"
                  "# Flags and TAMP_... variables are stronger than this file.\n"
                  "# Written by `tamp help --yaml`; do not edit it here.\n");
    schema_print_yaml(&schema, out);
    buf_puts(out, "\n# -- Profiles of your own\n\n"
                  "# Each may be chosen with `profile`, with --compression, and by a request.\n"
                  "#profiles:\n"
                  "#  - name: shoes\n"
                  "#    from: product_search\n"
                  "#    set: \"image.ratio=2, text.method=off\"\n"
                  "#    static_prefix: \"You answer customers of a shoe shop.\"\n");
}

void config_print_markdown(const struct schema *run_flags, struct buf *out)
{
    buf_puts(out,
             "# Configuration\n\n"
             "<!-- written by `tamp help --markdown`; do not edit it here -->\n\n"
             "Every option has one name. `ctx-size` is the flag `--ctx-size 4096` or "
             "`--ctx-size=4096`, the variable `TAMP_CTX_SIZE=4096`, and the key `ctx-size: 4096` "
             "of the YAML file that `--config` names. Flags are stronger than variables, "
             "variables than the file, the file than the defaults. A value out of range, or a "
             "name that does not exist, stops the start with one line that says where it stands. "
             "`config/tamp.yaml` holds every key with its default.\n\n"
             "Options under Server are for `tamp serve`; `tamp run` accepts them in the file and "
             "in the environment and does not use them.\n");
    schema_print_markdown(&schema, out);
    buf_puts(out, "\n## Profiles of your own\n\n"
                  "Only in the file. Each has a `name`, the profile it starts `from` (default "
                  "balanced), and the settings on top of it, as in `--compression`; "
                  "`docs/compression.md` lists the methods and their options. `static_prefix` is "
                  "a text, `static_prefix_file` a file with one, that stands as a system message "
                  "before the messages of each request of the profile, compressed or not: a "
                  "policy, a catalogue. It is computed when the server starts, and no request "
                  "pays for it.\n\n"
                  "```yaml\nprofiles:\n  - name: shoes\n    from: product_search\n"
                  "    set: \"image.ratio=2, text.method=off\"\n"
                  "    static_prefix_file: policy.txt\nprofile: shoes\n```\n\n"
                  "# Flags of `tamp run`\n");
    schema_print_markdown(run_flags, out);
}
