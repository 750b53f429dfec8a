/* Attributes, extended attributes, locks and the state of the file system. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "shares.h"

#define V9FS_MAGIC 0x01021997 /* linux/magic.h: programs know by it that changes may come from elsewhere */

/* linux/include/net/9p/9p.h */
#define GETATTR_BASIC 0x000007ffULL
#define SETATTR_MODE 0x1
#define SETATTR_UID 0x2
#define SETATTR_GID 0x4
#define SETATTR_SIZE 0x8
#define SETATTR_ATIME 0x10
#define SETATTR_MTIME 0x20
#define SETATTR_ATIME_SET 0x80
#define SETATTR_MTIME_SET 0x100
#define LOCK_READ 0
#define LOCK_WRITE 1
#define LOCK_NONE 2
#define STATUS_SUCCESS 0
#define STATUS_BLOCKED 1
#define CLIENT_SIZE 128

static void give_time(struct request *request, struct timespec when)
{
	give_u64(request, (uint64_t)when.tv_sec);
	give_u64(request, (uint64_t)when.tv_nsec);
}

int do_getattr(struct request *request)
{
	struct stat info;
	struct fid *fid = fid_find(take_u32(request));
	if (!fid)
		return EBADF;
	int error = fstat(fid_handle(fid), &info) < 0 ? errno : 0;
	fid_release(fid);
	if (error)
		return error;
	give_u64(request, GETATTR_BASIC);
	give_qid(request, &info);
	give_u32(request, info.st_mode);
	give_u32(request, info.st_uid);
	give_u32(request, info.st_gid);
	give_u64(request, info.st_nlink);
	give_u64(request, info.st_rdev);
	give_u64(request, (uint64_t)info.st_size);
	give_u64(request, (uint64_t)info.st_blksize);
	give_u64(request, (uint64_t)info.st_blocks);
	give_time(request, info.st_atim);
	give_time(request, info.st_mtim);
	give_time(request, info.st_ctim);
	for (int i = 0; i < 4; i++)
		give_u64(request, 0); /* birth, generation and version: not told */
	return 0;
}

/* A change of the time: none, now or that. */
static struct timespec moment(uint32_t valid, uint32_t change, uint32_t set, uint64_t seconds, uint64_t nanoseconds)
{
	if (!(valid & change))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (!(valid & set))
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)(nanoseconds % 1000000000)};
}

static int resize(const struct fid *fid, const char *name, off_t size)
{
	/* What is open may be written although the mode has changed; else the file is opened by its descriptor. */
	if (fid->io >= 0 && ftruncate(fid->io, size) == 0)
		return 0;
	return truncate(name, size) < 0 ? errno : 0;
}

/* The owner first: a change of it takes bits of the mode away, which the guest may set in the same message. */
static int change(const struct fid *fid, uint32_t valid, uint32_t mode, uint32_t uid, uint32_t gid, uint64_t size,
		  const struct timespec times[2])
{
	char name[12];
	int fd = fid_handle(fid), error = 0;
	snprintf(name, sizeof name, "%d", fd);
	if (valid & (SETATTR_UID | SETATTR_GID)) {
		uid_t owner = valid & SETATTR_UID ? uid : (uid_t)-1;
		gid_t group = valid & SETATTR_GID ? gid : (gid_t)-1;
		if (fchownat(fd, "", owner, group, AT_EMPTY_PATH) < 0)
			return errno;
	}
	if (valid & SETATTR_MODE && chmod(name, mode & 07777) < 0)
		return errno;
	if (valid & SETATTR_SIZE && (error = resize(fid, name, (off_t)size)))
		return error;
	if (valid & (SETATTR_ATIME | SETATTR_MTIME) && utimensat(AT_FDCWD, name, times, 0) < 0)
		return errno;
	return 0;
}

