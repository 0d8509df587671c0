/* Preloaded: lets calls of the C library on files below a folder fail with a chosen error.
 *
 * inject(folder, error, kinds, first, number): of the calls of these kinds on these files, counted from 1, those from
 * the first on fail, so many of them. injected(): how many have failed; counted(kind): how many of a kind there were, of
 * the kinds that were given.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN = 1, READ = 2, WRITE = 4, SYNC = 8, NAME = 16, STAT = 32, MAP = 64, LIST = 128 };

static char folder[PATH_MAX];
static int error_, kinds_;
static long first_, number_, turn_, injected_, counted_[8];

void inject(const char *below, int error, int kinds, long first, long number) {
    snprintf(folder, sizeof folder, "%s", below);
    error_ = error, kinds_ = kinds, first_ = first, number_ = number;
    turn_ = injected_ = 0;
    memset(counted_, 0, sizeof counted_);
}

long counted(int bit) { return __atomic_load_n(&counted_[bit], __ATOMIC_SEQ_CST); }
long injected(void) { return __atomic_load_n(&injected_, __ATOMIC_SEQ_CST); }

static int fails(int kind, const char *path) {
    if (!(kinds_ & kind) || path == NULL || strncmp(path, folder, strlen(folder)) != 0) return 0;
    for (int bit = 0; bit < 8; bit++)
        if (kind & 1 << bit) __atomic_add_fetch(&counted_[bit], 1, __ATOMIC_SEQ_CST);
    long turn = __atomic_add_fetch(&turn_, 1, __ATOMIC_SEQ_CST);
    if (turn < first_ || turn - first_ >= number_) return 0;
    __atomic_add_fetch(&injected_, 1, __ATOMIC_SEQ_CST);
    errno = error_;
    return 1;
}

static int fails_at(int kind, int file) {
    char link[64], path[PATH_MAX];
    if (!(kinds_ & kind)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (real == NULL) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define MODE \
    int mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); }

/* A file that is opened to be written is made or changed: a full disk can refuse that, a read never. */
static int opening(int flags) { return (flags & O_ACCMODE) == O_RDONLY ? OPEN : OPEN | WRITE; }

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        MODE REAL(int, #name, const char *, int, ...); \
        return fails(opening(flags), path) ? -1 : real(path, flags, mode); \
    }
#define OPENS_AT(name) \
    int name(int at, const char *path, int flags, ...) { \
        MODE REAL(int, #name, int, const char *, int, ...); \
        return fails(opening(flags), path) ? -1 : real(at, path, flags, mode); \
    }
OPENS(open) OPENS(open64) OPENS_AT(openat) OPENS_AT(openat64)

#define ON_FILE(type, name, kind, given, ...) \
    type name given { REAL(type, #name, __VA_ARGS__); return fails_at(kind, file) ? -1 : real
ON_FILE(ssize_t, read, READ, (int file, void *data, size_t size), int, void *, size_t)(file, data, size); }
ON_FILE(ssize_t, pread, READ, (int file, void *data, size_t size, off_t at), int, void *, size_t, off_t)(file, data, size, at); }
ON_FILE(ssize_t, pread64, READ, (int file, void *data, size_t size, off64_t at), int, void *, size_t, off64_t)(file, data, size, at); }
ON_FILE(ssize_t, write, WRITE, (int file, const void *data, size_t size), int, const void *, size_t)(file, data, size); }
ON_FILE(ssize_t, pwrite, WRITE, (int file, const void *data, size_t size, off_t at), int, const void *, size_t, off_t)(file, data, size, at); }
ON_FILE(ssize_t, pwrite64, WRITE, (int file, const void *data, size_t size, off64_t at), int, const void *, size_t, off64_t)(file, data, size, at); }
ON_FILE(int, ftruncate, WRITE, (int file, off_t size), int, off_t)(file, size); }
ON_FILE(int, ftruncate64, WRITE, (int file, off64_t size), int, off64_t)(file, size); }
ON_FILE(int, fsync, SYNC, (int file), int)(file); }
ON_FILE(int, fdatasync, SYNC, (int file), int)(file); }
ON_FILE(int, fstat, STAT, (int file, struct stat *found), int, struct stat *)(file, found); }
ON_FILE(int, fstat64, STAT, (int file, struct stat64 *found), int, struct stat64 *)(file, found); }

int posix_fallocate(int file, off_t at, off_t size) {
    REAL(int, "posix_fallocate", int, off_t, off_t);
    return fails_at(WRITE, file) ? error_ : real(file, at, size);
}
int posix_fallocate64(int file, off64_t at, off64_t size) {
    REAL(int, "posix_fallocate64", int, off64_t, off64_t);
    return fails_at(WRITE, file) ? error_ : real(file, at, size);
}
void *mmap(void *at, size_t size, int use, int flags, int file, off_t from) {
    REAL(void *, "mmap", void *, size_t, int, int, int, off_t);
    return file >= 0 && fails_at(MAP, file) ? MAP_FAILED : real(at, size, use, flags, file, from);
}
void *mmap64(void *at, size_t size, int use, int flags, int file, off64_t from) {
    REAL(void *, "mmap64", void *, size_t, int, int, int, off64_t);
    return file >= 0 && fails_at(MAP, file) ? MAP_FAILED : real(at, size, use, flags, file, from);
}

#define ON_PATH(type, name, kind, bad, given, ...) \
    type name given { REAL(type, #name, __VA_ARGS__); return fails(kind, path) ? bad : real
ON_PATH(int, stat, STAT, -1, (const char *path, struct stat *found), const char *, struct stat *)(path, found); }
ON_PATH(int, stat64, STAT, -1, (const char *path, struct stat64 *found), const char *, struct stat64 *)(path, found); }
ON_PATH(int, lstat, STAT, -1, (const char *path, struct stat *found), const char *, struct stat *)(path, found); }
ON_PATH(int, lstat64, STAT, -1, (const char *path, struct stat64 *found), const char *, struct stat64 *)(path, found); }
ON_PATH(int, fstatat, STAT, -1, (int at, const char *path, struct stat *found, int flags), int, const char *, struct stat *, int)(at, path, found, flags); }
ON_PATH(int, fstatat64, STAT, -1, (int at, const char *path, struct stat64 *found, int flags), int, const char *, struct stat64 *, int)(at, path, found, flags); }
ON_PATH(int, rename, NAME, -1, (const char *path, const char *to), const char *, const char *)(path, to); }
ON_PATH(int, renameat, NAME, -1, (int at, const char *path, int there, const char *to), int, const char *, int, const char *)(at, path, there, to); }
ON_PATH(int, link, NAME, -1, (const char *path, const char *to), const char *, const char *)(path, to); }
ON_PATH(int, unlink, NAME, -1, (const char *path), const char *)(path); }
ON_PATH(int, mkdir, NAME, -1, (const char *path, mode_t mode), const char *, mode_t)(path, mode); }
ON_PATH(DIR *, opendir, LIST, NULL, (const char *path), const char *)(path); }
