/* Users and groups, looked up in the container's own files: the forms of an image's USER. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

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
	for (char *at = line; at && count < limit; count++) {
		parts[count] = strsep(&at, ":");
	}
	return count;
}

/* What the image's list holds; lines are taken off it with next_line. Empty where there is none. Nothing is waited
 * for, whatever kind of file the path leads to.
 *
 * One read into memory that is there: what stdio asks for besides (the size, a position, memory and its end) costs an
 * emulator that has just begun more than all else here. */
static char *read_database(const char *path)
{
	static char text[DATABASE + 1];
	size_t length = 0;
	ssize_t count;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0) {
		while (length < DATABASE && (count = read(fd, text + length, DATABASE - length)) > 0)
			length += (size_t)count;
		close(fd);
	}
	/* A line that is cut short says something else than the whole one. */
	while (length == DATABASE && length && text[length - 1] != '\n')
		length--;
	text[length] = 0;
	return text;
}

/* The next line without its end, NULL after the last. */
static char *next_line(char **text)
{
	return *text && **text ? strsep(text, "\n") : NULL;
}

/* Find the user by name or number. A number needs no entry. */
static bool find_user(const char *user, struct account *account, char *name, size_t size)
{
	char *line, *parts[7], *text = read_database("/etc/passwd");
	uint32_t number = 0, uid, gid;
	bool numeric = parse_id(user, &number), found = false;
	while (!found && (line = next_line(&text))) {
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
	if (!found && numeric) {
		account->uid = number;
		return true;
	}
	return found;
}

static bool find_group(const char *group, gid_t *found)
{
	char *line, *parts[4], *text;
	uint32_t gid;
	if (parse_id(group, &gid)) {
		*found = gid;
		return true;
	}
	text = read_database("/etc/group");
	while ((line = next_line(&text))) {
		if (split(line, parts, 4) >= 3 && !strcmp(parts[0], group) && parse_id(parts[2], &gid)) {
			*found = gid;
			return true;
		}
	}
	return false;
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
	char *line, *parts[4], *text = read_database("/etc/group");
	uint32_t gid;
	while ((line = next_line(&text))) {
		if (split(line, parts, 4) < 4 || !parse_id(parts[2], &gid))
			continue;
		for (char *member, *members = parts[3]; (member = strsep(&members, ","));)
			if (!strcmp(member, name))
				add_group(account, gid);
	}
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
