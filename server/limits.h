/* Every ceiling of the HTTP side in one table, each with its reason. What a client may
 * send is bounded here before anything is allocated for it. */
#ifndef TAMP_SERVER_LIMITS_H
#define TAMP_SERVER_LIMITS_H

/* -- bytes ----------------------------------------------------------------------- */

/* Ten photos of 4 MiB in base64, and the text. */
#define LIMIT_BODY_BYTES ((size_t)64 << 20)
/* Bodies of all requests together while they are read and parsed. */
#define LIMIT_BODIES_BYTES ((size_t)256 << 20)
/* Request line and headers of one connection, held by libmicrohttpd. */
#define LIMIT_CONNECTION_BYTES ((size_t)64 << 10)
/* A path longer than any route; the rest is not looked at. */
#define LIMIT_PATH_BYTES 256
/* Echoed in the answer and in the log, so it stays short. */
#define LIMIT_REQUEST_ID_BYTES 128
/* A key is compared by its digest; longer ones are not even hashed. */
#define LIMIT_API_KEY_BYTES 512
/* Rendered but unsent bytes of one stream: beyond it the reader is too slow. */
#define LIMIT_STREAM_BYTES ((size_t)256 << 10)
/* All choices of one answer, rendered; half of it before rendering. 128 choices of 8192
 * tokens stay below, unless logprobs are asked for, too. */
#define LIMIT_ANSWER_BYTES ((size_t)32 << 20)
/* The text of /metrics. */
#define LIMIT_METRICS_BYTES ((size_t)1 << 20)
/* Tokenising takes some seconds a MiB on a slow machine, of a worker that others wait for. */
#define LIMIT_TOKENIZE_BYTES ((size_t)1 << 20)
/* A picture file after base64; the decoder has its own limits on pixels. */
#define LIMIT_IMAGE_BYTES ((size_t)20 << 20)
/* Parts, messages and decoded pictures of one request. */
#define LIMIT_REQUEST_BYTES ((size_t)96 << 20)

/* -- JSON ------------------------------------------------------------------------- */

/* The deepest request of the API is six levels; schemas of tools are deeper. */
#define LIMIT_JSON_DEPTH 64
/* cJSON takes 64 bytes a node: 13 MB. */
#define LIMIT_JSON_NODES 200000
/* cJSON reads a number through a buffer of 64 characters. */
#define LIMIT_JSON_NUMBER_CHARS 60

/* -- how many ---------------------------------------------------------------------- */

#define LIMIT_MESSAGES      1024      /* a long support chat has a few hundred */
#define LIMIT_PARTS         256       /* in one message */
#define LIMIT_REGIONS       16        /* in one picture: each is compared with every patch */
#define LIMIT_TOOLS         128       /* as OpenAI */
#define LIMIT_TOOL_NAME     64        /* as OpenAI */
#define LIMIT_CALLS         128       /* in one message */
#define LIMIT_STOP          4         /* as OpenAI */
#define LIMIT_STOP_BYTES    256       /* compared at every token */
#define LIMIT_LOGIT_BIAS    1024      /* applied at every token */
#define LIMIT_PREVIEW_PLANS 16        /* in one /v1/compress: each encodes the pictures once */
#define LIMIT_LORA_BYTES    65536     /* of the list for /lora-adapters: the event loop reads it */
#define LIMIT_PROMPTS       64        /* of one request: each is a job */
#define LIMIT_EMBEDDINGS    2048      /* texts of one request, as OpenAI */
#define LIMIT_CHOICES       128       /* as OpenAI */
#define LIMIT_DETOKENIZE    (1 << 17) /* a context of 128 Ki */
#define LIMIT_TOP_LOGPROBS  20        /* as OpenAI */
#define LIMIT_TOP_K         (1 << 30) /* the sampler's own */
#define LIMIT_REPEAT_LAST_N (1 << 20) /* the sampler's own: it keeps so many ids */
#define LIMIT_CONNECTIONS   1024      /* libmicrohttpd stops accepting beyond */
#define LIMIT_REQUESTS      512       /* chat requests in flight, whatever the configuration says */
#define LIMIT_LINGERING     64        /* refused uploads whose rest is being read and dropped */
#define LIMIT_PREPARE_QUEUE LIMIT_REQUESTS

/* -- time ------------------------------------------------------------------------- */

#define LIMIT_HEADER_MS    15000  /* from the first byte of a request to its last header */
#define LIMIT_BODY_MS      60000  /* for the whole body */
#define LIMIT_KEEPALIVE_MS 60000  /* between two requests of a connection */
#define LIMIT_SEND_MS      30000  /* without a byte taken by the reader */
#define LIMIT_QUEUE_MS     300000 /* waiting for a slot; half of the client's own time-out */
#define LIMIT_PING_MS      5000   /* silence before a `: ping` */
#define LIMIT_LINGER_MS    2000   /* for a refused upload to see its answer */
#define LIMIT_INACTIVE_S   60     /* libmicrohttpd's own inactivity time-out */
#define WATCH_TICK_MS      100    /* how often deadlines and vanished clients are looked for */
#define RETRY_AFTER_MAX_S  60

#endif
