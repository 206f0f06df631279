/* What a file system would do and the stand-in, a plain process, cannot: preloaded into an application it
 * refuses what a replica's LiteFS refuses, with the same errors, and hangs while the stand-in hangs.
 *
 * The stand-in says in MOUNT/.stand-in who it is and what: "PID primary" or "PID replica".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 4096 };

/* For each open file of a mount: its directory, and whether it is a WAL. */
static char *mounts[FILES];
static char is_wal[FILES];

#define REAL(name) ({ \
        static __typeof__(&name) real; \
        if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        real; \
    })

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), short_length = strlen(end);
    return length >= short_length && strcmp(text + length - short_length, end) == 0;
}

/* The first line of a file, whoever else opens files meanwhile; 0 if there is none. */
static int first_line(const char *path, char *line, size_t size) {
    int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = REAL(read)(fd, line, size - 1);
    REAL(close)(fd);
    if (length <= 0) return 0;
    line[length] = 0;
    return 1;
}

static int is_stopped(int pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!first_line(path, line, sizeof line)) return 0;
    const char *state = strrchr(line, ')');
    return state && (state[2] == 'T' || state[2] == 't');
}

/* Waits while the stand-in stands still. Whether applications may not write there. */
static int refuses(const char *mount) {
    int error = errno, pid = 0, refused = 0;
    char path[4096], line[64], role[16];
    snprintf(path, sizeof path, "%s/.stand-in", mount);
    if (first_line(path, line, sizeof line) && sscanf(line, "%d %15s", &pid, role) == 2) {
        struct timespec pause = {0, 5 * 1000 * 1000};
        while (is_stopped(pid)) nanosleep(&pause, NULL);
        refused = strcmp(role, "primary") != 0 || (kill(pid, 0) != 0 && errno == ESRCH);
    }
    errno = error;
    return refused;
}

/* The mount that a path lies in, to be freed; NULL if it lies in none. */
static char *mount_of(const char *path) {
    const char *end = strrchr(path, '/');
    if (!end) return NULL;
    char *mount = strndup(path, (size_t)(end - path)), marker[4096];
    snprintf(marker, sizeof marker, "%s/.stand-in", mount);
    if (access(marker, F_OK) == 0) return mount;
    free(mount);
    return NULL;
}

static void forget(int fd) {
    if (fd < 0 || fd >= FILES) return;
    free(mounts[fd]);
    mounts[fd] = NULL;
    is_wal[fd] = 0;
}

static int opened(const char *path, int flags, mode_t mode) {
    int error = errno;
    char *mount = mount_of(path);
    errno = error;
    if (!mount) return REAL(open)(path, flags, mode);
    /* "fuse: create(): cannot create journal: read only replica" */
    int refused = refuses(mount) && (flags & O_CREAT) && ends_with(path, "-journal");
    int fd = -1;
    if (refused && access(path, F_OK) != 0) {
        errno = EACCES;
    } else {
        fd = REAL(open)(path, flags, mode);
    }
    forget(fd);
    if (fd < 0 || fd >= FILES) {
        free(mount);
    } else {
        mounts[fd] = mount;
        is_wal[fd] = ends_with(path, "-wal");
    }
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return opened(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    forget(fd);
    return REAL(close)(fd);
}

/* Whether a write to this file fails: "fuse: write(): wal error: read only replica". */
static int fails(int fd) {
    if (fd < 0 || fd >= FILES || !mounts[fd]) return 0;
    int refused = refuses(mounts[fd]) && is_wal[fd];
    if (refused) errno = EIO;
    return refused;
}

static void wait_for_file(int fd) {
    if (fd >= 0 && fd < FILES && mounts[fd]) refuses(mounts[fd]);
}

ssize_t write(int fd, const void *data, size_t size) {
    return fails(fd) ? -1 : REAL(write)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails(fd) ? -1 : REAL(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fails(fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}

ssize_t read(int fd, void *data, size_t size) {
    wait_for_file(fd);
    return REAL(read)(fd, data, size);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
    wait_for_file(fd);
    return REAL(pread64)(fd, data, size, at);
}
