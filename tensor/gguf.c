/* A GGUF file as a private read-only mapping, and its tensors by name.
 *
 * The size is taken once, from fstat on the open descriptor, and every tensor is checked
 * against it before the first read. What remains is a file that somebody truncates while
 * tamp runs: touching the lost pages raises SIGBUS, as with every program that maps its
 * data (a shared library too). We do not copy the weights to prevent that: replace a model
 * by renaming a new file over the old name, which leaves the mapping intact. */
#include "tensor/gguf.h"

#include "base/alloc.h"
#include "tensor/gguf_impl.h"
#include "tensor/quant.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int io_error(struct err *e, const char *path, const char *what)
{
    enum err_code code = errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    return err_set(e, code, "%.200s: %s: %s", path, what, strerror(errno));
}

/* Maps the whole file. A FIFO or device must not block us, hence O_NONBLOCK. */
static int map_fd(int fd, const char *path, const void **base, size_t *size, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st)) {
        return io_error(e, path, "cannot read its size");
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(e, ERR_FORMAT, "%.200s: not a regular file", path);
    }
    if (st.st_size == 0) {
        return err_set(e, ERR_FORMAT, "%.200s: at byte 0: the file is empty", path);
    }
    *size = (size_t)st.st_size;
    void *p = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        return io_error(e, path, "cannot map it");
    }
    *base = p;
    return 0;
}

/* The parser made its views const; the mapping itself is ours to give back. */
static void unmap(const void *base, size_t size)
{
    munmap((void *)(uintptr_t)base, size);
}

struct gguf *gguf_open(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        io_error(e, path, "cannot open it");
        return NULL;
    }
    const void *base = NULL;
    size_t size = 0;
    int failed = map_fd(fd, path, &base, &size, e);
    close(fd);
    if (failed) {
        return NULL;
    }
    struct gguf *g = gguf_parse_view(base, size, path, e);
    if (!g) {
        unmap(base, size);
    }
    return g;
}

void gguf_close(struct gguf *g)
{
    if (g) {
        unmap(g->base, g->size);
        gguf_free_view(g);
    }
}

void gguf_release_pages(const struct gguf *g)
{
    /* Failure costs memory, nothing else. */
    (void)madvise((void *)(uintptr_t)g->base, g->size, MADV_DONTNEED);
}

const char *gguf_path(const struct gguf *g)
{
    return g->path;
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->version;
}

size_t gguf_file_bytes(const struct gguf *g)
{
    return g->size;
}

size_t gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i)
{
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    size_t i = gguf_index_find(g->tensor_index, g->n_tensors, name);
    return i == (size_t)-1 ? NULL : &g->tensors[i];
}

const char *gguf_tensor_type_name(const struct gguf_tensor *t)
{
    return tensor_type_layout((uint32_t)t->type)->name; /* the parser accepts no others */
}
