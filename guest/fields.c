/* Control messages: lists of tagged fields, and the process specification made of them. */
#include <string.h>

#include "agent.h"

/* Of all lists of a message: nothing of it outlives it, so nothing is allocated. A field has more bytes than words. */
static char *words[MESSAGE_LIMIT];
static size_t used;

/* The next field; false at the end or when what is left is cut short. */
bool field_next(struct fields *fields, struct field_value *value)
{
	if (fields->end - fields->at < 6)
		return false;
	value->tag = fields->at[0];
	memcpy(&value->length, fields->at + 1, 4);
	if (value->length > (size_t)(fields->end - fields->at - 6) || fields->at[5 + value->length])
		return false;
	value->bytes = fields->at + 5;
	fields->at += 6 + value->length;
	return true;
}

/* The bytes as a string, where they lie in the message. */
char *field_text(const struct field_value *value)
{
	return (char *)value->bytes;
}

uint32_t field_u32(const struct field_value *value)
{
	uint32_t number = 0;
	memcpy(&number, value->bytes, value->length < 4 ? value->length : 4);
	return number;
}

uint64_t field_u64(const struct field_value *value)
{
	uint64_t number = 0;
	memcpy(&number, value->bytes, value->length < 8 ? value->length : 8);
	return number;
}

/* Forget the lists of an earlier message. */
void fields_begin(void)
{
	used = 0;
}

/* A list joined by NUL, as a vector with room for one entry more; an empty field is an empty list. */
char **field_list(const struct field_value *value)
{
	char *text = field_text(value), **list = words + used;
	size_t count = value->length ? 1 : 0;
	for (uint32_t i = 0; i < value->length; i++)
		count += value->bytes[i] == 0;
	used += count + 2;
	for (size_t i = 0; i < count; i++) {
		list[i] = text;
		text += strlen(text) + 1;
	}
	list[count] = NULL;
	return list;
}

static void spec_rlimit(struct spec *spec, const struct field_value *value)
{
	if (value->length != 20 || spec->rlimit_count == MAX_RLIMITS)
		return;
	memcpy(&spec->rlimits[spec->rlimit_count].resource, value->bytes, 4);
	memcpy(&spec->rlimits[spec->rlimit_count].soft, value->bytes + 4, 8);
	memcpy(&spec->rlimits[spec->rlimit_count].hard, value->bytes + 12, 8);
	spec->rlimit_count++;
}

static void spec_terminal(struct spec *spec, const struct field_value *value)
{
	spec->terminal = true;
	if (value->length == 4) {
		memcpy(&spec->rows, value->bytes, 2);
		memcpy(&spec->columns, value->bytes + 2, 2);
	}
}

static void spec_set(struct spec *spec, const struct field_value *value)
{
	switch (value->tag) {
	case P_ARGS: spec->args = field_list(value); break;
	case P_ENV: spec->env = field_list(value); break;
	case P_CWD: spec->cwd = field_text(value); break;
	case P_USER: spec->user = field_text(value); break;
	case P_GROUPS:
		spec->groups = field_text(value);
		spec->groups_length = value->length;
		break;
	case P_TERMINAL: spec_terminal(spec, value); break;
	case P_STDIN: spec->stdin_open = true; break;
	case P_CAPABILITIES: spec->capabilities = field_u64(value); break;
	case P_NO_NEW_PRIVILEGES: spec->no_new_privileges = true; break;
	case P_RLIMIT: spec_rlimit(spec, value); break;
	case P_BUILTIN: spec->builtin = true; break;
	case P_INIT: spec->init = true; break;
	case P_OOM_SCORE: spec->oom_score = (int32_t)field_u32(value); break;
	default: break;
	}
}

/* Whether the message holds a process that could be run. */
bool spec_parse(struct spec *spec, uint8_t *bytes, size_t length)
{
	struct fields fields = {bytes, bytes + length};
	struct field_value value;
	memset(spec, 0, sizeof *spec);
	while (field_next(&fields, &value))
		spec_set(spec, &value);
	return spec->args && spec->args[0] && spec->env && spec->cwd && spec->user;
}
