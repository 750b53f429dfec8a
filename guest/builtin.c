/* Functions of the agent that run in a child inside the container's root, where images have no programs
 * of their own to rely on. Output goes to stdout, a line of error to stderr, the result is the exit code. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "agent.h"

static const struct {
	const char *name;
	int (*run)(char **args);
} functions[] = {{NULL, NULL}};

int builtin_run(char **args)
{
	for (size_t i = 0; functions[i].name; i++)
		if (!strcmp(args[0], functions[i].name))
			return functions[i].run(args);
	fprintf(stderr, "%s: the guest agent has no such function\n", args[0]);
	return 2;
}
