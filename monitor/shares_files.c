/* Files and directories: what a guest's kernel asks for in 9P2000.L. The guest's kernel has checked its users'
 * permissions; what a share allows is decided by its mount, here on the host. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "shares.h"

#define WALK_LIMIT 16 /* 9P's MAXWELEM */
#define NOBODY 0xffffffffu
#define ENTRY_FIXED (13 + 8 + 1 + 2)

/* Linux's flags as 9P2000.L numbers them (linux/include/net/9p/9p.h, p9_open_mode_t). */
#define P9_EXCL 00000200
#define P9_TRUNC 00001000
#define P9_APPEND 00002000
#define P9_DSYNC 00010000
#define P9_SYNC 04000000

static int flags_of(uint32_t wanted)
{
	int flags = (int)(wanted & O_ACCMODE) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	flags |= wanted & P9_TRUNC ? O_TRUNC : 0;
	flags |= wanted & P9_APPEND ? O_APPEND : 0;
	flags |= wanted & P9_DSYNC ? O_DSYNC : 0;
	flags |= wanted & P9_SYNC ? O_SYNC : 0;
	return flags;
}

/* The name of a descriptor in the working directory, which is this process's /proc/self/fd. */
static const char *name_of(int fd, char text[12])
{
	snprintf(text, 12, "%d", fd);
	return text;
}

/* What is made next belongs to these. The capabilities stay (SECBIT_NO_SETUID_FIXUP). */
static int become(uint32_t uid, uint32_t gid)
{
	if (uid == NOBODY || gid == NOBODY)
		return EINVAL;
	setfsgid(gid);
	setfsuid(uid);
	return 0;
}

int do_attach(struct request *request)
{
	char text[PATH_MAX];
	uint32_t number = take_u32(request);
	take_u32(request); /* no authentication: whoever has the socket is the VM */
	take_text(request, text, sizeof text);
	take_text(request, text, sizeof text);
	uint32_t uid = take_u32(request);
	if (request->failed)
		return request->failed;
	/* The mount itself is nobody's; each of the guest's users attaches anew. */
	struct fid *fid = fid_make(uid == NOBODY ? 0 : uid);
	if (!fid)
		return ENOMEM;
	fid->path = fcntl(root_directory, F_DUPFD_CLOEXEC, 0);
	int error = fid->path < 0 ? errno : give_qid_of(request, fid->path);
	if (!error)
		error = fid_insert(fid, number);
	if (error)
		fid_release(fid);
	return error;
}

/* Another descriptor of the same file that opens nothing. */
static int duplicate(const struct fid *fid)
{
	char name[12];
	if (fid->io < 0)
		return fcntl(fid->path, F_DUPFD_CLOEXEC, 0);
	return open(name_of(fid->io, name), O_PATH | O_CLOEXEC);
}

/* Take steps; every one is a single name and no link is followed. Gives how many were possible. */
static int step_through(struct request *request, struct fid *to, unsigned count, int *error)
{
	unsigned done = 0;
	*error = 0;
	while (done < count && !*error) {
		char name[NAME_SIZE];
		struct stat info;
		take_name(request, name);
		if (request->failed) {
			*error = request->failed == ENAMETOOLONG ? ENAMETOOLONG : ENOENT;
			break;
		}
		int fd = openat(to->path, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &info) < 0) {
			*error = errno;
			if (fd >= 0)
				close(fd);
			break;
		}
		close(to->path);
		to->path = fd;
		give_qid(request, &info);
		done++;
	}
	return (int)done;
}

int do_walk(struct request *request)
{
	uint32_t from_number = take_u32(request), to_number = take_u32(request);
	unsigned count = take_u16(request);
	if (request->failed || count > WALK_LIMIT)
		return EINVAL;
	struct fid *from = fid_find(from_number);
	if (!from)
		return EBADF;
	struct fid *to = fid_make(from->uid);
	int error = to ? 0 : ENOMEM;
	if (!error && (to->path = duplicate(from)) < 0)
		error = errno;
	fid_release(from);
	if (error) {
		if (to)
			fid_release(to);
		return error;
	}
	size_t start = request->length;
	give_u16(request, 0);
	uint16_t done = (uint16_t)step_through(request, to, count, &error);
	memcpy(request->out + start, &done, sizeof done);
	request->failed = 0;
	if (done < count) {
		/* Some steps are an answer, none is an error; the new number is not used. */
		fid_release(to);
		return done ? 0 : error;
	}
	if (from_number == to_number && (from = fid_remove(from_number)))
		fid_release(from);
	error = fid_insert(to, to_number);
	if (error)
		fid_release(to);
	return error;
}

int do_clunk(struct request *request)
{
	struct fid *fid = fid_remove(take_u32(request));
	if (!fid)
		return EBADF;
	int error = fid->kind == KIND_XATTR_WRITE ? xattr_finish(fid) : 0;
	fid_release(fid);
	return error;
}

/* The number is gone whatever comes of it; clients then unlink by name. */
int do_remove(struct request *request)
{
	struct fid *fid = fid_remove(take_u32(request));
	if (!fid)
		return EBADF;
	fid_release(fid);
	return EOPNOTSUPP;
}

