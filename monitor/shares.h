/* The file server: volumes and bind mounts for one VM, spoken to in 9P2000.L over one socket.
 * A process of its own beside QEMU that sees the shared trees and nothing else. */
#ifndef BASTIDE_SHARES_H
#define BASTIDE_SHARES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define NAME_SIZE 256		     /* a file's name with its NUL (NAME_MAX) */
#define MESSAGE_SIZE (1u << 20)	     /* the longest message that is agreed to */
#define MESSAGE_SMALL 8192u	     /* before anything is agreed */
#define XATTR_SIZE 65536	     /* linux/limits.h, XATTR_SIZE_MAX */

enum kind { KIND_FILE, KIND_XATTR_READ, KIND_XATTR_WRITE };

/* What the guest's number stands for. The file is held by descriptors, never by a path: it stays the same
 * one when it is renamed or unlinked, by the guest or by anybody else. */
struct fid {
	struct fid *next;
	uint32_t number;
	unsigned users;	      /* the table counts as one */
	pthread_mutex_t lock; /* for `position` and the extended attribute */
	enum kind kind;
	int path; /* O_PATH */
	int io;	  /* open for reading or writing, -1 */
	uint32_t uid;
	int64_t position; /* where the directory stream is */
	uint8_t *value;	  /* an extended attribute, read or being written */
	size_t value_size, value_length;
	char name[NAME_SIZE];
	int flags;
};

/* A message and its answer. `failed` is set by reading past the end or by a name that is none. */
struct request {
	const uint8_t *at, *end;
	uint8_t *out;
	size_t length, room;
	int failed;
	uint8_t *scratch; /* XATTR_SIZE bytes */
	uint16_t tag;
};

/* shares_messages.c */
uint8_t take_u8(struct request *request);
uint16_t take_u16(struct request *request);
uint32_t take_u32(struct request *request);
uint64_t take_u64(struct request *request);
const uint8_t *take_bytes(struct request *request, size_t length);
void take_text(struct request *request, char *text, size_t size);
void take_name(struct request *request, char *name);
void give_u8(struct request *request, uint8_t value);
void give_u16(struct request *request, uint16_t value);
void give_u32(struct request *request, uint32_t value);
void give_u64(struct request *request, uint64_t value);
void give_text(struct request *request, const char *text, size_t length);
void give_qid(struct request *request, const struct stat *info);
int give_qid_of(struct request *request, int fd);

/* shares_fids.c */
struct fid *fid_find(uint32_t number);
struct fid *fid_make(uint32_t uid);
int fid_insert(struct fid *fid, uint32_t number);
struct fid *fid_remove(uint32_t number);
void fid_clear(void);
void fid_release(struct fid *fid);
int fid_handle(const struct fid *fid);

void fid_each(void (*visit)(const struct fid *fid, void *argument), void *argument);

/* shares_saved.c */
extern int saved_file; /* where what the guest holds is written down, and read from at the start */
uint32_t saved_load(void);
int saved_write(uint32_t message_size);

/* shares_files.c, shares_attributes.c: one message each; 0 or an errno */
typedef int operation(struct request *request);
operation do_attach, do_walk, do_clunk, do_remove, do_open, do_create, do_read, do_write, do_readdir, do_fsync;
operation do_mkdir, do_mknod, do_symlink, do_link, do_rename, do_unlink, do_readlink;
operation do_getattr, do_setattr, do_statfs, do_xattr_walk, do_xattr_create, do_lock, do_getlock;
int xattr_finish(struct fid *fid);
int xattr_read(struct request *request, struct fid *fid, uint64_t offset, uint32_t count);
int xattr_write(struct request *request, struct fid *fid, uint64_t offset, uint32_t count);

/* shares_filter.c */
void filter_install(void);

/* shares_serve.c */
extern int root_directory; /* O_PATH: holds a numbered entry for each share */
void serve(int socket) __attribute__((noreturn));

#endif
