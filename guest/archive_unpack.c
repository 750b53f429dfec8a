/* unpack PATH [keep] [owner USER]: unpack a tar stream from stdin into the directory PATH. Names with `..` are refused,
 * leading slashes dropped. `keep`: a directory is never replaced by a file, nor the reverse. `owner`: all of it
 * belongs to USER, whatever the stream says. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "agent.h"
#include "archive.h"

#define PATH_SIZE 8192
#define EXTENDED_LIMIT (1 << 20)
#define ATTRIBUTE_LIMIT 32

/* An entry's header with what extended headers say about it. */
struct entry {
	char name[PATH_SIZE], link[PATH_SIZE];
	unsigned long long size;
	unsigned mode, uid, gid, major, minor;
	long long mtime;
	char type;
};

static struct {
	char *name, *link, *records;
	size_t records_length;
} extended;

static bool keep, owned;
static struct account owner;

static int refuse(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return 1;
}

static bool read_all(void *data, size_t size)
{
	return fread(data, 1, size, stdin) == size;
}

static bool skip(unsigned long long size)
{
	char buffer[BLOCK * 8];
	while (size) {
		size_t piece = size < sizeof buffer ? size : sizeof buffer;
		if (!read_all(buffer, piece))
			return false;
		size -= piece;
	}
	return true;
}

/* An octal field, or GNU's base 256 when the first bit is set. */
static unsigned long long number(const char *field, size_t size)
{
	unsigned long long value = 0;
	if ((unsigned char)field[0] & 0x80) {
		for (size_t i = 1; i < size; i++)
			value = value << 8 | (unsigned char)field[i];
		return value;
	}
	for (size_t i = 0; i < size && field[i]; i++)
		if (field[i] >= '0' && field[i] <= '7')
			value = value << 3 | (unsigned)(field[i] - '0');
	return value;
}

static bool checksum_matches(const struct header *header)
{
	unsigned sum = 0;
	for (size_t i = 0; i < sizeof *header; i++) {
		bool inside = i >= offsetof(struct header, checksum) && i < offsetof(struct header, type);
		sum += inside ? ' ' : ((const unsigned char *)header)[i];
	}
	return sum == number(header->checksum, sizeof header->checksum);
}

static void forget(void)
{
	free(extended.name);
	free(extended.link);
	free(extended.records);
	memset(&extended, 0, sizeof extended);
}

/* The body of an extended header, ended by NUL. */
static char *read_body(unsigned long long size)
{
	if (size > EXTENDED_LIMIT)
		return NULL;
	char *body = malloc(size + 1);
	if (!body || !read_all(body, size) || !skip(-size % BLOCK))
		return NULL;
	body[size] = 0;
	return body;
}

/* The next pax record at *at; false at the end or when it is malformed. */
static bool next_record(char **at, const char *end, char **key, char **value, size_t *length)
{
	char *after;
	unsigned long long total = *at < end ? strtoull(*at, &after, 10) : 0;
	if (!total || total > (unsigned long long)(end - *at) || *after != ' ')
		return false;
	char *stop = *at + total, *equals = memchr(after, '=', (size_t)(stop - after));
	if (!equals || stop[-1] != '\n')
		return false;
	*key = after + 1;
	*equals = 0;
	*value = equals + 1;
	*length = (size_t)(stop - 1 - *value);
	stop[-1] = 0;
	*at = stop;
	return true;
}

/* Apply a pax header's records to the entry; attributes wait until the file is there. */
static void apply_records(struct entry *entry)
{
	char *key, *value, *copy = malloc(extended.records_length + 1), *at = copy;
	size_t length;
	if (!copy)
		exit(1);
	memcpy(copy, extended.records, extended.records_length + 1);
	while (next_record(&at, copy + extended.records_length, &key, &value, &length)) {
		if (!strcmp(key, "path"))
			snprintf(entry->name, sizeof entry->name, "%s", value);
		else if (!strcmp(key, "linkpath"))
			snprintf(entry->link, sizeof entry->link, "%s", value);
		else if (!strcmp(key, "size"))
			entry->size = strtoull(value, NULL, 10);
		else if (!strcmp(key, "uid"))
			entry->uid = (unsigned)strtoul(value, NULL, 10);
		else if (!strcmp(key, "gid"))
			entry->gid = (unsigned)strtoul(value, NULL, 10);
		else if (!strcmp(key, "mtime"))
			entry->mtime = strtoll(value, NULL, 10);
	}
	free(copy);
}