int do_setattr(struct request *request)
{
	struct fid *fid = fid_find(take_u32(request));
	uint32_t valid = take_u32(request), mode = take_u32(request), uid = take_u32(request), gid = take_u32(request);
	uint64_t size = take_u64(request), numbers[4];
	for (int i = 0; i < 4; i++)
		numbers[i] = take_u64(request);
	struct timespec times[2] = {
		moment(valid, SETATTR_ATIME, SETATTR_ATIME_SET, numbers[0], numbers[1]),
		moment(valid, SETATTR_MTIME, SETATTR_MTIME_SET, numbers[2], numbers[3]),
	};
	if (!fid)
		return EBADF;
	int error = request->failed ? request->failed : change(fid, valid, mode, uid, gid, size, times);
	fid_release(fid);
	return error;
}

int do_statfs(struct request *request)
{
	struct statfs info;
	struct fid *fid = fid_find(take_u32(request));
	if (!fid)
		return EBADF;
	int error = fstatfs(fid_handle(fid), &info) < 0 ? errno : 0;
	fid_release(fid);
	if (error)
		return error;
	give_u32(request, V9FS_MAGIC);
	give_u32(request, (uint32_t)info.f_bsize);
	give_u64(request, info.f_blocks);
	give_u64(request, info.f_bfree);
	give_u64(request, info.f_bavail);
	give_u64(request, info.f_files);
	give_u64(request, info.f_ffree);
	give_u64(request, 0);
	give_u32(request, (uint32_t)info.f_namelen);
	return 0;
}

/* Read a value, or the list of names where none is given, into a new fid. */
static int fetch(struct request *request, const struct fid *from, struct fid *to, const char *attribute)
{
	char name[12];
	snprintf(name, sizeof name, "%d", fid_handle(from));
	ssize_t length = *attribute ? getxattr(name, attribute, request->scratch, XATTR_SIZE)
				    : listxattr(name, (char *)request->scratch, XATTR_SIZE);
	if (length < 0)
		return errno;
	to->kind = KIND_XATTR_READ;
	to->value = malloc((size_t)length + 1);
	if (!to->value)
		return ENOMEM;
	memcpy(to->value, request->scratch, (size_t)length);
	to->value_length = (size_t)length;
	to->path = fcntl(root_directory, F_DUPFD_CLOEXEC, 0);
	return to->path < 0 ? errno : 0;
}

int do_xattr_walk(struct request *request)
{
	char attribute[NAME_SIZE];
	struct fid *from = fid_find(take_u32(request)), *to = NULL;
	uint32_t number = take_u32(request);
	take_text(request, attribute, sizeof attribute);
	int error = from ? request->failed : EBADF;
	if (!error && !(to = fid_make(from->uid)))
		error = ENOMEM;
	if (!error)
		error = fetch(request, from, to, attribute);
	if (!error)
		give_u64(request, to->value_length);
	if (!error)
		error = fid_insert(to, number);
	if (error && to)
		fid_release(to);
	if (from)
		fid_release(from);
	return error;
}

/* The fid takes what is written to it from now on; its end sets the attribute. */
int do_xattr_create(struct request *request)
{
	struct fid *fid = fid_find(take_u32(request));
	char attribute[NAME_SIZE];
	take_text(request, attribute, sizeof attribute);
	uint64_t size = take_u64(request);
	uint32_t flags = take_u32(request);
	int error = request->failed;
	if (!fid)
		return EBADF;
	pthread_mutex_lock(&fid->lock);
	if (!error && (fid->kind != KIND_FILE || fid->io >= 0))
		error = EBADF;
	if (!error && size > XATTR_SIZE)
		error = E2BIG;
	if (!error && !(fid->value = malloc(size + 1)))
		error = ENOMEM;
	if (!error) {
		strcpy(fid->name, attribute);
		fid->value_size = size;
		fid->flags = (int)flags & (XATTR_CREATE | XATTR_REPLACE);
		fid->kind = KIND_XATTR_WRITE;
	}
	pthread_mutex_unlock(&fid->lock);
	fid_release(fid);
	return error;
}

/* An empty value is a removal: the message has no other way to ask for one. */
int xattr_finish(struct fid *fid)
{
	char name[12];
	snprintf(name, sizeof name, "%d", fid_handle(fid));
	if (fid->value_length != fid->value_size)
		return EINVAL;
	int result = fid->value_size ? setxattr(name, fid->name, fid->value, fid->value_size, fid->flags)
				     : removexattr(name, fid->name);
	return result < 0 ? errno : 0;
}

