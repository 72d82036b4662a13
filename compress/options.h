/* Options that several methods have, as initialisers for their tables. */
#ifndef TAMP_COMPRESS_OPTIONS_H
#define TAMP_COMPRESS_OPTIONS_H

#include "compress/compressor.h"
#include "compress/merge.h"

/* How many rows of a picture are left: the ratio, up to `most`, or the rows themselves. */
#define OPTION_RATIO(most, help_text)                                                              \
    {                                                                                              \
        .name = "ratio", .type = OPTION_FLOAT, .min = 1, .max = (most), .def = 4, .unit = "",      \
        .help = (help_text)                                                                        \
    }
#define OPTION_RATIO_AUTO(most, help_text)                                                         \
    {                                                                                              \
        .name = "ratio", .type = OPTION_FLOAT, .min = 1, .max = (most), .def = 4, .auto_ok = true, \
        .unit = "", .help = help_text "; auto: 4 above 512 pixels, 2 below, 1 up to 64 rows"       \
    }
#define OPTION_ROWS OPTION_ROWS_IN(0)
#define OPTION_ROWS_IN(slots)                                                                      \
    {                                                                                              \
        .name = "rows", .type = OPTION_INT, .min = 1, .max = 65536, .def = 0, .unit = "rows",      \
        .help = "rows to leave for one picture, instead of a ratio", .replaces = "ratio",          \
        .modalities = (slots)                                                                      \
    }

/* Tokens of an answer that say whether it is in doubt. */
#define OPTION_FIRST_TOKENS                                                                        \
    {                                                                                              \
        .name = "tokens", .type = OPTION_INT, .min = 1, .max = 16, .def = 8, .unit = "tokens",     \
        .help = "so many first tokens of the answer are looked at, and held back until they were"  \
    }

/* How far neighbours of text may be joined. */
#define OPTION_THRESHOLD(otherwise, help_text)                                                     \
    {                                                                                              \
        .name = "threshold", .type = OPTION_FLOAT, .min = -1, .max = 1, .def = (otherwise),        \
        .unit = "cosine", .help = (help_text)                                                      \
    }
#define OPTION_TEXT_RATIO(help_text)                                                               \
    {                                                                                              \
        .name = "ratio", .type = OPTION_FLOAT, .min = 1, .max = 8, .def = 0, .auto_ok = true,      \
        .unit = "",                                                                                \
        .help = help_text ", through the model's calibration, instead of a threshold; auto: "      \
                          "rows/512, between 1 and 2",                                             \
        .replaces = "threshold"                                                                    \
    }
#define OPTION_MAX_GROUP(otherwise, help_text)                                                     \
    {                                                                                              \
        .name = "max_group", .type = OPTION_INT, .min = 2, .max = 64, .def = (otherwise),          \
        .unit = "rows", .help = (help_text)                                                        \
    }

#define OPTION_NORM(otherwise) OPTION_NORM_IN(otherwise, 0)
#define OPTION_NORM_IN(otherwise, slots)                                                           \
    {                                                                                              \
        .name = "norm", .type = OPTION_ENUM, .min = 0, .max = 1, .def = (otherwise),               \
        .choices = merge_norm_names, .unit = "",                                                   \
        .help = "length of a merged row: of the mean, or the mean length of its members",          \
        .modalities = (slots)                                                                      \
    }
#define OPTION_CUTOFF(otherwise, verb)                                                             \
    {                                                                                              \
        .name = "cutoff", .type = OPTION_INT, .min = 0, .max = 1023, .def = (otherwise),           \
        .unit = "block", .help = verb " after this block of the decoder, counted from 0",          \
        .modalities = 1u << MODALITY_LM                                                            \
    }

#endif
