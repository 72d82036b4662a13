#include "tensor/vector_ops.h"

#include "base/err.h"
#include "tensor/cpu.h"
#include "tensor/kernels.h"
#include "tensor/vector_ops_impl.h"

#include <stdatomic.h>
#include <string.h>

static const struct vector_ops *const sets[] = {
    &vector_ops_ref,
#if defined(__x86_64__)
    &vector_ops_avx2,
    &vector_ops_avx512,
#endif
};

const struct vector_ops *const *vector_ops_here(int *n)
{
    struct cpu_features f = cpu_features();
    *n = f.avx512 ? 3 : f.avx2 ? 2 : 1;
    return sets;
}

static const struct vector_ops *best(void)
{
    int n;
    const struct vector_ops *const *here = vector_ops_here(&n);
    return here[n - 1];
}

const struct vector_ops *vector_ops_for(const struct kernels *kernels)
{
    struct err e = ERR_INIT;
    if (kernels == kernels_choose(NULL, &e)) {
        return best();
    }
    int n;
    const struct vector_ops *const *here = vector_ops_here(&n);
    for (int i = 0; i < n; i++) {
        if (strcmp(kernels->loops, here[i]->name) == 0) {
            return here[i];
        }
    }
    return best();
}

static _Atomic(const struct vector_ops *) used;

void vector_ops_use(const struct vector_ops *ops)
{
    atomic_store_explicit(&used, ops, memory_order_relaxed);
}

const struct vector_ops *vector_ops_used(void)
{
    const struct vector_ops *ops = atomic_load_explicit(&used, memory_order_relaxed);
    if (!ops) {
        ops = best();
        vector_ops_use(ops);
    }
    return ops;
}
