#include "cmd/bill.h"

#define MIB (1024.0 * 1024.0)

static double per_second(int n, double ms)
{
    return ms > 0 ? n * 1e3 / ms : 0;
}

static void print_packing(const struct report *report, struct buf *out)
{
    buf_printf(out, "packed   %d -> %d rows (%.1fx)", report->original_rows,
               report->compressed_rows, report_ratio(report));
    const char *separator = ": ";
    for (int m = 0; m < MODALITY_COUNT; m++) {
        const struct report_stage *s = &report->modality[m];
        if (!s->method) {
            continue;
        }
        buf_printf(out, "%s%s %d", separator, modality_name((enum modality)m), s->rows_in);
        if (s->rows_out != s->rows_in) {
            buf_printf(out, " -> %d by %s", s->rows_out, s->method);
        }
        separator = ", ";
    }
    for (int i = 0; i < report->n_skipped; i++) {
        buf_printf(out, "%s%s skipped: %s", separator, stage_name(report->skipped[i].stage),
                   report->skipped[i].reason);
        separator = ", ";
    }
    buf_putc(out, '\n');
}

static void print_time(const struct job_result *r, struct buf *out)
{
    int prefilled = r->prompt_rows - r->cached_rows;
    buf_puts(out, "time     ");
    if (r->image_rows > 0) {
        buf_printf(out, "decode pictures %.0f ms, vision %.0f ms, ", r->image_decode_ms,
                   r->vision_ms);
    }
    buf_printf(out, "compress %.1f ms, prompt %.0f ms (%.0f rows/s), ", r->compress_ms,
               r->prompt_ms, per_second(prefilled, r->prompt_ms));
    buf_printf(out, "answer %d tokens in %.0f ms (%.0f tokens/s), first after %.0f ms\n",
               r->completion_tokens, r->predicted_ms,
               per_second(r->completion_tokens, r->predicted_ms), r->first_token_ms);
}

void bill_print(const struct job_result *r, struct buf *out)
{
    print_packing(&r->report, out);
    print_time(r, out);
    buf_printf(out, "memory   KV %.1f MiB (%.1f MiB saved), peak %.1f MiB\n",
               (double)r->kv_bytes / MIB, (double)r->kv_bytes_saved / MIB,
               (double)r->peak_bytes / MIB);
}
