/* Preloaded into QEMU before 8.2, which opens its RAM file for writing although it maps it privately.
 * The file is the template that all clones share: their uid may not write it, so that open fails.
 * An open for reading and writing of an inherited descriptor that is refused is repeated for reading. */
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