int xattr_read(struct request *request, struct fid *fid, uint64_t offset, uint32_t count)
{
	if (fid->kind != KIND_XATTR_READ)
		return EBADF;
	size_t left = offset < fid->value_length ? fid->value_length - offset : 0;
	size_t room = request->room - request->length - 4, length = count < left ? count : left;
	if (length > room)
		length = room;
	give_u32(request, (uint32_t)length);
	memcpy(request->out + request->length, fid->value + (left ? offset : 0), length);
	request->length += length;
	return 0;
}

int xattr_write(struct request *request, struct fid *fid, uint64_t offset, uint32_t count)
{
	int error = 0;
	pthread_mutex_lock(&fid->lock);
	if (fid->kind != KIND_XATTR_WRITE)
		error = EBADF;
	else if (offset != fid->value_length || count > fid->value_size - fid->value_length)
		error = EINVAL;
	else
		memcpy(fid->value + offset, request->at, count);
	if (!error)
		fid->value_length += count;
	pthread_mutex_unlock(&fid->lock);
	if (!error)
		give_u32(request, count);
	return error;
}

static struct flock region(uint8_t type, uint64_t start, uint64_t length)
{
	return (struct flock){
		.l_type = type == LOCK_READ ? F_RDLCK : type == LOCK_WRITE ? F_WRLCK : F_UNLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)start,
		.l_len = (off_t)length,
	};
}

/* A lock of the guest's against everybody else's; among themselves its processes are kept apart by its own kernel.
 * It sends flock(2) as a lock on the whole file: such a one is taken in both ways. Never waits. */
int do_lock(struct request *request)
{
	char client[CLIENT_SIZE];
	struct fid *fid = fid_find(take_u32(request));
	uint8_t type = take_u8(request);
	take_u32(request); /* whether the guest would wait: it asks again */
	uint64_t start = take_u64(request), length = take_u64(request);
	take_u32(request);
	take_text(request, client, sizeof client);
	int error = request->failed;
	if (!fid)
		return EBADF;
	struct flock wanted = region(type, start, length);
	bool whole = !start && !length, held = false;
	pthread_mutex_lock(&fid->lock);
	if (!error && whole) {
		int how = type == LOCK_READ ? LOCK_SH : type == LOCK_WRITE ? LOCK_EX : LOCK_UN;
		error = flock(fid->io, how | LOCK_NB) < 0 ? errno : 0;
		held = !error && how != LOCK_UN;
	}
	/* flock(2) does not ask how the file is open, the other kind does: then one must do. */
	if (!error && fcntl(fid->io, F_OFD_SETLK, &wanted) < 0 && !(whole && errno == EBADF)) {
		error = errno;
		if (held)
			flock(fid->io, LOCK_UN);
	}
	pthread_mutex_unlock(&fid->lock);
	fid_release(fid);
	if (error && error != EAGAIN && error != EACCES)
		return error;
	give_u8(request, error ? STATUS_BLOCKED : STATUS_SUCCESS);
	return 0;
}

int do_getlock(struct request *request)
{
	char client[CLIENT_SIZE];
	struct fid *fid = fid_find(take_u32(request));
	uint8_t type = take_u8(request);
	uint64_t start = take_u64(request), length = take_u64(request);
	uint32_t process = take_u32(request);
	take_text(request, client, sizeof client);
	int error = request->failed;
	if (!fid)
		return EBADF;
	struct flock found = region(type, start, length);
	if (!error && fcntl(fid->io, F_OFD_GETLK, &found) < 0)
		error = errno;
	fid_release(fid);
	if (error)
		return error;
	bool none = found.l_type == F_UNLCK;
	give_u8(request, none ? LOCK_NONE : found.l_type == F_RDLCK ? LOCK_READ : LOCK_WRITE);
	give_u64(request, none ? start : (uint64_t)found.l_start);
	give_u64(request, none ? length : (uint64_t)found.l_len);
	give_u32(request, process);
	give_text(request, client, strlen(client));
	return 0;
}