/* Open what the fid holds; only files and directories, so that nothing of the host's is waited for. */
int do_open(struct request *request)
{
	char name[12];
	struct stat info;
	struct fid *fid = fid_find(take_u32(request));
	uint32_t flags = take_u32(request);
	int error = 0, fd = -1;
	if (!fid)
		return EBADF;
	pthread_mutex_lock(&fid->lock);
	if (fid->io >= 0 || fid->kind != KIND_FILE)
		error = EBADF;
	else if (fstat(fid->path, &info) < 0)
		error = errno;
	else if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
		error = S_ISLNK(info.st_mode) ? ELOOP : EOPNOTSUPP;
	else if ((fd = open(name_of(fid->path, name), flags_of(flags))) < 0)
		error = errno;
	else
		fid->io = fd;
	pthread_mutex_unlock(&fid->lock);
	if (!error) {
		give_qid(request, &info);
		give_u32(request, 0);
	}
	fid_release(fid);
	return error;
}

int do_create(struct request *request)
{
	char name[NAME_SIZE];
	struct stat info;
	struct fid *fid = fid_find(take_u32(request));
	take_name(request, name);
	uint32_t flags = take_u32(request), mode = take_u32(request), gid = take_u32(request);
	int error = request->failed, fd = -1;
	if (!fid)
		return EBADF;
	pthread_mutex_lock(&fid->lock);
	if (!error && (fid->io >= 0 || fid->kind != KIND_FILE))
		error = EBADF;
	if (!error)
		error = become(fid->uid, gid);
	if (!error) {
		int how = flags_of(flags) | O_CREAT | O_NOFOLLOW | (flags & P9_EXCL ? O_EXCL : 0);
		fd = openat(fid->path, name, how, mode & 07777);
		if (fd < 0 || fstat(fd, &info) < 0)
			error = errno;
		else if (!S_ISREG(info.st_mode))
			error = EEXIST;
	}
	if (!error) {
		fid->io = fd;
		give_qid(request, &info);
		give_u32(request, 0);
	} else if (fd >= 0) {
		close(fd);
	}
	pthread_mutex_unlock(&fid->lock);
	fid_release(fid);
	return error;
}

int do_read(struct request *request)
{
	struct fid *fid = fid_find(take_u32(request));
	uint64_t offset = take_u64(request);
	uint32_t count = take_u32(request);
	int error = request->failed;
	if (!fid)
		return EBADF;
	if (!error && fid->kind != KIND_FILE) {
		error = xattr_read(request, fid, offset, count);
	} else if (!error) {
		size_t room = request->room - request->length - 4;
		ssize_t done = pread(fid->io, request->out + request->length + 4, count < room ? count : room, (off_t)offset);
		if (done < 0) {
			error = errno;
		} else {
			give_u32(request, (uint32_t)done);
			request->length += (size_t)done;
		}
	}
	fid_release(fid);
	return error;
}

int do_write(struct request *request)
{
	struct fid *fid = fid_find(take_u32(request));
	uint64_t offset = take_u64(request);
	uint32_t count = take_u32(request);
	const uint8_t *bytes = take_bytes(request, count);
	int error = request->failed;
	if (!fid)
		return EBADF;
	if (!error && fid->kind != KIND_FILE) {
		request->at = bytes;
		error = xattr_write(request, fid, offset, count);
	} else if (!error) {
		ssize_t done = pwrite(fid->io, bytes, count, (off_t)offset);
		if (done < 0)
			error = errno;
		else
			give_u32(request, (uint32_t)done);
	}
	fid_release(fid);
	return error;
}

