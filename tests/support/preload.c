/* Faults for one process, by LD_PRELOAD: writes that fail, slow syncs, a clock that is set or runs at another
 * rate. Only calls through libc are seen: std's and redb's are; what rustix does goes to the kernel by itself,
 * so the clock of leases (CLOCK_BOOTTIME) stays true.
 *
 * FAULTS_CONTROL names a file of int64 words, which a test changes while the process runs (preload.rs). FAULTS_UNDER is the
 * directory whose files are meant. Processes that are not `litepilot run` are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    AT,     /* the call that fails, counted from 1; 0: none */
    CALLS,  /* that could have failed so far */
    FAILED, /* that have */
    ERROR,  /* with this errno */
    STICKY, /* and all after it */
    SYNC,   /* milliseconds that a sync takes longer */
    OFFSET, /* of CLOCK_REALTIME, in seconds */
    RATE,   /* of CLOCK_MONOTONIC, in millionths; 0: its own */
    BASE,   /* where that began, in nanoseconds; ours */
    WORDS,
};

static int64_t *control;
static const char *under;

static int64_t get(int word) { return __atomic_load_n(&control[word], __ATOMIC_SEQ_CST); }

__attribute__((constructor)) static void begin(void) {
    char words[4096] = "";
    const char *path = getenv("FAULTS_CONTROL");
    int own = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = own < 0 ? 0 : read(own, words, sizeof words - 1);
    close(own);
    size_t program = strlen(words) + 1;
    if (!path || length <= (ssize_t)program || strcmp(words + program, "run") != 0)
        return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    void *all = mmap(NULL, WORDS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    under = getenv("FAULTS_UNDER");
    if (all != MAP_FAILED)
        control = all;
}

static int is_under(const char *path) {
    return control && under && strncmp(path, under, strlen(under)) == 0;
}

/* A regular file under the directory, but for the output, which may be there, too. */
static int is_meant(int fd) {
    char link[64], path[4096];
    struct stat status;
    if (!control || !under || fd <= 2 || fstat(fd, &status) != 0)
        return 0;
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_under(path);
}

/* Whether this call fails. */
static int fails(void) {
    int64_t at = get(AT), call = __atomic_add_fetch(&control[CALLS], 1, __ATOMIC_SEQ_CST);
    if (at == 0 || (get(STICKY) ? call < at : call != at))
        return 0;
    __atomic_add_fetch(&control[FAILED], 1, __ATOMIC_SEQ_CST);
    errno = (int)get(ERROR);
    return 1;
}

#define REAL(result, name, ...) ((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *data, size_t size) {
    return is_meant(fd) && fails() ? -1 : syscall(SYS_write, fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return is_meant(fd) && fails() ? -1 : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return is_meant(fd) && fails() ? -1 : syscall(SYS_pwrite64, fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

int ftruncate64(int fd, off64_t size) {
    return is_meant(fd) && fails() ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags) {
    return is_meant(to) && fails() ? -1 : syscall(SYS_copy_file_range, from, in, to, out, size, flags);
}

static int synced(int fd, long call) {
    if (is_meant(fd)) {
        usleep((useconds_t)get(SYNC) * 1000);
        if (fails())
            return -1;
    }
    return (int)syscall(call, fd);
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int rename(const char *from, const char *to) {
    return is_under(to) && fails() ? -1 : REAL(int, "rename", const char *, const char *)(from, to);
}

int link(const char *from, const char *to) {
    return is_under(to) && fails() ? -1 : REAL(int, "link", const char *, const char *)(from, to);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    if (is_under(to) && fails())
        return -1;
    return REAL(int, "linkat", int, const char *, int, const char *, int)(from_dir, from, to_dir, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    return is_under(path) && fails() ? -1 : REAL(int, "mkdir", const char *, mode_t)(path, mode);
}

/* Only what may make a file. */
static int opened(const char *path, int flags, mode_t mode) {
    if ((flags & O_CREAT) && is_under(path) && access(path, F_OK) != 0 && fails())
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define OPEN(name)                                                                                           \
    int name(const char *path, int flags, ...) {                                                             \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0;                           \
        va_end(rest);                                                                                        \
        return opened(path, flags, mode);                                                                    \
    }
OPEN(open)
OPEN(open64)

static int64_t nanos(const struct timespec *at) { return at->tv_sec * 1000000000LL + at->tv_nsec; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (failed || !control)
        return failed;
    if (clock == CLOCK_REALTIME) {
        now->tv_sec += get(OFFSET);
    } else if (clock == CLOCK_MONOTONIC && get(RATE)) {
        int64_t real = nanos(now), base = 0;
        __atomic_compare_exchange_n(&control[BASE], &base, real, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        base = get(BASE);
        int64_t shown = base + (int64_t)((__int128)(real - base) * get(RATE) / 1000000);
        now->tv_sec = shown / 1000000000;
        now->tv_nsec = shown % 1000000000;
    }
    return 0;
}