static void apply_attributes(const char *path)
{
	char *key, *value, *at = extended.records;
	size_t length;
	while (at && next_record(&at, extended.records + extended.records_length, &key, &value, &length))
		if (!strncmp(key, XATTR_PREFIX, strlen(XATTR_PREFIX)))
			lsetxattr(path, key + strlen(XATTR_PREFIX), value, length, 0);
}

static void fill(struct entry *entry, const struct header *header)
{
	memset(entry, 0, sizeof *entry);
	bool prefixed = header->prefix[0] && !memcmp(header->magic, "ustar\0", 6);
	snprintf(entry->name, sizeof entry->name, "%.*s%s%.*s", prefixed ? 155 : 0, header->prefix, prefixed ? "/" : "",
		 (int)sizeof header->name, header->name);
	snprintf(entry->link, sizeof entry->link, "%.*s", (int)sizeof header->link, header->link);
	entry->type = header->type ? header->type : '0';
	entry->size = number(header->size, sizeof header->size);
	entry->mode = (unsigned)number(header->mode, sizeof header->mode) & 07777;
	entry->uid = (unsigned)number(header->uid, sizeof header->uid);
	entry->gid = (unsigned)number(header->gid, sizeof header->gid);
	entry->mtime = (long long)number(header->mtime, sizeof header->mtime);
	entry->major = (unsigned)number(header->major, sizeof header->major);
	entry->minor = (unsigned)number(header->minor, sizeof header->minor);
	if (extended.name)
		snprintf(entry->name, sizeof entry->name, "%s", extended.name);
	if (extended.link)
		snprintf(entry->link, sizeof entry->link, "%s", extended.link);
	if (extended.records)
		apply_records(entry);
}

/* The name relative to the target directory; NULL when a part of it is `..`. */
static char *clean(char *name)
{
	while (*name == '/' || (name[0] == '.' && name[1] == '/'))
		name++;
	for (char *at = name; at; at = strchr(at, '/')) {
		at += *at == '/';
		if (at[0] == '.' && at[1] == '.' && (at[2] == '/' || !at[2]))
			return NULL;
	}
	size_t length = strlen(name);
	while (length && name[length - 1] == '/')
		name[--length] = 0;
	return name;
}

static void make_parents(char *name)
{
	for (char *at = strchr(name, '/'); at; at = strchr(at + 1, '/')) {
		*at = 0;
		mkdir(name, 0755);
		*at = '/';
	}
}

static int write_file_content(const char *name, const struct entry *entry)
{
	static char buffer[65536];
	unsigned long long left = entry->size;
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	while (left) {
		size_t piece = left < sizeof buffer ? left : sizeof buffer;
		if (!read_all(buffer, piece)) {
			errno = EPIPE;
			close(fd);
			return -1;
		}
		if (write(fd, buffer, piece) != (ssize_t)piece) {
			close(fd);
			return -1;
		}
		left -= piece;
	}
	skip(-entry->size % BLOCK);
	return close(fd);
}

static bool is_kept(const char *name, char type)
{
	struct stat info;
	return keep && lstat(name, &info) == 0 && S_ISDIR(info.st_mode) != (type == '5');
}

/* Take away what is in the entry's place. */
static int clear(const char *name, char type)
{
	struct stat info;
	if (lstat(name, &info) < 0)
		return 0;
	if (S_ISDIR(info.st_mode))
		return type == '5' ? 0 : rmdir(name);
	return unlink(name);
}

