/* Preloaded into QEMU, which opens its RAM file for writing although it maps it privately.
 * The file is the template that all clones share: their uid may not write it, so that open fails.
 * An open for reading and writing of an inherited descriptor that is refused is repeated for reading.
 * Pages that the guest has freed are to be cut out of the file first, then of the mapping: the first is left out.
 * QEMU from 8.2 on can be told to map a file that it only reads (`rom=off`), and then gives no freed page back. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/types.h>

typedef int open_function(const char *, int, ...);

static int reopen(const char *name, const char *path, int flags, mode_t mode)
{
	open_function *next = (open_function *)dlsym(RTLD_NEXT, name);
	int fd = next(path, flags, mode);
	if (fd < 0 && errno == EACCES && (flags & O_ACCMODE) == O_RDWR && !strncmp(path, "/proc/self/fd/", 14))
		fd = next(path, (flags & ~O_ACCMODE) | O_RDONLY, mode);
	return fd;
}

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = mode_of(flags, arguments);
	va_end(arguments);
	return reopen("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = mode_of(flags, arguments);
	va_end(arguments);
	return reopen("open64", path, flags, mode);
}

/* What a fortified program calls when no mode is given. */
int __open_2(const char *path, int flags)
{
	return reopen("open", path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
	return reopen("open64", path, flags, 0);
}

typedef int punch_function(int, int, off_t, off_t);

static int punch(const char *name, int fd, int mode, off_t offset, off_t length)
{
	punch_function *next = (punch_function *)dlsym(RTLD_NEXT, name);
	if ((mode & FALLOC_FL_PUNCH_HOLE) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return 0;
	return next(fd, mode, offset, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	return punch("fallocate", fd, mode, offset, length);
}

int fallocate64(int fd, int mode, off_t offset, off_t length)
{
	return punch("fallocate64", fd, mode, offset, length);
}
