/* Users and groups, looked up in the container's own files: the forms of an image's USER. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

#define LINE 4096
#define DATABASE (1 << 20) /* bytes that are read of a list, which the image may have filled with anything */

static bool parse_id(const char *text, uint32_t *id)
{
	char *end;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (!*text || *end || errno || value > 0x7fffffff || *text < '0' || *text > '9')
		return false;
	*id = (uint32_t)value;
	return true;
}

/* The colon-separated parts of a line, in place; how many there are. */
static int split(char *line, char **parts, int limit)
{
	int count = 0;
	line[strcspn(line, "\n")] = 0;
	for (char *at = line; at && count < limit; count++) {
		parts[count] = strsep(&at, ":");
	}
	return count;
}

/* A list of the image's, NULL where that is no plain file: nothing else is waited for. */
static FILE *open_database(const char *path)
{
	struct stat found;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &found) == 0 && S_ISREG(found.st_mode))
		return fdopen(fd, "r");
	close(fd);
	return NULL;
}

static bool next_line(FILE *file, char *line)
{
	return file && ftell(file) < DATABASE && fgets(line, LINE, file);
}

/* Find the user by name or number. A number needs no entry. */
static bool find_user(const char *user, struct account *account, char *name, size_t size)
{
	char line[LINE], *parts[7];
	uint32_t number = 0, uid, gid;
	bool numeric = parse_id(user, &number), found = false;
	FILE *file = open_database("/etc/passwd");
	while (!found && next_line(file, line)) {
		if (split(line, parts, 7) < 6 || !parse_id(parts[2], &uid) || !parse_id(parts[3], &gid))
			continue;
		if (strcmp(parts[0], user) != 0 && !(numeric && uid == number))
			continue;
		account->uid = uid;
		account->gid = gid;
		snprintf(account->home, sizeof account->home, "%s", *parts[5] ? parts[5] : "/");
		snprintf(name, size, "%s", parts[0]);
		found = true;
	}
	if (file)
		fclose(file);
	if (!found && numeric) {
		account->uid = number;
		return true;
	}
	return found;
}

static bool find_group(const char *group, gid_t *found)
{
	char line[LINE], *parts[4];
	uint32_t gid;
	bool known = false;
	if (parse_id(group, &gid)) {
		*found = gid;
		return true;
	}
	FILE *file = open_database("/etc/group");
	while (!known && next_line(file, line)) {
		if (split(line, parts, 4) >= 3 && !strcmp(parts[0], group) && parse_id(parts[2], &gid)) {
			*found = gid;
			known = true;
		}
	}
	if (file)
		fclose(file);
	return known;
}

static void add_group(struct account *account, gid_t gid)
{
	for (int i = 0; i < account->group_count; i++)
		if (account->groups[i] == gid)
			return;
	if (account->group_count < MAX_GROUPS)
		account->groups[account->group_count++] = gid;
}

/* The groups that list the user as a member. */
static void add_memberships(const char *name, struct account *account)
{
	char line[LINE], *parts[4];
	uint32_t gid;
	FILE *file = open_database("/etc/group");
	while (next_line(file, line)) {
		if (split(line, parts, 4) < 4 || !parse_id(parts[2], &gid))
			continue;
		for (char *member, *members = parts[3]; (member = strsep(&members, ","));)
			if (!strcmp(member, name))
				add_group(account, gid);
	}
	if (file)
		fclose(file);
}

/* Fill `account` for `user[:group]` and further groups (joined by NUL). Gives an error's text. */
const char *account_find(const char *user, const char *groups, size_t groups_length, struct account *account)
{
	static char error[256];
	char name[256] = "", wanted[256];
	memset(account, 0, sizeof *account);
	strcpy(account->home, "/");
	snprintf(wanted, sizeof wanted, "%s", user);
	char *group = strchr(wanted, ':');
	if (group)
		*group++ = 0;
	if (!find_user(*wanted ? wanted : "0", account, name, sizeof name)) {
		snprintf(error, sizeof error, "unable to find user %s: no matching entries in passwd file", wanted);
		return error;
	}
	if (group && *group) {
		if (!find_group(group, &account->gid)) {
			snprintf(error, sizeof error, "unable to find group %s: no matching entries in group file",
				 group);
			return error;
		}
	} else if (*name) {
		add_memberships(name, account);
	}
	add_group(account, account->gid);
	for (const char *at = groups; at && at < groups + groups_length; at += strlen(at) + 1) {
		gid_t gid;
		if (!find_group(at, &gid)) {
			snprintf(error, sizeof error, "unable to find group %s: no matching entries in group file", at);
			return error;
		}
		add_group(account, gid);
	}
	return NULL;
}
