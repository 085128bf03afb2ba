/* SPDX-License-Identifier: MIT */
/* Command lines: what is read of them, and what is said of those that are wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/cli/command.h"
#include "server/cli/help.h"
#include "server/cli/output.h"
#include "tests/unit/cmocka_all.h"

static const struct flag flags[] = {
	FLAG_DEVICE,
	{ 'f', "force", WORD_NONE, NULL, "all the same" },
	{ 'm', "mode", WORD_CHOICE, "fast|faster", "how" },
	{ 256, "long-only", WORD_ANY, "WORD", "has no letter" },
};
static const struct command with_devices = {
	.name = "try",
	.summary = "tries",
	.operands = "[DEVICE...]",
	FLAGS(flags),
};
static const struct command with_none = { .name = "try", .summary = "tries", FLAGS(flags) };
static const struct command with_program = {
	.name = "try",
	.operands = "PROGRAM",
	.operand = WORD_PROGRAM,
	FLAGS(flags),
};
const struct command *const commands[] = { &with_devices, NULL };

static char *words[16];
static struct command_line line;
static char said[4096];

/* Splits @text at spaces, and begins. */
static void begin(const struct command *c, const char *text)
{
	static char copy[256];
	int argc = 1;

	words[0] = (char *)"try";
	strcpy(copy, text);
	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
		words[argc++] = word;
	words[argc] = NULL;
	command_begin(&line, c, argc, words);
}

/* What command_next() says of @text on standard error or output, in said[]. */
static int last_of(const struct command *c, const char *text, int fd)
{
	FILE *file = tmpfile();
	int saved = dup(fd);
	int key;

	fflush(NULL);
	dup2(fileno(file), fd);
	begin(c, text);
	while ((key = command_next(&line)) > 0)
		;
	fflush(NULL);
	dup2(saved, fd);
	close(saved);
	rewind(file);
	said[fread(said, 1, sizeof(said) - 1, file)] = '\0';
	fclose(file);
	return key;
}

static void options_and_operands_in_any_order(void **state)
{
	(void)state;
	begin(&with_devices, "a -f b --mode fast --long-only=x c");
	assert_int_equal(command_next(&line), 'f');
	assert_null(line.value);
	assert_int_equal(command_next(&line), 'm');
	assert_string_equal(line.value, "fast");
	assert_int_equal(command_next(&line), 256);
	assert_string_equal(line.flag->name, "long-only");
	assert_string_equal(line.value, "x");
	assert_int_equal(command_next(&line), LINE_END);
	assert_int_equal(line.nr_operands, 3);
	assert_string_equal(line.operands[2], "c");
}

static void a_program_has_options_of_its_own(void **state)
{
	(void)state;
	begin(&with_program, "-f dd --mode x");
	assert_int_equal(command_next(&line), 'f');
	assert_int_equal(command_next(&line), LINE_END);
	assert_int_equal(line.nr_operands, 3);
	assert_string_equal(line.operands[1], "--mode");
}

static void what_is_wrong_is_named(void **state)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
		{ "--nonsense", "unknown option '--nonsense'" },
		{ "-fx", "unknown option '-x'" },
		{ "--mode", "--mode wants an argument: fast|faster" },
		{ "-m", "-m wants an argument: fast|faster" },
		{ "--force=3", "'--force=3': --force takes no argument" },
		{ "--mode slow", "--mode 'slow': wants one of fast|faster" },
		{ "--mode fas", "--mode 'fas': wants one of fast|faster" },
		{ "-f stray", "unexpected argument 'stray'" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(last_of(&with_none, rows[i].text, STDERR_FILENO), LINE_BAD);
		assert_true(strncmp(said, "ublkzc try: ", 12) == 0);
		if (!strstr(said, rows[i].says))
			fail_msg("'%s': %s", rows[i].text, said);
		assert_non_null(strstr(said, "(ublkzc try --help)\n"));
	}
	assert_int_equal(command_status(LINE_BAD), 2);
	assert_int_equal(command_status(LINE_HELP), 0);
}

