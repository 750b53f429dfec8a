/* The guest's numbers for files. Several workers may use one at a time; it ends with its last user. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "shares.h"

#define BUCKETS 1024

static struct fid *table[BUCKETS];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static struct fid **bucket(uint32_t number)
{
	struct fid **link = &table[number % BUCKETS];
	while (*link && (*link)->number != number)
		link = &(*link)->next;
	return link;
}

/* The caller releases it; NULL when there is none. */
struct fid *fid_find(uint32_t number)
{
	pthread_mutex_lock(&table_lock);
	struct fid *fid = *bucket(number);
	if (fid)
		fid->users++;
	pthread_mutex_unlock(&table_lock);
	return fid;
}

/* A new one that no number names yet. */
struct fid *fid_make(uint32_t uid)
{
	struct fid *fid = calloc(1, sizeof *fid);
	if (!fid)
		return NULL;
	pthread_mutex_init(&fid->lock, NULL);
	fid->users = 1;
	fid->path = fid->io = -1;
	fid->uid = uid;
	return fid;
}

/* Name it; its maker's hold becomes the table's. */
int fid_insert(struct fid *fid, uint32_t number)
{
	int error = 0;
	pthread_mutex_lock(&table_lock);
	struct fid **link = bucket(number);
	if (*link)
		error = EBADF;
	else
		*link = fid;
	fid->number = number;
	pthread_mutex_unlock(&table_lock);
	return error;
}

/* Take the name away; the caller releases what the table held. */
struct fid *fid_remove(uint32_t number)
{
	pthread_mutex_lock(&table_lock);
	struct fid **link = bucket(number), *fid = *link;
	if (fid)
		*link = fid->next;
	pthread_mutex_unlock(&table_lock);
	return fid;
}

void fid_release(struct fid *fid)
{
	pthread_mutex_lock(&table_lock);
	bool last = --fid->users == 0;
	pthread_mutex_unlock(&table_lock);
	if (!last)
		return;
	if (fid->path >= 0)
		close(fid->path);
	if (fid->io >= 0)
		close(fid->io);
	free(fid->value);
	pthread_mutex_destroy(&fid->lock);
	free(fid);
}

/* The guest begins anew. */
void fid_clear(void)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		pthread_mutex_lock(&table_lock);
		struct fid *fid = table[i];
		table[i] = NULL;
		pthread_mutex_unlock(&table_lock);
		while (fid) {
			struct fid *next = fid->next;
			fid_release(fid);
			fid = next;
		}
	}
}

/* A descriptor of the file itself: after a creation `path` is still the directory's. */
int fid_handle(const struct fid *fid)
{
	return fid->io >= 0 ? fid->io : fid->path;
}

void fid_each(void (*visit)(const struct fid *fid, void *argument), void *argument)
{
	pthread_mutex_lock(&table_lock);
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct fid *fid = table[i]; fid; fid = fid->next)
			visit(fid, argument);
	pthread_mutex_unlock(&table_lock);
}
