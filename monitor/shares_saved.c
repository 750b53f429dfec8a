/* What a guest holds, written down when it is frozen, and taken up by the server of a VM that goes on from there:
 * its numbers, each with the path that its file has at that moment. A file without a path any more is lost to it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shares.h"

#define LONGEST (64u << 20)
#define CLOSED (-1)

/* First the length of the messages that were agreed to, as u32; then one of these for each number, and its path. */
struct entry {
	uint32_t number, uid;
	int32_t flags; /* open(2)'s, CLOSED where it is not open */
	uint32_t length;
};

struct text {
	uint8_t *bytes;
	size_t length, size;
	bool failed;
};

int saved_file = -1;

static void append(struct text *text, const void *bytes, size_t length)
{
	if (text->length + length > text->size) {
		size_t size = 2 * (text->length + length);
		uint8_t *grown = size > LONGEST ? NULL : realloc(text->bytes, size);
		text->failed |= !grown;
		if (!grown)
			return;
		text->bytes = grown;
		text->size = size;
	}
	memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
}

static void describe(const struct fid *fid, void *argument)
{
	char name[12], path[PATH_MAX];
	snprintf(name, sizeof name, "%d", fid_handle(fid));
	ssize_t length = fid->kind == KIND_FILE ? readlinkat(AT_FDCWD, name, path, sizeof path) : -1;
	struct entry entry = {.number = fid->number, .uid = fid->uid, .flags = CLOSED, .length = length > 0 ? (uint32_t)length : 0};
	if (fid->io >= 0)
		entry.flags = fcntl(fid->io, F_GETFL) & (O_ACCMODE | O_APPEND | O_DSYNC | O_SYNC);
	append(argument, &entry, sizeof entry);
	append(argument, path, entry.length);
}

int saved_write(uint32_t message_size)
{
	struct text text = {0};
	int error = 0;
	append(&text, &message_size, sizeof message_size);
	fid_each(describe, &text);
	if (text.failed)
		error = ENOMEM;
	else if (saved_file < 0)
		error = EBADF;
	else if (ftruncate(saved_file, 0) < 0 || pwrite(saved_file, text.bytes, text.length, 0) != (ssize_t)text.length)
		error = errno ? errno : EIO;
	free(text.bytes);
	return error;
}

/* Open the file again, without leaving the trees and without following a link. One that is not there any more, or is
 * another kind of file now, stays a number that every use of fails. */
static void take_up(const struct entry *entry, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	struct stat info;
	char name[12];
	struct fid *fid = fid_make(entry->uid);
	if (!fid)
		return;
	if (*path == '/')
		fid->path = path[1] ? (int)syscall(SYS_openat2, root_directory, path + 1, &how, sizeof how)
				    : fcntl(root_directory, F_DUPFD_CLOEXEC, 0);
	if (entry->flags != CLOSED && fid->path >= 0 && fstat(fid->path, &info) == 0 &&
	    (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode))) {
		snprintf(name, sizeof name, "%d", fid->path);
		int kept = entry->flags & (O_ACCMODE | O_APPEND | O_DSYNC | O_SYNC);
		fid->io = open(name, kept | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	}
	fid->position = -1;
	if (fid_insert(fid, entry->number))
		fid_release(fid);
}

/* Take up what another server wrote down; gives the length of messages, 0 when there is nothing. */
uint32_t saved_load(void)
{
	struct stat info;
	uint32_t message_size = 0;
	if (saved_file < 0 || fstat(saved_file, &info) < 0 || info.st_size < (off_t)sizeof message_size || info.st_size > LONGEST)
		return 0;
	size_t size = (size_t)info.st_size, at = sizeof message_size;
	uint8_t *bytes = malloc(size);
	if (!bytes || pread(saved_file, bytes, size, 0) != (ssize_t)size)
		return 0;
	memcpy(&message_size, bytes, sizeof message_size);
	while (size - at >= sizeof(struct entry)) {
		struct entry entry;
		char path[PATH_MAX];
		memcpy(&entry, bytes + at, sizeof entry);
		at += sizeof entry;
		if (entry.length >= sizeof path || entry.length > size - at)
			break;
		memcpy(path, bytes + at, entry.length);
		path[entry.length] = 0;
		at += entry.length;
		take_up(&entry, path);
	}
	free(bytes);
	return message_size <= MESSAGE_SIZE && message_size >= MESSAGE_SMALL / 2 ? message_size : 0;
}