/* One entry of getdents(2) as 9P tells it; false when there is no room for it. */
static bool give_entry(struct request *request, int directory, const struct dirent *entry, dev_t device)
{
	struct stat info = {.st_ino = entry->d_ino, .st_dev = device, .st_mode = (mode_t)entry->d_type << 12};
	size_t length = strlen(entry->d_name);
	uint8_t type = entry->d_type;
	if (request->room - request->length < ENTRY_FIXED + length)
		return false;
	if (type == DT_UNKNOWN && fstatat(directory, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0)
		type = (uint8_t)(info.st_mode >> 12 & 15);
	give_qid(request, &info);
	give_u64(request, (uint64_t)entry->d_off);
	give_u8(request, type);
	give_text(request, entry->d_name, length);
	return true;
}

/* As many entries as `count` bytes of the answer hold; what was read too much is read again next time. */
static int list(struct request *request, struct fid *fid, uint64_t offset, uint32_t count)
{
	struct stat info;
	if (fstat(fid->io, &info) < 0)
		return errno;
	if (fid->position != (int64_t)offset && lseek(fid->io, (off_t)offset, SEEK_SET) < 0)
		return errno;
	size_t size = count < XATTR_SIZE ? count : XATTR_SIZE, start = request->length, at = 0;
	ssize_t filled = getdents(fid->io, (struct dirent *)request->scratch, size);
	if (filled < 0)
		return errno;
	size_t whole = request->room;
	if (whole - start - 4 > count)
		request->room = start + 4 + count;
	give_u32(request, 0);
	while (at < (size_t)filled) {
		const struct dirent *entry = (const struct dirent *)(request->scratch + at);
		if (!give_entry(request, fid->io, entry, info.st_dev)) {
			fid->position = -1;
			break;
		}
		fid->position = entry->d_off;
		at += entry->d_reclen;
	}
	request->room = whole;
	uint32_t given = (uint32_t)(request->length - start - 4);
	memcpy(request->out + start, &given, sizeof given);
	return filled > 0 && !given ? EINVAL : 0;
}

int do_readdir(struct request *request)
{
	struct fid *fid = fid_find(take_u32(request));
	uint64_t offset = take_u64(request);
	uint32_t count = take_u32(request);
	if (!fid)
		return EBADF;
	pthread_mutex_lock(&fid->lock);
	int error = request->failed ? request->failed : fid->kind != KIND_FILE ? EBADF : list(request, fid, offset, count);
	pthread_mutex_unlock(&fid->lock);
	fid_release(fid);
	return error;
}

int do_fsync(struct request *request)
{
	struct fid *fid = fid_find(take_u32(request));
	uint32_t data_only = take_u32(request);
	if (!fid)
		return EBADF;
	int error = (data_only ? fdatasync(fid->io) : fsync(fid->io)) < 0 ? errno : 0;
	fid_release(fid);
	return error;
}

/* What an operation on one name in one directory begins with. */
static int begin(struct request *request, struct fid **directory, char *name)
{
	*directory = fid_find(take_u32(request));
	take_name(request, name);
	return *directory ? request->failed : EBADF;
}

/* Its end: the qid of what is there now. */
static int end(struct request *request, struct fid *directory, const char *name, int error)
{
	struct stat info;
	if (!error && name) {
		if (fstatat(directory->path, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
			error = errno;
		else
			give_qid(request, &info);
	}
	if (directory)
		fid_release(directory);
	return error;
}

int do_mkdir(struct request *request)
{
	char name[NAME_SIZE];
	struct fid *directory;
	int error = begin(request, &directory, name);
	uint32_t mode = take_u32(request), gid = take_u32(request);
	if (!error && !(error = request->failed) && !(error = become(directory->uid, gid)))
		error = mkdirat(directory->path, name, mode & 07777) < 0 ? errno : 0;
	return end(request, directory, name, error);
}

/* Devices need CAP_MKNOD, which this process has not; the overlay's whiteout does not. */
int do_mknod(struct request *request)
{
	char name[NAME_SIZE];
	struct fid *directory;
	int error = begin(request, &directory, name);
	uint32_t mode = take_u32(request), major_number = take_u32(request), minor_number = take_u32(request);
	uint32_t gid = take_u32(request);
	if (!error && !(error = request->failed) && !(error = become(directory->uid, gid)))
		error = mknodat(directory->path, name, mode & (S_IFMT | 07777), makedev(major_number, minor_number)) < 0 ? errno : 0;
	return end(request, directory, name, error);
}

int do_symlink(struct request *request)
{
	char name[NAME_SIZE], target[PATH_MAX];
	struct fid *directory;
	int error = begin(request, &directory, name);
	take_text(request, target, sizeof target);
	uint32_t gid = take_u32(request);
	if (!error && !(error = request->failed) && !(error = become(directory->uid, gid)))
		error = symlinkat(target, directory->path, name) < 0 ? errno : 0;
	return end(request, directory, name, error);
}

int do_link(struct request *request)
{
	char name[NAME_SIZE];
	struct fid *directory = fid_find(take_u32(request)), *fid = fid_find(take_u32(request));
	take_name(request, name);
	int error = directory && fid ? request->failed : EBADF;
	if (!error && linkat(fid_handle(fid), "", directory->path, name, AT_EMPTY_PATH) < 0)
		error = errno;
	if (fid)
		fid_release(fid);
	return end(request, directory, NULL, error);
}

int do_rename(struct request *request)
{
	char old_name[NAME_SIZE], new_name[NAME_SIZE];
	struct fid *from, *to;
	int error = begin(request, &from, old_name), other = begin(request, &to, new_name);
	if (!error && !(error = other) && renameat(from->path, old_name, to->path, new_name) < 0)
		error = errno;
	if (from)
		fid_release(from);
	return end(request, to, NULL, error);
}

int do_unlink(struct request *request)
{
	char name[NAME_SIZE];
	struct fid *directory;
	int error = begin(request, &directory, name);
	uint32_t flags = take_u32(request);
	if (!error && unlinkat(directory->path, name, flags & AT_REMOVEDIR ? AT_REMOVEDIR : 0) < 0)
		error = errno;
	return end(request, directory, NULL, error);
}

int do_readlink(struct request *request)
{
	char target[PATH_MAX];
	struct fid *fid = fid_find(take_u32(request));
	if (!fid)
		return EBADF;
	ssize_t length = readlinkat(fid_handle(fid), "", target, sizeof target);
	int error = length < 0 ? (errno == ENOENT ? EINVAL : errno) : 0;
	if (!error)
		give_text(request, target, (size_t)length);
	fid_release(fid);
	return error;
}
