/* The server's loop: a few workers that take turns at reading a message, and answer at the same time. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shares.h"

#define WORKERS 4
#define HEADER 7 /* size[4] type[1] tag[2] */
#define NO_TAG 0xffffu

enum message {
	R_ERROR = 7,
	T_STATFS = 8,
	T_OPEN = 12,
	T_CREATE = 14,
	T_SYMLINK = 16,
	T_MKNOD = 18,
	T_READLINK = 22,
	T_GETATTR = 24,
	T_SETATTR = 26,
	T_XATTR_WALK = 30,
	T_XATTR_CREATE = 32,
	T_READDIR = 40,
	T_FSYNC = 50,
	T_LOCK = 52,
	T_GETLOCK = 54,
	T_LINK = 70,
	T_MKDIR = 72,
	T_RENAME_AT = 74,
	T_UNLINK_AT = 76,
	T_VERSION = 100,
	T_ATTACH = 104,
	T_FLUSH = 108,
	T_WALK = 110,
	T_READ = 116,
	T_WRITE = 118,
	T_CLUNK = 120,
	T_REMOVE = 122,
	T_SAVE = 250, /* not of 9P: guest/PROTOCOL.md */
	LAST = T_SAVE,
};

static operation do_version, do_flush, do_save;

static operation *const operations[LAST + 1] = {
	[T_STATFS] = do_statfs,
	[T_OPEN] = do_open,
	[T_CREATE] = do_create,
	[T_SYMLINK] = do_symlink,
	[T_MKNOD] = do_mknod,
	[T_READLINK] = do_readlink,
	[T_GETATTR] = do_getattr,
	[T_SETATTR] = do_setattr,
	[T_XATTR_WALK] = do_xattr_walk,
	[T_XATTR_CREATE] = do_xattr_create,
	[T_READDIR] = do_readdir,
	[T_FSYNC] = do_fsync,
	[T_LOCK] = do_lock,
	[T_GETLOCK] = do_getlock,
	[T_LINK] = do_link,
	[T_MKDIR] = do_mkdir,
	[T_RENAME_AT] = do_rename,
	[T_UNLINK_AT] = do_unlink,
	[T_VERSION] = do_version,
	[T_ATTACH] = do_attach,
	[T_FLUSH] = do_flush,
	[T_WALK] = do_walk,
	[T_READ] = do_read,
	[T_WRITE] = do_write,
	[T_CLUNK] = do_clunk,
	[T_REMOVE] = do_remove,
	[T_SAVE] = do_save,
};

struct worker {
	uint8_t in[MESSAGE_SIZE], out[MESSAGE_SIZE], scratch[XATTR_SIZE];
	bool busy; /* with something that a flush waits for */
	uint16_t tag;
};

int root_directory = -1;

static int channel = -1;
static uint32_t message_size = MESSAGE_SMALL; /* changes under `intake` */
static struct worker *workers[WORKERS];
static pthread_mutex_t intake = PTHREAD_MUTEX_INITIALIZER, outlet = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;

static void __attribute__((noreturn)) end(const char *why)
{
	if (why)
		fprintf(stderr, "the file server ended: %s\n", why);
	_exit(why != NULL);
}

/* Exactly so many bytes; the VM's end is this process's. */
static void receive_all(uint8_t *bytes, size_t length)
{
	while (length) {
		ssize_t count = recv(channel, bytes, length, MSG_WAITALL);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			end(NULL);
		bytes += count;
		length -= (size_t)count;
	}
}

static void send_all(const uint8_t *bytes, size_t length)
{
	while (length) {
		ssize_t count = send(channel, bytes, length, MSG_NOSIGNAL);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			end(NULL);
		bytes += count;
		length -= (size_t)count;
	}
}

