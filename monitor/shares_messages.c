/* 9P's encoding: little-endian integers, texts with a 16-bit length, qids (linux/include/net/9p/9p.h). */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "shares.h"

#define DEVICES 1024

static uint64_t take(struct request *request, size_t size)
{
	uint64_t value = 0;
	if ((size_t)(request->end - request->at) < size) {
		request->failed = EINVAL;
		return 0;
	}
	memcpy(&value, request->at, size);
	request->at += size;
	return value;
}

uint8_t take_u8(struct request *request) { return (uint8_t)take(request, 1); }
uint16_t take_u16(struct request *request) { return (uint16_t)take(request, 2); }
uint32_t take_u32(struct request *request) { return (uint32_t)take(request, 4); }
uint64_t take_u64(struct request *request) { return take(request, 8); }

const uint8_t *take_bytes(struct request *request, size_t length)
{
	const uint8_t *at = request->at;
	if ((size_t)(request->end - at) < length) {
		request->failed = EINVAL;
		return at;
	}
	request->at += length;
	return at;
}

/* A text without NUL that fits `size` bytes with its end. */
void take_text(struct request *request, char *text, size_t size)
{
	size_t length = take_u16(request);
	const uint8_t *bytes = take_bytes(request, length);
	*text = 0;
	if (request->failed)
		return;
	if (length >= size) {
		request->failed = ENAMETOOLONG;
	} else if (memchr(bytes, 0, length)) {
		request->failed = EINVAL;
	} else {
		memcpy(text, bytes, length);
		text[length] = 0;
	}
}

/* One component of a path: nothing that leads elsewhere. */
void take_name(struct request *request, char *name)
{
	take_text(request, name, NAME_SIZE);
	if (!request->failed && (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, "..")))
		request->failed = EINVAL;
}

static void give(struct request *request, const void *bytes, size_t size)
{
	if (request->room - request->length < size) {
		request->failed = EMSGSIZE;
		return;
	}
	memcpy(request->out + request->length, bytes, size);
	request->length += size;
}

void give_u8(struct request *request, uint8_t value) { give(request, &value, 1); }
void give_u16(struct request *request, uint16_t value) { give(request, &value, 2); }
void give_u32(struct request *request, uint32_t value) { give(request, &value, 4); }
void give_u64(struct request *request, uint64_t value) { give(request, &value, 8); }

void give_text(struct request *request, const char *text, size_t length)
{
	give_u16(request, (uint16_t)length);
	give(request, text, length);
}

/* A small number for each device, so that files of two file systems never look like one. The first is that of the
 * server's own root: it takes the last number, so that the numbers of files are what they are where one is shared. */
static uint64_t device_number(dev_t device)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static dev_t known[DEVICES];
	static unsigned count;
	unsigned number = 0;
	pthread_mutex_lock(&lock);
	while (number < count && known[number] != device)
		number++;
	if (number == count && count < DEVICES)
		known[count++] = device;
	pthread_mutex_unlock(&lock);
	return (number + DEVICES - 1) % DEVICES;
}

/* The version is always 0: by that the guest's kernel knows that it must not keep the content (fs/9p/fid.h). */
void give_qid(struct request *request, const struct stat *info)
{
	give_u8(request, S_ISDIR(info->st_mode) ? 0x80 : S_ISLNK(info->st_mode) ? 0x02 : 0);
	give_u32(request, 0);
	give_u64(request, (uint64_t)info->st_ino ^ device_number(info->st_dev) << 54);
}

int give_qid_of(struct request *request, int fd)
{
	struct stat info;
	if (fstat(fd, &info) < 0)
		return errno;
	give_qid(request, &info);
	return 0;
}
