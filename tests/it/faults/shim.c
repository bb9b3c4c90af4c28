/*
 * Stands between the program under test and the system (LD_PRELOAD): fails, or records, what is done to the files of a
 * database. Only files whose path ends in .db, .db-wal or .db-journal are touched. Told what to do by the environment:
 *
 *   SHIM_ARMED       nothing fails before this file exists; absent variable: armed from the start
 *   SHIM_FAIL_NTH    the N-th write, truncate or sync fails with EIO, once
 *   SHIM_HAPPENED    this file is made when it did
 *   SHIM_SYNC_EVERY  every k-th sync fails with EIO, again and again
 *   SHIM_SYNC_OF_DATABASE  with SHIM_SYNC_EVERY: only syncs of the database file count and fail
 *   SHIM_DIE_AT_SYNC the program is killed when it is about to sync the log for the N-th time
 *   SHIM_FULL        while this file exists, writes fail with ENOSPC
 *   SHIM_SHORT       with SHIM_FAIL_NTH: a write fails only after the first half of its bytes
 *   SHIM_RECORD      what happened is appended to this file: see struct record
 *   SHIM_CLOCK       the clock of the day shows so many seconds more as this file says, now and at each reading
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* One event in the record, followed by `length` bytes. The tests read it, and append markers of their own ('M'). */
struct record {
    uint8_t kind;     /* W write, T truncate to `offset`, S sync done, F sync failed, U removed */
    uint8_t file;     /* 0 database, 1 write-ahead log, 2 rollback journal */
    uint8_t unused[2];
    uint32_t length;
    uint64_t offset;
};

static const char *const endings[] = {".db", ".db-wal", ".db-journal"};

/* Held while an event happens and is written down, so that the record has the order of the events. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long operations, syncs, log_syncs;

static int file_by_name(const char *path) {
    size_t length = strlen(path);
    for (int at = 0; at < 3; at++) {
        size_t ending = strlen(endings[at]);
        if (length >= ending && strcmp(path + length - ending, endings[at]) == 0) return at;
    }
    return -1;
}

static int file_of(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return -1;
    path[length] = 0;
    return file_by_name(path);
}

static int exists(const char *variable, int if_unset) {
    const char *path = getenv(variable);
    return path ? access(path, F_OK) == 0 : if_unset;
}

static long number(const char *variable) {
    const char *text = getenv(variable);
    return text ? atol(text) : 0;
}

static void record(char kind, int file, uint64_t offset, const void *bytes, size_t length) {
    static int fd = -1;
    const char *path = getenv("SHIM_RECORD");
    if (!path) return;
    if (fd < 0) fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct record head = {(uint8_t)kind, (uint8_t)file, {0, 0}, (uint32_t)length, offset};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)bytes, length}};
    if (fd < 0 || writev(fd, parts, 2) != (ssize_t)(sizeof head + length)) abort();
}

/* Whether this operation is the one that fails. */
static int is_the_nth(void) {
    long nth = number("SHIM_FAIL_NTH");
    if (nth == 0 || !exists("SHIM_ARMED", 1) || ++operations != nth) return 0;
    const char *happened = getenv("SHIM_HAPPENED");
    if (happened) close(open(happened, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    return 1;
}

static int fails_with(int code) {
    errno = code;
    return -1;
}

#define REAL(name, type) \
    static type real; \
    if (!real) real = (type)dlsym(RTLD_NEXT, name)

typedef ssize_t (*pwrite_type)(int, const void *, size_t, off_t);
typedef int (*sync_type)(int);
typedef int (*truncate_type)(int, off_t);

static ssize_t write_at(pwrite_type real, int fd, const void *bytes, size_t length, off_t offset) {
    int file = file_of(fd);
    if (file < 0) return real(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t result;
    if (exists("SHIM_FULL", 0)) {
        result = fails_with(ENOSPC);
    } else if (is_the_nth()) {
        if (getenv("SHIM_SHORT") && real(fd, bytes, length / 2, offset) > 0) record('W', file, (uint64_t)offset, bytes, length / 2);
        result = fails_with(EIO);
    } else {
        result = real(fd, bytes, length, offset);
        if (result > 0) record('W', file, (uint64_t)offset, bytes, (size_t)result);
    }
    int code = errno;
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    REAL("pwrite", pwrite_type);
    return write_at(real, fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    REAL("pwrite64", pwrite_type);
    return write_at(real, fd, bytes, length, offset);
}

/* A plain write has no place in a record; the program is built to use positioned ones, and this makes sure of it. */
ssize_t write(int fd, const void *bytes, size_t length) {
    typedef ssize_t (*write_type)(int, const void *, size_t);
    REAL("write", write_type);
    if (getenv("SHIM_RECORD") && file_of(fd) >= 0) abort();
    return real(fd, bytes, length);
}

static int sync_file(sync_type real, int fd) {
    int file = file_of(fd);
    if (file < 0) return real(fd);
    pthread_mutex_lock(&lock);
    long every = number("SHIM_SYNC_EVERY");
    if (file == 1 && exists("SHIM_ARMED", 1) && number("SHIM_DIE_AT_SYNC") == ++log_syncs) raise(SIGKILL);
    if (file != 0 && getenv("SHIM_SYNC_OF_DATABASE")) every = 0;
    int fails = is_the_nth() || (every > 0 && exists("SHIM_ARMED", 1) && ++syncs % every == 0);
    int result = fails ? fails_with(EIO) : real(fd);
    int code = errno;
    record(result == 0 ? 'S' : 'F', file, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

int fsync(int fd) {
    REAL("fsync", sync_type);
    return sync_file(real, fd);
}

int fdatasync(int fd) {
    REAL("fdatasync", sync_type);
    return sync_file(real, fd);
}

static int truncate_file(truncate_type real, int fd, off_t size) {
    int file = file_of(fd);
    if (file < 0) return real(fd, size);
    pthread_mutex_lock(&lock);
    int result = is_the_nth() ? fails_with(EIO) : real(fd, size);
    int code = errno;
    if (result == 0) record('T', file, (uint64_t)size, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

int ftruncate(int fd, off_t size) {
    REAL("ftruncate", truncate_type);
    return truncate_file(real, fd, size);
}

int ftruncate64(int fd, off_t size) {
    REAL("ftruncate64", truncate_type);
    return truncate_file(real, fd, size);
}

int unlink(const char *path) {
    typedef int (*unlink_type)(const char *);
    REAL("unlink", unlink_type);
    int file = file_by_name(path);
    if (file < 0) return real(path);
    pthread_mutex_lock(&lock);
    int result = real(path);
    int code = errno;
    if (result == 0) record('U', file, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

/* Read anew each time: whoever writes to the file sets the clock. */
static long clock_offset(void) {
    const char *path = getenv("SHIM_CLOCK");
    char text[32];
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return 0;
    text[length] = 0;
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    typedef int (*clock_type)(clockid_t, struct timespec *);
    REAL("clock_gettime", clock_type);
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) {
        int code = errno;
        now->tv_sec += clock_offset();
        errno = code;
    }
    return result;
}