static int make(char *name, struct entry *entry)
{
	mode_t kind = entry->type == '3' ? S_IFCHR : entry->type == '4' ? S_IFBLK : S_IFIFO;
	if (clear(name, entry->type) < 0)
		return -1;
	switch (entry->type) {
	case '0':
	case '7': return write_file_content(name, entry);
	case '1': {
		char *target = clean(entry->link);
		errno = EINVAL;
		return target ? linkat(AT_FDCWD, target, AT_FDCWD, name, 0) : -1;
	}
	case '2': return symlink(entry->link, name);
	case '5': return mkdir(name, 0700) < 0 && errno != EEXIST ? -1 : 0;
	default: return mknod(name, kind | 0600, makedev(entry->major, entry->minor));
	}
}

static int place(struct entry *entry)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = entry->mtime}};
	char *name = clean(entry->name);
	if (!name)
		return refuse("invalid name in the archive: %s", entry->name);
	if (!*name || !strcmp(name, "."))
		return skip((entry->size + BLOCK - 1) / BLOCK * BLOCK) ? 0 : refuse("the archive is cut short");
	make_parents(name);
	if (is_kept(name, entry->type))
		return refuse("cannot overwrite %sdirectory \"/%s\" with %sdirectory", entry->type == '5' ? "non-" : "",
			      name, entry->type == '5' ? "" : "non-");
	if (make(name, entry) < 0)
		return refuse("%s: %s", name, strerror(errno));
	if (entry->type == '1')
		return 0;
	if (lchown(name, owned ? owner.uid : entry->uid, owned ? owner.gid : entry->gid) < 0)
		return refuse("%s: %s", name, strerror(errno));
	apply_attributes(name);
	if (entry->type != '2')
		chmod(name, entry->mode);
	utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int unpack_entry(const struct header *header)
{
	static struct entry entry;
	unsigned long long size = number(header->size, sizeof header->size);
	char type = header->type;
	if (type == 'x' || type == 'L' || type == 'K') {
		char *body = read_body(size);
		if (!body)
			return refuse("an extended header of the archive is too long or cut short");
		char **slot = type == 'L' ? &extended.name : type == 'K' ? &extended.link : &extended.records;
		free(*slot);
		*slot = body;
		if (type == 'x')
			extended.records_length = size;
		return 0;
	}
	if (type == 'g' || !strchr("01234567", type ? type : '0')) {
		forget();
		return skip((size + BLOCK - 1) / BLOCK * BLOCK) ? 0 : refuse("the archive is cut short");
	}
	fill(&entry, header);
	int result = place(&entry);
	forget();
	return result;
}

int archive_unpack(char **args)
{
	static const char zeros[BLOCK];
	static char buffer[65536];
	struct header header;
	struct stat info;
	if (!args[1] || stat(args[1], &info) < 0) {
		fprintf(stderr, "%s: %s\n", args[1] ? args[1] : "unpack", strerror(errno));
		return 2;
	}
	if (!S_ISDIR(info.st_mode) || chdir(args[1]) < 0)
		return refuse("extraction point is not a directory: %s", args[1]);
	char **word = args + 2;
	keep = *word && !strcmp(*word, "keep");
	word += keep;
	owned = word[0] && word[1] && !strcmp(word[0], "owner");
	const char *error = owned ? account_find(word[1], NULL, 0, &owner) : NULL;
	if (error)
		return refuse("%s", error);
	setvbuf(stdin, buffer, _IOFBF, sizeof buffer);
	umask(0);
	while (read_all(&header, sizeof header)) {
		if (!memcmp(&header, zeros, sizeof zeros))
			break;
		if (!checksum_matches(&header))
			return refuse("this is not a tar archive, or it is damaged");
		int result = unpack_entry(&header);
		if (result)
			return result;
	}
	while (fread(&header, 1, sizeof header, stdin) > 0)
		;
	return 0;
}