static void help_fits_a_terminal(void **state)
{
	(void)state;
	assert_int_equal(last_of(&with_devices, "-f --help", STDOUT_FILENO), LINE_HELP);
	assert_non_null(strstr(said, "usage: ublkzc try [options] [DEVICE...]\n"));
	assert_non_null(strstr(said, "  -m, --mode fast|faster    how\n"));
	assert_non_null(strstr(said, "      --long-only WORD      has no letter\n"));
	for (char *l = strtok(said, "\n"); l; l = strtok(NULL, "\n"))
		assert_true(strlen(l) <= HELP_COLUMNS);
}

static void long_help_is_wrapped(void **state)
{
	FILE *file = tmpfile();
	size_t len;

	(void)state;
	for (int i = 0; i < 40; i++)
		strcpy(said + 5 * i, i < 39 ? "word " : "end");
	help_wrap(file, said, 10, 4);
	rewind(file);
	len = fread(said, 1, sizeof(said) - 1, file);
	said[len] = '\0';
	fclose(file);
	assert_non_null(strstr(said, "\n    word"));
	assert_string_equal(said + len - 4, "end\n");
	strtok(said, "\n");
	for (char *l = strtok(NULL, "\n"); l; l = strtok(NULL, "\n"))
		assert_true(strlen(l) <= HELP_COLUMNS);
}

static void devices_have_three_names(void **state)
{
	static const char *const good[] = { "7", "ublkb7", "/dev/ublkb7" };
	static const char *const bad[] = {
		"", "x", "-1", "7x", "ublkb", "/dev/sda", "/dev/ublkb7p1", "1048576", "ublkc7", " 7"
	};
	unsigned int id = 0;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(device_parse(good[i], &id), 0);
		assert_int_equal(id, 7);
	}
	assert_int_equal(device_parse("1048575", &id), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (device_parse(bad[i], &id) == 0)
			fail_msg("'%s' is taken for device %u", bad[i], id);
}

static void one_device_is_one(void **state)
{
	char *twice[] = { (char *)"try", (char *)"-n", (char *)"3", (char *)"/dev/ublkb3", NULL };
	unsigned int id = 0;

	(void)state;
	assert_int_equal(command_only_device(&with_devices, 4, twice, &id), 0);
	assert_int_equal(id, 3);
	twice[2] = (char *)"4";
	assert_int_equal(command_only_device(&with_devices, 4, twice, &id), LINE_BAD);
	assert_int_equal(command_only_device(&with_devices, 1, twice, &id), LINE_BAD);
}

static void sizes_for_people(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} rows[] = {
		{ 0, "0 B" },
		{ 1023, "1023 B" },
		{ 1024, "1 KiB" },
		{ 1536, "1.5 KiB" },
		{ 1048575, "1.0 MiB" },
		{ 250ULL << 30, "250 GiB" },
		{ (1ULL << 40) + 1, "1.0 TiB" },
		{ UINT64_MAX, "16 EiB" },
	};
	char buf[OUTPUT_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(size_text(buf, rows[i].bytes, false), rows[i].text);
	assert_string_equal(size_text(buf, 1536, true), "1536");
}

static void times_for_people(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} rows[] = {
		{ 0, "0 us" },		{ 104600, "105 us" },	   { 999499, "999 us" },
		{ 999500, "1.0 ms" },	{ 2100000, "2.1 ms" },	   { 999949999, "999.9 ms" },
		{ 999950000, "1.0 s" }, { 34000000000, "34.0 s" },
	};
	char buf[OUTPUT_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(time_text(buf, rows[i].ns), rows[i].text);
}

static void any_path_is_json(void **state)
{
	json_t *text = json_text("/a\xff\xc3\xa4\xc3");

	(void)state;
	assert_string_equal(json_string_value(text), "/a\xef\xbf\xbd\xc3\xa4\xef\xbf\xbd");
	json_decref(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_and_operands_in_any_order),
		cmocka_unit_test(a_program_has_options_of_its_own),
		cmocka_unit_test(what_is_wrong_is_named),
		cmocka_unit_test(help_fits_a_terminal),
		cmocka_unit_test(long_help_is_wrapped),
		cmocka_unit_test(devices_have_three_names),
		cmocka_unit_test(one_device_is_one),
		cmocka_unit_test(sizes_for_people),
		cmocka_unit_test(times_for_people),
		cmocka_unit_test(any_path_is_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