/* Takes effect for the next message: the worker that reads it waits for this answer's lock. */
static int do_version(struct request *request)
{
	char version[32];
	uint32_t size = take_u32(request);
	take_text(request, version, sizeof version);
	if (request->failed)
		return request->failed;
	bool known = !strcmp(version, "9P2000.L");
	if (size > MESSAGE_SIZE)
		size = MESSAGE_SIZE;
	if (size < MESSAGE_SMALL / 2)
		return EINVAL;
	fid_clear();
	message_size = size;
	give_u32(request, size);
	give_text(request, known ? version : "unknown", known ? strlen(version) : 7);
	return 0;
}

/* The answer to the flushed request goes out first, so that its tag is free after this one's. */
static int do_flush(struct request *request)
{
	uint16_t old = take_u16(request);
	pthread_mutex_lock(&state_lock);
	for (int i = 0; i < WORKERS; i++)
		while (workers[i]->busy && workers[i]->tag == old)
			pthread_cond_wait(&answered, &state_lock);
	pthread_mutex_unlock(&state_lock);
	return request->failed;
}

static int do_save(struct request *request)
{
	(void)request;
	return saved_write(message_size);
}

static void mark(struct worker *self, bool busy, uint16_t tag)
{
	pthread_mutex_lock(&state_lock);
	self->busy = busy;
	self->tag = tag;
	pthread_cond_broadcast(&answered);
	pthread_mutex_unlock(&state_lock);
}

/* The next whole message; its length. */
static uint32_t receive(struct worker *self)
{
	uint32_t size;
	receive_all(self->in, HEADER);
	memcpy(&size, self->in, sizeof size);
	if (size < HEADER || size > message_size)
		end("the guest sent a message of an impossible length");
	receive_all(self->in + HEADER, size - HEADER);
	return size;
}

static void answer(struct worker *self, uint32_t size, uint32_t room)
{
	uint8_t type = self->in[4];
	uint16_t tag;
	memcpy(&tag, self->in + 5, sizeof tag);
	struct request request = {
		.at = self->in + HEADER,
		.end = self->in + size,
		.out = self->out,
		.length = HEADER,
		.room = room,
		.scratch = self->scratch,
		.tag = tag,
	};
	operation *run = type <= LAST ? operations[type] : NULL;
	int error = run ? run(&request) : EOPNOTSUPP;
	if (!error)
		error = request.failed;
	if (error) {
		request.length = HEADER;
		request.failed = 0;
		give_u32(&request, (uint32_t)error);
	}
	uint32_t length = (uint32_t)request.length;
	memcpy(self->out, &length, sizeof length);
	self->out[4] = error ? R_ERROR : type + 1;
	memcpy(self->out + 5, &tag, sizeof tag);
	pthread_mutex_lock(&outlet);
	send_all(self->out, length);
	pthread_mutex_unlock(&outlet);
}

static void *__attribute__((noreturn)) work(void *argument)
{
	struct worker *self = argument;
	for (;;) {
		uint16_t tag;
		pthread_mutex_lock(&intake);
		uint32_t size = receive(self), room = message_size;
		memcpy(&tag, self->in + 5, sizeof tag);
		bool first = self->in[4] == T_VERSION;
		mark(self, self->in[4] != T_FLUSH, tag);
		if (!first)
			pthread_mutex_unlock(&intake);
		answer(self, size, room);
		mark(self, false, NO_TAG);
		if (first)
			pthread_mutex_unlock(&intake);
	}
}

/* Serve one guest until its VM ends. */
void serve(int socket)
{
	pthread_t thread;
	channel = socket;
	uint32_t agreed = saved_load();
	message_size = agreed ? agreed : message_size;
	for (int i = 0; i < WORKERS; i++)
		if (!(workers[i] = calloc(1, sizeof *workers[i])))
			end("no memory");
	pthread_mutex_lock(&intake);
	for (int i = 1; i < WORKERS; i++)
		if (pthread_create(&thread, NULL, work, workers[i]))
			end("no threads");
	filter_install();
	pthread_mutex_unlock(&intake);
	work(workers[0]);
}
